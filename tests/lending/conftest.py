"""The services of lending as stubs on loopback, with what a command needs to reach them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from tests.lending.stubs.formance import Formance
from tests.lending.stubs.rotessa import KEY, Rotessa

QUICK = {"first_wait": "5ms", "tries": 4}


@pytest.fixture
def rotessa(monkeypatch: pytest.MonkeyPatch) -> Iterator[Rotessa]:
    """Rotessa with its key in the environment; pages of five rows."""
    monkeypatch.setenv("ROTESSA_TOKEN", KEY)
    with Rotessa(page_size=5) as service:
        yield service


@pytest.fixture
def formance() -> Iterator[Formance]:
    with Formance() as service:
        yield service


@pytest.fixture
def toml(tmp_path: Path) -> Callable[..., Sequence[str]]:
    """`toml(rotessa=stub.base, formance=stub.url, …)`: a runner.toml, as options of a command."""

    def write(rotessa: str | None = None, formance: str | None = None, **top: Any) -> Sequence[str]:
        top = {"systems": ["lending"], **top}
        lines = [f"{name} = {json.dumps(value)}" for name, value in top.items()]
        for name, key, value in (("rotessa", "host", rotessa), ("formance", "url", formance)):
            if value is not None:
                lines.append(f"[lending.{name}]")
                lines += [f"{field} = {json.dumps(item)}" for field, item in {key: value, **QUICK}.items()]
        file = tmp_path / "runner.toml"
        file.write_text("\n".join(lines) + "\n")
        return ("--config", str(file))

    return write


@pytest.fixture
def twin_url(database_url: str) -> Iterator[str]:
    """Another database as database_url is before the test."""
    parts: dict[str, Any] = dict(psycopg.conninfo.conninfo_to_dict(database_url))
    name = sql.Identifier(f"{parts['dbname']}_twin")
    with psycopg.connect(psycopg.conninfo.make_conninfo(**{**parts, "dbname": "postgres"}), autocommit=True) as conn:
        conn.execute(sql.SQL("create database {} template {}").format(name, sql.Identifier(str(parts["dbname"]))))
        yield psycopg.conninfo.make_conninfo(**{**parts, "dbname": f"{parts['dbname']}_twin"})
        conn.execute(sql.SQL("drop database {} with (force)").format(name))
