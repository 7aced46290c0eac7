"""What a verb found and did, as plain data: the one object that terminal, JSON and HTML are drawn from.

Money is integer cents throughout, durations are seconds.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from typing import Any, Literal

from runner.gates import GateResult

Verdict = Literal["nothing due", "rehearsed", "applied", "declined", "gate failed", "apply differed"]

EXIT_CODES: dict[Verdict, int] = {
    "nothing due": 0,
    "rehearsed": 0,
    "applied": 0,
    "declined": 0,
    "gate failed": 3,
    "apply differed": 4,
}


@dataclass(frozen=True, slots=True)
class Change:
    """One row written: its table, how, and the row as a person knows it. `row` is the image that is left (or was)."""

    table: str
    operation: str
    business_key: str
    cents_before: int | None
    cents_after: int | None
    row: dict[str, Any]


@dataclass(frozen=True, slots=True)
class TableTotals:
    """A control total: rows and cents before and after, and what the changes add up to."""

    table: str
    rows_before: int
    rows_changed: int
    rows_after: int
    cents_before: int | None
    cents_changed: int
    cents_after: int | None

    @property
    def proved(self) -> bool:
        """Whether before + changes = after."""
        return self.rows_before + self.rows_changed == self.rows_after and (
            self.cents_before is None or self.cents_before + self.cents_changed == self.cents_after
        )


@dataclass(frozen=True, slots=True)
class TableChanges:
    """Rows of one table that a run wrote, and the change in its cents (null where the table has no money)."""

    table: str
    inserted: int
    updated: int
    deleted: int
    cents: int | None


@dataclass(frozen=True, slots=True)
class BackfillResult:
    """One backfill of the plan. `run_id` is that of the rehearsal, which is gone, or of the apply."""

    name: str
    description: str
    business_key: tuple[str, ...]
    due_rows: int
    due_cents: int
    due_after: int
    rejects: int
    run_id: uuid.UUID
    digest: str
    seconds: float
    tables: tuple[TableChanges, ...]
    sample: tuple[Change, ...]
    metrics: dict[str, Any] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        """Rows written, all tables."""
        return sum(table.inserted + table.updated + table.deleted for table in self.tables)


@dataclass(frozen=True, slots=True)
class Lock:
    """A lock on a table that the transaction held, from when it was first seen to the end."""

    table: str
    mode: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Attempt:
    """One whole transaction: the rehearsal, or the apply."""

    migrations: tuple[str, ...]
    backfills: tuple[BackfillResult, ...]
    totals: tuple[TableTotals, ...]
    gates: tuple[GateResult, ...]
    locks: tuple[Lock, ...]
    triggers: tuple[str, ...]
    sequences: tuple[str, ...]
    wal_bytes: int
    seconds: float

    @property
    def stopped(self) -> tuple[GateResult, ...]:
        """The gates that forbid the commit."""
        return tuple(gate for gate in self.gates if gate.stops)

    @property
    def digests(self) -> dict[str, str]:
        """The digest of each backfill's changes, which an apply must reproduce."""
        return {backfill.name: backfill.digest for backfill in self.backfills}


@dataclass(frozen=True, slots=True)
class Report:
    """What `runner apply` shows. `attempt` is the apply's where one was tried, else the rehearsal's."""

    verdict: Verdict
    database: str
    server: str
    time_zone: str
    started_at: str
    attempt: Attempt
    rehearsal_seconds: float
    not_rehearsable: tuple[str, ...] = ()
    differences: tuple[str, ...] = ()
    committed_first: tuple[str, ...] = ()
    """Migrations that --allow-non-transactional committed before the rehearsal: they stay, whatever the verdict."""

    @property
    def exit_code(self) -> int:
        """As documented for `runner apply`."""
        return EXIT_CODES[self.verdict]


@dataclass(frozen=True, slots=True)
class Reversal:
    """What `runner rollback` found and did: rows by table and result."""

    run_id: uuid.UUID
    backfill: str
    verdict: Literal["rehearsed", "reversed", "declined", "already reversed"]
    reversal_id: uuid.UUID | None
    counts: tuple[tuple[str, str, int], ...]
    cents: tuple[TableChanges, ...]
    sample: tuple[tuple[str, str, str], ...]
    seconds: float
