"""Words for stories about the flat: its tenants, its samples, loading and applying."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psycopg

from runner.settings import Settings
from tests.engine.words import Connection, do
from tests.place import ROOT

DATA = ROOT / "tests" / "rent" / "data"
HISTORY = DATA / "rent_history"
ODD = DATA / "rent_history_odd"
BILLS = DATA / "electricity_bills.txt"

TENANTS = """
    insert into rent.tenants (name, start_date, departure_date) values
        ('Alma', '2020-01-01', null), ('Bo', null, null), ('Åsa', '2021-06-01', null), ('Dag', '2023-03-16', null);
    insert into rent.rent_config (key, period, value) values
        ('vattenavgift', '2022-10', 30000), ('va', '2022-10', 30000), ('larm', '2022-10', 10000);
"""


def furnish(conn: Connection) -> None:
    """The sample flat's tenants and standing costs, committed."""
    do(conn, TENANTS)
    conn.commit()


def runner(settings: Settings, *words: str | Path) -> subprocess.CompletedProcess[str]:
    """The real command line."""
    return subprocess.run(
        [sys.executable, "-m", "runner.cli", *map(str, words)],
        env=os.environ | {"DATABASE_URL": settings.conninfo, "PYTHONPATH": str(ROOT), "COLUMNS": "120"},
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        check=False,
    )


def ask(settings: Settings, sql: str, params: Sequence[object] | None = None) -> list[tuple[Any, ...]]:
    """All rows of a query, on a connection of its own."""
    with psycopg.connect(settings.conninfo) as conn:
        return conn.execute(sql.encode(), params).fetchall()


def backfill(settings: Settings, name: str, allow_rejects: int = 0) -> tuple[Any, ...]:
    """One backfill as a run, committed: its id, metrics and digest."""
    with psycopg.connect(settings.conninfo) as conn:
        row = conn.execute(
            "select run_id, metrics, digest from backfill.run(%s, '{}', %s)", [name, allow_rejects]
        ).fetchone()
        assert row is not None
        return row


def everything(settings: Settings) -> list[tuple[Any, ...]]:
    """Every row of the system, to see that nothing changed."""
    rent = ("rent_ledger", "rent_config", "electricity_bills", "calculation", "closed_period")
    staged = ("rent_history", "rent_history_share", "electricity_bill")
    tables = [*(f"rent.{name}" for name in rent), *(f"staging.{name}" for name in staged)]
    return [(table, row) for table in tables for row in ask(settings, f"select t::text from {table} as t order by 1")]
