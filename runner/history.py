"""Where the history of applied migrations is kept: yoyo's tables, which yoyo itself names without a schema.

They would land in whatever schema is first in the search_path of whoever runs first, and another role would begin a
history of its own. So the schema is looked for, not assumed: where our first migration is written down, that is it.
"""

from __future__ import annotations

import getpass
import os
import socket
import uuid
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Final, TypeAlias

import psycopg
from psycopg import sql
from psycopg.rows import TupleRow, tuple_row
from yoyo.backends.core.postgresql import PostgresqlPsycopgBackend
from yoyo.migrations import Migration as YoyoMigration
from yoyo.migrations import default_migration_table

from runner.migration_files import Migration
from runner.pinned import PINNED_NAMES, own_names

Connection: TypeAlias = psycopg.Connection[TupleRow]

FIRST: Final = "0001_backfill_schema"
"""The engine's first migration: a history that holds it is ours."""

# Only of whoever may decide here: a table of that name that somebody else made is no history.
_TABLES: Final = """
    select n.nspname
    from pg_class as c
    join pg_namespace as n on n.oid = c.relnamespace
    join pg_roles as o on o.oid = c.relowner
    cross join (select rolsuper as super from pg_roles where rolname = current_user) as me
    where c.relname = %s and c.relkind = 'r' and c.relpersistence = 'p' and n.nspname !~ '^pg_'
        and (o.rolsuper or o.rolname = current_user or (not me.super and pg_has_role(o.oid, 'member'))
            or o.oid = (select datdba from pg_database where datname = current_database())
            or o.oid = (select nspowner from pg_namespace where nspname = 'backfill')
            or o.rolname = 'backfill_owner')
    order by n.nspname <> 'public', n.nspname
"""
_HERE: Final = """
    select case when n.nspname !~ '^pg_' then n.nspname::text end
    from (select pg_catalog.to_regclass(%s) as relation) as r
    left join pg_catalog.pg_class as c on c.oid = r.relation
    left join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
"""
_FOR_NEW: Final = """
    select case when pg_catalog.has_schema_privilege(n.oid, 'create') then 'public'
        else pg_catalog.current_schema()::text end
    from (select 1) as one
    left join pg_catalog.pg_namespace as n on n.nspname = 'public'
"""


def homes(conn: Connection) -> list[str]:
    """The schemas that hold our history: one, none before the first apply, more where roles have split it.

    Before our first migration it is the one that yoyo would find for this role, so that `yoyo list` agrees.
    """
    there = [row[0] for row in conn.execute(_TABLES, [default_migration_table]).fetchall()]
    if not there:
        return []
    ours = [name for name in there if _holds(conn, name)]
    if ours:
        return ours
    with own_names(conn):
        row = conn.execute(_HERE, [default_migration_table]).fetchone()
    return [row[0]] if row and row[0] in there else []


def home_for_new(conn: Connection) -> str | None:
    """Where yoyo's tables are made: public; else the first schema of the role's search_path, if it has one."""
    with own_names(conn):
        row = conn.execute(_FOR_NEW).fetchone()
    return row[0] if row else None


def applied(conn: Connection, schemas: Sequence[str]) -> list[str]:
    """Ids of the applied migrations in these histories, oldest first."""
    if not schemas:
        return []
    each = sql.SQL(" union ").join(
        sql.SQL("select migration_id, applied_at_utc from {}").format(_table(schema)) for schema in schemas
    )
    query = sql.SQL(
        "select migration_id from ({}) as h group by migration_id order by min(applied_at_utc), migration_id"
    )
    return [row[0] for row in conn.execute(query.format(each)).fetchall()]


def take_over(conn: Connection, schemas: Sequence[str], ids: Collection[str]) -> None:
    """Make one history of those that roles have split: what the others hold of these migrations goes to the first."""
    for other in schemas[1:]:
        query = sql.SQL(
            "with moved as (delete from {other} where migration_id = any (%s) returning migration_hash, migration_id,"
            " applied_at_utc) insert into {home} (migration_hash, migration_id, applied_at_utc) select * from moved"
            " where migration_hash not in (select migration_hash from {home})"
        ).format(other=_table(other), home=_table(schemas[0]))
        try:
            conn.execute(query, [list(ids)])
        except psycopg.Error as exc:
            exc.add_note(f"cannot make one history of those in schemas {schemas[0]} and {other}")
            raise


@contextmanager
def at(conn: Connection, schema: str | None) -> Iterator[None]:
    """Within the block yoyo's tables are those of this schema, whoever the role is."""
    if schema is not None:
        conn.execute(sql.SQL("set local search_path to {}, pg_temp").format(sql.Identifier(schema)))
    yield
    conn.execute(PINNED_NAMES)


class Backend(PostgresqlPsycopgBackend):  # type: ignore[misc]
    """yoyo's bookkeeping on a connection and in a transaction that belong to somebody else."""

    def __init__(self, conn: Connection, home: str | None) -> None:
        self._borrowed, self._home = conn, home
        super().__init__(None, default_migration_table)

    def connect(self, dburi: object) -> Connection:  # noqa: ARG002 - yoyo's signature
        return self._borrowed

    def cursor(self) -> psycopg.Cursor[Any]:
        return self._borrowed.cursor(row_factory=tuple_row)

    def list_tables(self, **kwargs: object) -> list[str]:  # noqa: ARG002 - yoyo's signature
        # information_schema, which yoyo asks, hides tables on which the role has no privilege.
        names = (default_migration_table, self.log_table, self.version_table)
        return [name for name in names if self._is_there(name)]

    def _is_there(self, name: str) -> bool:
        return self._borrowed.execute("select to_regclass(%s) is not null", [name]).fetchone() == (True,)

    def begin(self) -> None:
        self._in_transaction = True

    def commit(self) -> None:
        self._in_transaction = False

    def rollback(self) -> None:
        self._in_transaction = False

    @contextmanager
    def lock(self, timeout: float = 10) -> Iterator[None]:  # noqa: ARG002 - yoyo's signature
        # The caller holds an advisory lock; yoyo's own is a row that a killed process leaves behind.
        yield

    def get_log_data(self, migration: YoyoMigration | None = None, operation: str = "apply") -> dict[str, Any]:
        # As yoyo's, but without asking DNS for the host's full name, which can take seconds where there is none.
        return {
            "id": str(uuid.uuid4()),
            "migration_id": migration.id if migration else None,
            "migration_hash": migration.hash if migration else None,
            "username": _user(),
            "hostname": socket.gethostname(),
            "created_at_utc": datetime.now(UTC).replace(tzinfo=None),
            "operation": operation,
        }

    def mark(self, migration: Migration) -> None:
        with at(self._borrowed, self._home):
            self.log_migration(migration.source, "apply")
            self.mark_one(migration.source, log=False)

    def unmark(self, migration: Migration) -> None:
        with at(self._borrowed, self._home):
            self.log_migration(migration.source, "rollback")
            self.unmark_one(migration.source, log=False)


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return str(os.getuid())


@contextmanager
def kept(conn: Connection, ids: Collection[str]) -> Iterator[Backend]:
    """yoyo's bookkeeping in the one schema of our history, made where it is not there, taken over where it is split."""
    from yoyo import internalmigrations

    there = homes(conn)
    home = there[0] if there else home_for_new(conn)
    backend = Backend(conn, home)
    try:
        with at(conn, home):
            if internalmigrations.needs_upgrading(backend):
                # As ensure_internal_schema_updated() does, without its commit.
                internalmigrations.upgrade(backend)
    except psycopg.Error as exc:
        exc.add_note(f"cannot create yoyo's tables in schema {home or 'public'}")
        raise
    take_over(conn, there, ids)
    backend._internal_schema_updated = True
    yield backend


def _holds(conn: Connection, schema: str) -> bool:
    query = sql.SQL("select exists (select from {} where migration_id = %s)").format(_table(schema))
    row: tuple[Any, ...] | None = conn.execute(query, [FIRST]).fetchone()
    return bool(row and row[0])


def _table(schema: str) -> sql.Identifier:
    return sql.Identifier(schema, default_migration_table)
