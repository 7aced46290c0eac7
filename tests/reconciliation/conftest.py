"""Fixtures of Finance's ledger."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "ledger.csv"


@pytest.fixture
def ledger_conn(conn: psycopg.Connection) -> psycopg.Connection:
    conn.execute("select backfill.begin_run('test')")
    return conn
