"""How the server plans what reads whole tables: gates, the models that they share, and what comes after a rehearsal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Final

import psycopg
from psycopg import IsolationLevel

from runner.database import Connection, transaction
from runner.settings import Settings

# Gates join and group whole tables, and of what the transaction wrote the planner knows nothing: a nested loop that it
# takes for one of few rows reads a table once for each. Compiling plans costs more than it gives.
_SETTINGS: Final = """
    set local enable_nestloop = off;
    set local jit = off;
    set local work_mem = '64MB';
    set local hash_mem_multiplier = 4;
"""
_SAVE: Final = """
    select name, current_setting(name)
    from unnest('{enable_nestloop,jit,work_mem,hash_mem_multiplier}'::text[]) as name
"""

ANALYZED: Final = 10_000
"""Rows of a table that a run writes before backfill.run() has it analyzed."""
_ANALYZE: Final = """
    select format('analyze (skip_locked) %%s (%%s)', c.oid::regclass, string_agg(quote_ident(a.attname), ', '))
    from pg_class as c inner join pg_attribute as a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
    where c.oid = any (select to_regclass(name) from unnest(%s::text[]) as name)
        and pg_has_role(current_user, c.relowner, 'usage')
    group by c.oid
"""


def plan_for_many(conn: psycopg.Connection[Any]) -> None:
    """Plan for many rows from here to the end of the transaction, or of a savepoint that is rolled back."""
    conn.execute(_SETTINGS)


@contextmanager
def planned_for_many(conn: psycopg.Connection[Any]) -> Iterator[None]:
    """Plan for many rows in a block whose work is kept: letting go of a savepoint would keep the settings as well."""
    saved = conn.execute(_SAVE).fetchall()
    plan_for_many(conn)
    yield
    for name, setting in saved:
        conn.execute("select set_config(%s, %s, true)", [name, setting])


def analyze_again(conn: Connection, settings: Settings, tables: Sequence[str]) -> None:
    """After a rollback: the number of rows that an ANALYZE counted stays in pg_class, and others plan by it.

    Nobody waits for it, and where it cannot be done nothing is said: autovacuum will come by.
    """
    with suppress(psycopg.Error), transaction(conn, settings, isolation=IsolationLevel.READ_COMMITTED):
        conn.execute("set local client_min_messages = error")
        installed = conn.execute("select to_regprocedure('backfill.analyze_tables(text[])') is not null").fetchone()
        if installed == (True,):
            conn.execute("select backfill.analyze_tables(%s)", [list(tables)])
        else:
            for (statement,) in conn.execute(_ANALYZE, [list(tables)]).fetchall():
                conn.execute(statement)
