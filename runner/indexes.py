"""Indexes that migrations make on tables which are there already: read from their text, and built before, concurrently.

Two ways of writing are known: `create [unique] index name on schema.table …` as a statement, and a call of
backfill.create_unique_index('name', 'schema.table', '{columns}', 'where') in a `do` block.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from typing import Final

import psycopg
from psycopg import sql

from runner.database import Connection
from runner.errors import MigrationError
from runner.migration_files import Migration

_NAME: Final = r'(?:"(?:[^"]|"")+"|[A-Za-z_][\w$]*)'
_STATEMENT: Final = re.compile(
    rf"create\s+(?P<unique>unique\s+)?index\s+(?P<lenient>if\s+not\s+exists\s+)?(?P<name>{_NAME})\s+on\s+"
    rf"(?P<table>{_NAME}(?:\.{_NAME})?)\s*(?P<rest>(?:\(|using\b).*)",
    re.IGNORECASE | re.DOTALL,
)
_CALL: Final = re.compile(
    r"\bbackfill\.create_unique_index\(\s*'(?P<name>[^']+)',\s*'(?P<table>[^']+)',\s*'\{(?P<columns>[^{}']*)\}'"
    r"(?:,\s*(?:p_where\s*=>\s*)?'(?P<where>(?:[^']|'')*)')?(?P<more>[^;]*)"
)
_UNLESS_THERE: Final = re.compile(r"\bp_unless_there\s*=>\s*true\b", re.IGNORECASE)

_FOUND: Final = """
    select c.relname, x.indisvalid, n.nspname
    from pg_index as x
    join pg_class as c on c.oid = x.indexrelid
    join pg_namespace as n on n.oid = c.relnamespace
    where x.indrelid = to_regclass(%s) and c.relname = %s
"""

MADE_BY_THE_MIGRATION: Final = ("42703", "42883", "42P01", "42704", "3F000")
"""A column, function, table or operator class that is not there yet: the migration itself makes it."""


@dataclass(frozen=True, slots=True)
class Index:
    """An index that a migration makes. `statement` is the place of its statement, None where a call makes it."""

    name: str
    table: str
    unique: bool
    rest: str
    statement: int | None
    columns: tuple[str, ...] = ()
    """Of a call for which another unique index on these columns will do."""


@dataclass(frozen=True, slots=True)
class Built:
    """An index that was built before its migration; `instead_of_invalid`: a failed build had left one."""

    name: str
    table: str
    seconds: float
    instead_of_invalid: bool


def indexes(migration: Migration) -> tuple[Index, ...]:
    """The indexes of a migration, in the order in which it makes them."""
    found = []
    for place, statement in enumerate(migration.statements):
        if match := _STATEMENT.fullmatch(statement):
            unique = match["unique"] is not None
            found.append(Index(_plain(match["name"]), match["table"], unique, match["rest"], place))
            continue
        for call in _CALL.finditer(statement):
            columns = tuple(column.strip().strip('"') for column in call["columns"].split(","))
            rest = sql.SQL("({})").format(sql.SQL(", ").join(map(sql.Identifier, columns))).as_string(None)
            if call["where"]:
                rest += " where " + call["where"].replace("''", "'")
            other = columns if _UNLESS_THERE.search(call["more"]) else ()
            found.append(Index(call["name"], call["table"], True, rest, None, other))
    return tuple(found)


def there(conn: Connection, migration: Migration) -> set[int]:
    """The places of statements whose index is there already, just as they would make it.

    Raises MigrationError for one that is invalid: what was left of a build that failed.
    """
    places = set()
    for index in indexes(migration):
        state = _state(conn, index)
        if state is False:
            raise MigrationError(
                f"{migration.id}: index {index.name} of {index.table} is invalid, left by a build that failed. "
                "`runner migrate` drops it and builds it again"
            )
        if state and index.statement is not None and _is(conn, index):
            places.add(index.statement)
    return places


def wanted(conn: Connection, migration: Migration) -> list[Index]:
    """Indexes that can be built before this migration: on tables with rows in them, where none of the name is valid."""
    return [
        index
        for index in indexes(migration)
        if _has_rows(conn, index.table) and not _state(conn, index) and not (index.columns and _has_unique(conn, index))
    ]


def build(conn: Connection, index: Index) -> Built:
    """Build one concurrently, on a connection in autocommit; an invalid one of its name is dropped before and after."""
    started = time.perf_counter()
    left = _drop_invalid(conn, index)
    try:
        conn.execute(
            sql.SQL("create {unique}index concurrently {name} on {table} {rest}").format(
                unique=sql.SQL("unique " if index.unique else ""),
                name=sql.Identifier(index.name),
                table=sql.SQL(index.table),
                rest=sql.SQL(index.rest),
            )
        )
    except psycopg.Error:
        if not conn.closed:
            _drop_invalid(conn, index)
        raise
    return Built(index.name, index.table, time.perf_counter() - started, left)


def _plain(name: str) -> str:
    """An identifier as the catalog has it."""
    return name[1:-1].replace('""', '"') if name.startswith('"') else name.lower()


def _state(conn: Connection, index: Index) -> bool | None:
    """Whether an index of that name on that table is valid; None where there is none."""
    row = conn.execute(_FOUND, [index.table, index.name]).fetchone()
    return None if row is None else bool(row[1])


def _drop_invalid(conn: Connection, index: Index) -> bool:
    row = conn.execute(_FOUND, [index.table, index.name]).fetchone()
    if row is None or row[1]:
        return False
    conn.execute(sql.SQL("drop index concurrently {}").format(sql.Identifier(row[2], row[0])))
    return True


def _has_rows(conn: Connection, table: str) -> bool:
    row = conn.execute(
        "select c.relkind = 'r' and pg_relation_size(c.oid) > 0 from pg_class as c where c.oid = to_regclass(%s)",
        [table],
    ).fetchone()
    return row == (True,)


def _is(conn: Connection, index: Index) -> bool:
    """Whether the index of that name is what the statement would make; the engine looks."""
    known = conn.execute("select to_regproc('backfill.index_is') is not null").fetchone() == (True,)
    row = (index.table, index.name, index.unique, index.rest)
    return known and conn.execute("select backfill.index_is(%s, %s, %s, %s)", row).fetchone() == (True,)


def _has_unique(conn: Connection, index: Index) -> bool:
    known = conn.execute("select to_regproc('backfill.has_unique_index') is not null").fetchone() == (True,)
    values = (index.table, list(index.columns))
    return known and conn.execute("select backfill.has_unique_index(%s, %s)", values).fetchone() == (True,)
