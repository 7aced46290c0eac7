"""Columns that get another value in each attempt (a clock, a random number, a key that the database assigns).

Rows with one can never be applied as they were rehearsed: the same command again differs again. So it is named, with
the way out, instead of what is true of all other differences: that the data changed.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, Self

from psycopg.rows import class_row

from runner import taken
from runner.database import Connection
from runner.result import Taken

LIMIT: Final = 100_000
"""Rows of a run up to which the rehearsal keeps a sum for each column. Above it only the clock's time is told."""


@dataclass(frozen=True, slots=True)
class Part:
    """What a run wrote into one column by one operation: see backfill.column_parts()."""

    table_name: str
    operation: str
    column_name: str
    row_count: int
    sum: str
    clock: bool
    """Whether all its values are times since the run began."""
    source: str | None
    """What by its definition gives another value each time, where there is anything of the kind."""
    triggers: str | None
    call: str | None


def look(conn: Connection, run_id: uuid.UUID) -> list[Part]:
    """The columns that a finished run of the open transaction wrote."""
    with conn.cursor(row_factory=class_row(Part)) as cursor:
        return cursor.execute("select * from backfill.column_parts(%s)", [run_id]).fetchall()


@dataclass(slots=True)
class Attempts:
    """The columns of the rehearsal, and why an apply was not the same, by backfill."""

    rehearsed: dict[str, list[Part]] = field(default_factory=dict)
    causes: dict[str, tuple[str, ...]] = field(default_factory=dict)
    rows: dict[str, taken.Rehearsed] = field(default_factory=dict)
    """Where it is to be found out what others wrote meanwhile."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for item in self.rows.values():
            item.rows.close()

    def rehearse(self, conn: Connection, backfill: str, run_id: uuid.UUID, rows: int, keep: bool) -> None:
        """Keep what the rehearsal wrote, where it is not too much; each row's hash, where that is asked for."""
        self.rehearsed[backfill] = look(conn, run_id) if rows <= LIMIT else []
        if keep:
            if backfill in self.rows:  # of an attempt that was tried again
                self.rows[backfill].rows.close()
            self.rows[backfill] = taken.keep(conn, run_id)

    def left(self, conn: Connection, backfill: str, run_id: uuid.UUID) -> tuple[Taken, ...]:
        """The rows that an apply, still open, left to others; empty where that is not all in which it differs."""
        return taken.left(conn, self.rows[backfill], run_id) if backfill in self.rows else ()

    def differed(self, conn: Connection, backfill: str, run_id: uuid.UUID) -> None:
        """Find out why an apply, still open, is not the same."""
        self.causes[backfill] = tuple(causes(self.rehearsed.get(backfill, []), look(conn, run_id)))

    @property
    def all_causes(self) -> tuple[str, ...]:
        """Each once, in the order of the backfills."""
        return tuple(dict.fromkeys(cause for causes_ in self.causes.values() for cause in causes_))


def causes(rehearsed: Sequence[Part], applied: Sequence[Part]) -> Iterator[str]:
    """A sentence for each column that no attempt repeats, and what to do; nothing where it may be the data."""
    before = {(part.table_name, part.operation, part.column_name): part for part in rehearsed}
    stamped: dict[tuple[str, str], list[Part]] = {}
    for part in applied:
        was = before.get((part.table_name, part.operation, part.column_name))
        if was.sum == part.sum if was else not part.clock:
            continue
        same_rows = was is not None and was.row_count == part.row_count
        source = part.source or ""
        if part.triggers and part.call and (part.clock or same_rows):
            stamped.setdefault((part.triggers, part.call), []).append(part)
        elif part.clock:
            default = f" (it is its {source})" if source.startswith("default ") else ""
            yield (
                f"{_name(part)} holds the clock's time{default}: let what writes it use backfill.run_time() or now(), "
                f"the moment at which the run began, which counts as equal; where a trigger stamps it: {part.call}"
            )
        elif same_rows and (source == "identity" or source.startswith("default ")):
            yield (
                f"{_name(part)} is assigned by the database ({source}), in each attempt another value: let the "
                "backfill give it a value that follows from the row, as backfill.business_id(…) does"
            )
        elif same_rows and source:
            yield (
                f"{_name(part)} got other values for as many rows, and {source}: let it follow from the row, as "
                "backfill.business_id(…) does, or be backfill.run_time(), the moment at which the run began"
            )
    for (triggers, call), parts in stamped.items():
        columns = ", ".join(dict.fromkeys(part.column_name for part in parts))
        yield (
            f"trigger {triggers} of {parts[0].table_name} sets {columns} to something else each time. Where it may: "
            f"{call}"
        )


def _name(part: Part) -> str:
    return f"{part.table_name}, column {part.column_name},"
