"""Which of our systems would fit the tables that are there: for whoever has chosen none yet. Writes nothing.

What a system needs of an application's tables is read where it is written: in the `create_baseline` calls of its
baseline migration.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Final

from runner.database import Connection
from runner.systems import SYSTEMS, bundled

_CALL: Final = re.compile(
    r"create_baseline\(\s*'(?P<relation>[^']+)',\s*(?:\$\$.*?\$\$|'(?:[^']|'')*'),\s*'(?P<columns>\{.*?\})'", re.DOTALL
)


_COLUMNS: Final = """
    select a.attname::text, format_type(a.atttypid, null), c.relkind = 'r'
    from pg_attribute as a
    join pg_class as c on c.oid = a.attrelid
    join pg_namespace as n on n.oid = c.relnamespace
    where n.nspname = split_part(%(name)s, '.', 1) and c.relname = split_part(%(name)s, '.', 2)
        and a.attnum > 0 and not a.attisdropped
"""


@dataclass(frozen=True, slots=True)
class Fit:
    """A system beside the tables of its names that are there; `misfits` say which columns it could not work with."""

    system: str
    found: tuple[str, ...]
    misfits: tuple[str, ...]

    @property
    def fits(self) -> bool:
        """Whether tables of its names are there, and all of those have the columns that it needs."""
        return bool(self.found) and not self.misfits


@cache
def needed(system: str) -> Mapping[str, Mapping[str, str]]:
    """Tables of the application that a system reads or writes, each with its columns: name to `type|other type`."""
    tables: dict[str, dict[str, str]] = {}
    for file in sorted((bundled("migrations") / system).glob("*.sql")):
        if ".rollback" not in file.suffixes:
            for call in _CALL.finditer(file.read_text(encoding="utf-8")):
                tables[call["relation"]] = json.loads(call["columns"])
    return tables


def fits(conn: Connection, systems: Iterable[str] = SYSTEMS) -> tuple[Fit, ...]:
    """Each of these systems, and how it would fit."""
    return tuple(_fit(conn, system) for system in systems)


def _fit(conn: Connection, system: str) -> Fit:
    found: list[str] = []
    misfits: list[str] = []
    for relation, columns in needed(system).items():
        rows = conn.execute(_COLUMNS, {"name": relation}).fetchall()
        if not rows:
            continue
        found.append(relation)
        if not rows[0][2]:
            misfits.append(f"{relation} is not an ordinary table")
        there = {name: type_ for name, type_, _ in rows}
        for column, wanted in columns.items():
            if column not in there:
                misfits.append(f"{relation}: column {column} is missing (wanted: {wanted})")
            elif there[column] not in wanted.split("|"):
                misfits.append(f"{relation}: column {column} is {there[column]} (wanted: {wanted})")
    return Fit(system, tuple(found), tuple(misfits))
