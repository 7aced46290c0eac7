"""Words for stories about the SQL engine: make a tracked table, do something in a run, reverse it, compare bytes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import psycopg
import pytest

from runner.errors import SqlError

Connection = psycopg.Connection[tuple[Any, ...]]


def rows(conn: Connection, sql: str, params: Sequence[object] | None = None) -> list[tuple[Any, ...]]:
    """All rows of a query."""
    return conn.execute(sql.encode(), params).fetchall()


def value(conn: Connection, sql: str, params: Sequence[object] | None = None) -> Any:
    """The first column of the first row."""
    row = conn.execute(sql.encode(), params).fetchone()
    assert row is not None, sql
    return row[0]


def do(conn: Connection, *statements: str) -> None:
    """Each statement by itself, in the open transaction."""
    for statement in statements:
        conn.execute(statement.encode())


def make(conn: Connection, ddl: str, *tracked: str) -> None:
    """Create tables, track those that are named, and commit."""
    conn.execute(ddl.encode())
    for table in tracked:
        conn.execute("select backfill.track(%s)", [table])
    conn.commit()


@contextmanager
def run(conn: Connection, title: str = "a correction") -> Iterator[UUID]:
    """A run by hand: what is done inside is captured, finished and committed."""
    run_id: UUID = value(conn, "select backfill.begin_run(%s)", [title])
    yield run_id
    conn.execute("select backfill.finish_run()")
    conn.commit()


def done(conn: Connection, *statements: str) -> UUID:
    """The statements as one committed run."""
    with run(conn) as run_id:
        do(conn, *statements)
    return run_id


def reverse(conn: Connection, run_id: UUID) -> Counter[str]:
    """Reverse a run and commit: how many rows had which result."""
    results = Counter(row[2] for row in conn.execute("select * from backfill.reverse_run(%s)", [run_id]))
    conn.commit()
    return results


def changes(conn: Connection, run_id: UUID, columns: str = "operation, before, after") -> list[tuple[Any, ...]]:
    """The run's rows of backfill.change_log, in the order in which they were captured."""
    sql = f"select {columns} from backfill.change_log where run_id = %s order by statement, pack, row_no"
    return rows(conn, sql, [run_id])


def images(conn: Connection, *tables: str) -> dict[str, list[str]]:
    """Every row of the tables byte for byte, as PostgreSQL sends it, in no order."""
    return {
        table: [row[0] for row in rows(conn, f"select encode(record_send(t), 'hex') from {table} as t order by 1")]
        for table in tables
    }


def refused(caught: pytest.ExceptionInfo[psycopg.Error]) -> str:
    """The whole of what the server said: message, detail and hint."""
    diag = caught.value.diag
    return "\n".join(part for part in (diag.message_primary, diag.message_detail, diag.message_hint) if part)


def refusal(sqlstate: str, match: str | None = None) -> pytest.RaisesExc[SqlError]:
    """Within its block the runner must refuse under this SQLSTATE."""
    return pytest.raises(SqlError, match=match, check=lambda error: error.sqlstate == sqlstate)
