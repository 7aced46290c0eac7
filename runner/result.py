"""What a verb found and did, as plain data: the one object that terminal, JSON and HTML are drawn from.

Money is in minor units by currency, as runner.money has it; durations are seconds.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from typing import Any, Literal

from runner.approvals import Approvals
from runner.gates import GateResult
from runner.migrations import Misfit
from runner.money import Money, add_money, same_money

Verdict = Literal[
    "nothing due", "rehearsed", "applied", "declined", "not asked", "gate failed", "not approved",
    "plan differed", "apply differed"
]  # fmt: skip
"""`declined` is a person's no; `not asked`: there was no terminal on which to ask, and --yes was not given."""

EXIT_CODES: dict[Verdict, int] = {
    "nothing due": 0,
    "rehearsed": 0,
    "applied": 0,
    "declined": 0,
    "not asked": 2,
    "gate failed": 3,
    "not approved": 3,
    "plan differed": 4,
    "apply differed": 4,
}


@dataclass(frozen=True, slots=True)
class Change:
    """One row written: its table, how, and the row as a person knows it. `row` is the image that is left (or was)."""

    table: str
    operation: str
    business_key: str
    money_before: Money | None
    money_after: Money | None
    row: dict[str, Any]


@dataclass(frozen=True, slots=True)
class DimensionLine:
    """What a run wrote under one value in one currency: rows, and money before, changed and after. Null: not known, or
    none."""

    value: str | None
    rows: int
    before: Money | None
    change: Money | None
    after: Money | None


@dataclass(frozen=True, slots=True)
class Dimension:
    """A run by the values of one column of its backfill's own table, a moment by its month."""

    column: str
    lines: tuple[DimensionLine, ...]


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A source row that a run could not take and was allowed to leave out, as backfill.reject keeps it."""

    source: str
    source_key: str
    line: int | None
    reason: str
    money: Money | None


@dataclass(frozen=True, slots=True)
class TableTotals:
    """A control total: rows and money before and after, and what the changes add up to.

    A table that the plan does not write is not counted: null. That its changes are these is proved by the capture.
    """

    table: str
    rows_before: int | None
    rows_changed: int
    rows_after: int | None
    rows_updated: int
    """Rows that stayed, and were changed."""
    money_before: Money | None
    money_changed: Money | None
    money_after: Money | None
    finer: int = 0
    """Amounts, afterwards, with more decimals than their currency has: none is rounded."""

    @property
    def proved(self) -> bool:
        """Whether before + changes = after."""
        return (self.rows_before is None or self.rows_before + self.rows_changed == self.rows_after) and (
            self.money_before is None or same_money(add_money(self.money_before, self.money_changed), self.money_after)
        )


@dataclass(frozen=True, slots=True)
class TableChanges:
    """Rows of one table that a run wrote, and the change in its money (null where the table has none)."""

    table: str
    inserted: int
    updated: int
    deleted: int
    money: Money | None
    finer: int = 0
    """Amounts it wrote that have more decimals than their currency."""


@dataclass(frozen=True, slots=True)
class Undo:
    """Whether the rehearsal undid a run: how many rows came back, or what refused it, or why it was not tried."""

    state: Literal["proved", "refused", "not tried"]
    rows: int
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Taken:
    """A row of the rehearsal that the apply left to somebody else, who had written it by then; its key and money."""

    table: str
    key: str
    money: Money | None


@dataclass(frozen=True, slots=True)
class BackfillResult:
    """One backfill of the plan. `run_id` is that of the rehearsal, which is gone, or of the apply."""

    name: str
    description: str
    business_key: tuple[str, ...]
    due_rows: int
    due_money: Money | None
    due_after: int
    rejects: int
    run_id: uuid.UUID
    digest: str
    seconds: float
    tables: tuple[TableChanges, ...]
    sample: tuple[Change, ...]
    metrics: dict[str, Any] = field(default_factory=dict)
    due_relation: str = ""
    """The view whose SELECT decides what is written, and in `rule_file` the migration that makes it."""
    rule_file: str = ""
    undo: Undo = Undo("not tried", 0, "only a rehearsal tries it")
    """Of an apply, what its rehearsal found."""
    left_out: tuple[LeftOut, ...] = ()
    """A sample of the `rejects`."""
    signature: str = ""
    """sha256 over the rows that it writes, as backfill.signature() has it: what a person signs. Else empty."""
    taken: tuple[Taken, ...] = ()
    """Rows of the rehearsal that others wrote meanwhile, with --accept-taken: all that the apply wrote less."""
    approvals: Approvals | None = None
    """What a policy asks for, and what there is; null where none does."""
    dimensions: tuple[Dimension, ...] = ()
    """By month and by whom it is about, where the backfill names them; only where a page is asked for."""

    @property
    def rows(self) -> int:
        """Rows written, all tables."""
        return sum(table.inserted + table.updated + table.deleted for table in self.tables)

    @property
    def several(self) -> bool:
        """Whether it wrote rows of more than one table."""
        return sum(bool(table.inserted or table.updated or table.deleted) for table in self.tables) > 1


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
    misfits: tuple[Misfit, ...] = ()
    """Systems that were left out because their migrations do not fit this database."""
    signature: str = ""
    """sha256 over all of its rows: of its one backfill, or over those of several. Empty where nobody asked."""
    chain: str = ""
    """Head of the chain that an apply commits, N:hash: the anchor to keep. Empty where nothing was committed."""

    @property
    def stopped(self) -> tuple[GateResult, ...]:
        """The gates that forbid the commit."""
        return tuple(gate for gate in self.gates if gate.stops)

    @property
    def unapproved(self) -> tuple[BackfillResult, ...]:
        """The backfills that a policy does not let anybody commit yet."""
        return tuple(item for item in self.backfills if item.approvals is not None and not item.approvals.enough)

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
    named: bool = False
    """Whether backfills were asked for by name: what does not fit and was not asked for is only a warning then."""
    as_of: str = ""
    """What was not settled before this moment was left out; empty: nothing was, for that."""
    unsteady: tuple[str, ...] = ()
    """Of an apply that differed: columns that get another value in each attempt, and the way out."""
    command: str = ""
    """Of a rehearsal: the command that does this or nothing."""
    where: str = ""
    """`billing on db.example:5432 as alice`."""
    head: str = ""
    """Head of the chain as it is committed now, N:hash; empty where there is none yet."""
    advice: str = ""
    """What had better be done first, where there is something: `runner migrate`, on a large database."""

    @property
    def kept(self) -> str:
        """What is committed, whatever becomes of the output; empty where nothing is."""
        if self.verdict != "applied":
            what = ", ".join(self.committed_first)
            return f"Committed: migrations {what}" if what else ""
        runs = ", ".join(f"{item.name} as run {item.run_id}" for item in self.attempt.backfills)
        return f"All of it is committed: {runs or 'migrations'}. `runner log` shows it"

    @property
    def exit_code(self) -> int:
        """As documented for `runner apply`; 1 where a system that is selected had to be left out."""
        return EXIT_CODES[self.verdict] or int(bool(self.attempt.misfits) and not self.named)


Undone = Literal["rehearsed", "reversed", "declined", "not asked", "not approved", "already reversed"]
_UNDO_CODES: dict[Undone, int] = {"not asked": 2, "not approved": 3}


@dataclass(frozen=True, slots=True)
class Stamped:
    """Rows of a table that a reversal brought back but for stamped columns, which these triggers set anew."""

    table: str
    columns: tuple[str, ...]
    rows: int
    triggers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Reversal:
    """What `runner rollback` found and did: rows by table and result."""

    run_id: uuid.UUID
    backfill: str
    verdict: Undone
    reversal_id: uuid.UUID | None
    counts: tuple[tuple[str, str, int], ...]
    tables: tuple[TableChanges, ...]
    sample: tuple[tuple[str, str, str], ...]
    seconds: float
    stamped: tuple[Stamped, ...] = ()
    chain: str = ""
    """Its link of the chain, N:hash; empty where nothing was committed."""
    where: str = ""
    """`billing on db.example:5432 as alice`."""
    approvals: Approvals | None = None
    """What a policy asks for, and what there is; null where none does."""
    dimensions: tuple[Dimension, ...] = ()
    """By month and by whom it is about; only where a page is asked for."""

    @property
    def kept(self) -> str:
        """What is committed, whatever becomes of the output; empty where nothing is."""
        return f"The undo is committed as run {self.reversal_id}" if self.verdict == "reversed" else ""

    @property
    def exit_code(self) -> int:
        """2 where nobody could be asked, 3 where an approval is missing."""
        return _UNDO_CODES.get(self.verdict, 0)

    @property
    def approved(self) -> bool:
        """Whether no policy keeps it from being committed."""
        return self.approvals is None or self.approvals.enough


@dataclass(frozen=True, slots=True)
class Rewind:
    """What `runner rollback --since RUN` found and did: the reversal of each run, the newest run first."""

    since: uuid.UUID
    verdict: Undone
    reversals: tuple[Reversal, ...]
    seconds: float

    @property
    def kept(self) -> str:
        """What is committed, whatever becomes of the output; empty where nothing is."""
        runs = ", ".join(str(item.reversal_id) for item in self.reversals)
        return f"The undo is committed: runs {runs}" if self.verdict == "reversed" else ""

    @property
    def exit_code(self) -> int:
        """2 where nobody could be asked, 3 where an approval is missing."""
        return _UNDO_CODES.get(self.verdict, 0)

    @property
    def approved(self) -> bool:
        """Whether no policy keeps any of them from being committed."""
        return all(reversal.approved for reversal in self.reversals)
