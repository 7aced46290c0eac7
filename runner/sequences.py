"""Sequences that a rehearsal moved: put back where it is certain that nobody else drew from them meanwhile.

No rollback does it, so that each rehearsal would leave a gap in the numbers.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import psycopg
from psycopg import IsolationLevel, sql

from runner.database import Connection, transaction
from runner.settings import Settings

WAIT: Final = "250ms"
"""How long the lock that stops nextval() is waited for: so long, at most, do others wait behind it."""


_DRAWN: Final = """
    select d.*, coalesce(not has_sequence_privilege(to_regclass(d.name), 'usage, select'), true)
    from backfill.drawn_values(%s) as d
"""


@dataclass(frozen=True, slots=True)
class Drawn:
    """A sequence from which runs took `count` values for rows that they inserted, from `first` to `last`."""

    name: str
    schema: str
    sequence: str
    increment: int
    cache: int
    count: int
    first: int
    last: int
    hidden: bool
    """Whether this role may not see where it stands: then it is not known that it moved, but by what was drawn."""

    @property
    def whole(self) -> bool:
        """Whether they are all that the sequence has between them: then nobody else drew one of these."""
        return self.first + (self.count - 1) * self.increment == self.last


def drawn(conn: Connection, runs: Sequence[uuid.UUID], moved: Mapping[str, int | None]) -> list[Drawn]:
    """What the open transaction's runs drew, of sequences that `moved` and of those that this role may not see."""
    if not runs:
        return []
    rows = conn.execute(_DRAWN, [list(runs)]).fetchall()
    return [found for found in (Drawn(*row) for row in rows) if found.name in moved or found.hidden]


def put_back(
    conn: Connection, settings: Settings, found: Sequence[Drawn], before: Mapping[str, int | None]
) -> set[str]:
    """After the rollback: each sequence as it was, where it still stands where the rehearsal left it.

    Under a lock that stops nextval(), which only its owner can take; a sequence that is not put back is left as it is.
    Returns the names of those that were.
    """
    done = set()
    for item in found:
        if not item.whole or item.hidden:
            continue
        with suppress(psycopg.Error):
            if _put_back(conn, settings, item, called=before.get(item.name) is not None):
                done.add(item.name)
    return done


def _put_back(conn: Connection, settings: Settings, item: Drawn, *, called: bool) -> bool:
    name = sql.Identifier(item.schema, item.sequence)
    with transaction(conn, settings, isolation=IsolationLevel.READ_COMMITTED):
        conn.execute("select set_config('lock_timeout', %s, true)", [WAIT])
        # Nothing is altered. No other statement takes a sequence's lock so that nextval() waits.
        conn.execute(sql.SQL("alter sequence {} cache {}").format(name, sql.Literal(item.cache)))
        row = conn.execute(sql.SQL("select last_value from {}").format(name)).fetchone()
        if row is None or row[0] != item.last:
            return False
        conn.execute(
            "select setval(format('%%I.%%I', %s::text, %s::text)::regclass, %s, %s)",
            [item.schema, item.sequence, item.first - item.increment if called else item.first, called],
        )
        conn.execute("discard sequences")  # what this session still holds would be drawn twice
    return True
