"""Rows of the past that the application writes itself, between a rehearsal and its apply: left to it, and named.

At READ COMMITTED an apply sees them and leaves them out (`on conflict do nothing`). It is accepted where what it wrote
is the rehearsal less such rows: each row has the hash that it adds to the digest, so the two are compared row by row.
"""

from __future__ import annotations

import shutil
import tempfile
import uuid
from dataclasses import dataclass
from typing import IO, Final

from psycopg import sql

from runner.database import Connection
from runner.money import of_row
from runner.result import Taken

_ALL: Final = "select table_name, operation, business_key, currency, amount, hash from backfill.change_hashes({run})"
_FOUND: Final = """
    create temporary table backfill_rehearsed (
        table_name text, operation text, business_key text, currency text, amount numeric, hash bigint
    ) on commit drop
"""
_DIFFERENT: Final = """
    with applied as materialized (select * from backfill.change_hashes(%s))
    select false as extra, m.* from (select * from pg_temp.backfill_rehearsed except all select * from applied) as m
    union all
    select true, x.* from (select * from applied except all select * from pg_temp.backfill_rehearsed) as x
"""


@dataclass(frozen=True, slots=True)
class Rehearsed:
    """What a rehearsal wrote: a file without a name, which nobody else can open, and the moment that it saw."""

    rows: IO[bytes]
    snapshot: str


def keep(conn: Connection, run_id: uuid.UUID) -> Rehearsed:
    """Put a run's rows aside; memory stays flat whatever their number."""
    file = tempfile.TemporaryFile()  # noqa: SIM115 - closed when nobody needs it any more
    query = sql.SQL("copy ({}) to stdout (format binary)").format(sql.SQL(_ALL).format(run=sql.Literal(run_id)))
    with conn.cursor() as cursor, cursor.copy(query) as copy:
        for part in copy:
            file.write(part)
    row = conn.execute("select pg_current_snapshot()::text").fetchone()
    assert row is not None  # noqa: S101 - a function call returns a row
    return Rehearsed(file, str(row[0]))


def left(conn: Connection, rehearsed: Rehearsed, run_id: uuid.UUID) -> tuple[Taken, ...]:
    """The rows that an apply left to others; empty where it differs from its rehearsal in any other way."""
    conn.execute(_FOUND)
    rehearsed.rows.seek(0)
    with (
        conn.cursor() as cursor,
        cursor.copy("copy pg_temp.backfill_rehearsed from stdin (format binary)") as copy,
    ):
        shutil.copyfileobj(rehearsed.rows, copy)
    different = conn.execute(_DIFFERENT, [run_id]).fetchall()
    conn.execute("drop table pg_temp.backfill_rehearsed")
    if any(extra or operation != "I" or key is None for extra, _, operation, key, *_ in different):
        return ()
    missing = [Taken(table, key, of_row(amount, currency)) for _, table, _, key, currency, amount, _ in different]
    for table in {item.table for item in missing}:
        keys = [item.key for item in missing if item.table == table]
        there = conn.execute(
            "select backfill.written_since(%s, %s, %s::pg_snapshot)", [table, keys, rehearsed.snapshot]
        )
        if len(set(keys)) != len(keys) or {key for (key,) in there.fetchall()} != set(keys):
            return ()
    return tuple(sorted(missing, key=lambda item: (item.table, item.key)))
