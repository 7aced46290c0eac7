"""Reconcile invoices and payments with themselves and with Finance's ledger, without writing to billing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal
from uuid import UUID

from psycopg.types.json import Jsonb

from runner.database import Connection, connect, retrying, transaction
from runner.errors import SqlError, UsageError
from runner.load import LandedFile
from runner.money import Money, add_money, minor_digits
from runner.pinned import place
from runner.reconciliation.finance_ledger import import_finance_ledger
from runner.settings import Settings
from runner.text import plain

NO_FINDING = ("identical", "matched by number only", "no receivable")
"""Classes that let a reconciliation pass.

A match by number is worth a look: Finance did not know the invoice's id. Drafts and voids that Finance does not
have are no receivables.
"""


@dataclass(frozen=True, slots=True)
class Scope:
    """What of both sides is compared, and how closely.

    `since` and `until` are days: a line or invoice counts where it, or its partner, is dated within. `as_of` stands in
    place of `until`, with statuses as they were at the end of that day. `company` is an id or a name. Both tolerances
    are in whole units of each currency: up to which difference one pair counts as equal, and up to which sum of all.
    """

    since: date | None = None
    until: date | None = None
    as_of: date | None = None
    company: str | None = None
    tolerance: Decimal = Decimal(0)
    tolerance_total: Decimal | None = None

    @property
    def most_apart(self) -> Decimal:
        """The limit of the sum; where none was given, that of one pair."""
        return self.tolerance if self.tolerance_total is None else self.tolerance_total


@dataclass(frozen=True, slots=True)
class Measure:
    """Rows and cents of one measure, by currency and status."""

    name: str
    currency: str | None
    status: str
    rows: int
    cents: int


@dataclass(frozen=True, slots=True)
class ClassTotals:
    """Rows and money of one class on both sides.

    Several lines may be one pair. `apart_money` is the sum of the differences that counted as equal, by currency.
    """

    name: str
    ledger_rows: int
    ledger_money: Money
    db_rows: int
    db_money: Money
    pairs: int = 0
    apart_money: Money = field(default_factory=dict)

    @property
    def is_finding(self) -> bool:
        """Whether rows are in a class that must be empty."""
        return self.name not in NO_FINDING and bool(self.ledger_rows or self.db_rows)


@dataclass(frozen=True, slots=True)
class FinanceLedgerFile:
    """The compared ledger. `rejects` are lines of it that could not be taken, and so are in no class.

    `missing_outside`: of the invoices that are missing in it, those dated before its first or after its last day.
    """

    name: str
    sha256: str
    imported_now: bool
    rejects: int
    first: date | None = None
    last: date | None = None
    missing_outside: int = 0


@dataclass(frozen=True, slots=True)
class Reconciliation:
    """What was found. `read_only` is the server's own word on the transaction that looked at billing."""

    verdict: Literal["reported", "reconciled", "differences"]
    database: str
    read_only: bool
    measures: tuple[Measure, ...]
    samples: tuple[tuple[str, dict[str, Any]], ...]
    ledger: FinanceLedgerFile | None = None
    scope: Scope = field(default_factory=Scope)
    classes: tuple[ClassTotals, ...] = ()
    columns: tuple[tuple[str, int], ...] = ()
    findings: tuple[dict[str, Any], ...] = field(default=())
    comparison_id: UUID | None = None

    @property
    def total(self) -> ClassTotals:
        """All classes together."""
        return ClassTotals(
            "total",
            sum(item.ledger_rows for item in self.classes),
            add_money({}, *(item.ledger_money for item in self.classes)) or {},
            sum(item.db_rows for item in self.classes),
            add_money({}, *(item.db_money for item in self.classes)) or {},
        )

    @property
    def apart(self) -> Money:
        """By how much pairs are apart that count as equal, in all, by currency."""
        return add_money({}, *(item.apart_money for item in self.classes)) or {}

    @property
    def beyond(self) -> Money:
        """Of `apart`, the currencies in which it is more than the scope allows."""
        return {
            currency: minor
            for currency, minor in self.apart.items()
            if minor > self.scope.most_apart.scaleb(minor_digits(currency))
        }

    @property
    def exit_code(self) -> int:
        """3 where a row of the ledger or the database is not as on the other side."""
        return 3 if self.verdict == "differences" else 0


def reconcile(
    settings: Settings,
    *,
    ledger: Path | None = None,
    scope: Scope = Scope(),
    allow_rejects: int = 0,
    store: bool = False,
    sample: int = 20,
    progress: Callable[[str], None] = lambda _: None,
) -> Reconciliation:
    """Import `ledger` where it is new; then count and compare in a read-only transaction, `sample` findings a class.

    Raises UsageError, before the import, for a scope without a day or a company that is not there; SqlError BF031
    (exit 3) where a side is empty, and what import_finance_ledger() raises.
    """
    file: LandedFile | None = None
    imported = False
    company = _company(settings, scope)
    if ledger is not None:
        progress(f"importing {ledger.name}")
        result = import_finance_ledger(settings, ledger, allow_rejects=allow_rejects)
        imported = bool(result.files)
        file = (result.files or result.skipped)[0]

    def compared(conn: Connection) -> Reconciliation:
        with transaction(conn, settings, at_once=True):
            if file is not None:
                conn.execute("select staging.begin_comparison()")
            # A subtransaction: read-only until its end, which neither this code nor a function can take back within it.
            with conn.transaction():
                conn.execute("set transaction read only")
                progress("counting")
                found = _look(conn, sample)
                if file is not None:
                    progress("comparing")
                    found = _compare(conn, found, file, imported, scope, company, sample)
            if file is not None and store:
                progress("keeping the findings")
                found = _keep(conn, found)
        return found

    with connect(settings, application_name="runner reconcile") as conn:
        return retrying(lambda: compared(conn), settings)


def _look(conn: Connection, sample: int) -> Reconciliation:
    read_only = conn.execute("show transaction_read_only").fetchone()
    measures = conn.execute("select * from billing.reconciliation_summary()").fetchall()
    if not any(row[0] == "invoices" for row in measures):
        raise SqlError("BF031", "billing.invoices is empty: nothing passes on nothing. Is this the right database?")
    samples = conn.execute("select * from billing.reconciliation_samples(%s)", [sample]).fetchall()
    return Reconciliation(
        verdict="reported",
        database=place(conn),
        read_only=read_only == ("on",),
        measures=tuple(Measure(*row) for row in measures),
        samples=tuple((row[0], row[1]) for row in samples),
    )


def _compare(
    conn: Connection,
    found: Reconciliation,
    file: LandedFile,
    imported: bool,
    scope: Scope,
    company: UUID | None,
    sample: int,
) -> Reconciliation:
    rows = conn.execute(
        "select * from staging.compare_finance_ledger(%s, %s, %s, %s, %s, %s)",
        [file.sha256, scope.tolerance, scope.since, scope.until, company, scope.as_of],
    ).fetchall()
    classes = tuple(ClassTotals(*row) for row in rows)
    rejects = conn.execute(
        "select count(*) from backfill.reject as r join staging.file as f on f.run_id = r.run_id"
        " where f.loader = 'finance_ledger' and f.sha256 = %s and r.backfill = 'load finance_ledger'",
        [file.sha256],
    ).fetchone()
    days = conn.execute(
        "select l.first, l.last, count(c.class) from ("
        " select min(entry_date) as first, max(entry_date) as last"
        " from staging.finance_ledger_line where file_sha256 = %s"
        ") as l left join pg_temp.finance_ledger_comparison as c"
        " on c.class = 'missing in the ledger' and c.db_date not between l.first and l.last group by 1, 2",
        [file.sha256],
    ).fetchall()[0]
    ledger = FinanceLedgerFile(file.name, file.sha256, imported, rejects[0] if rejects else 0, *days)
    compared = replace(found, scope=scope, classes=classes)
    differs = ledger.rejects or compared.beyond or any(item.is_finding for item in classes)
    return replace(
        compared,
        verdict="differences" if differs else "reconciled",
        ledger=ledger,
        columns=tuple((row[0], row[1]) for row in conn.execute("select * from staging.comparison_columns()")),
        findings=tuple(row[0] for row in conn.execute("select staging.comparison_rows(%s)", [sample])),
    )


def _company(settings: Settings, scope: Scope) -> UUID | None:
    """The id of the company that was named. Refuses what cannot be compared, before anything is imported."""
    last = scope.as_of or scope.until
    if scope.since and last and scope.since > last:
        raise UsageError(f"--from {scope.since} is after {last}: that holds no day")
    if scope.company is None:
        return None
    with connect(settings, application_name="runner reconcile") as conn:
        found = conn.execute(
            "select id from billing.companies where id::text = lower(%s) or name = %s order by id limit 2",
            [scope.company, scope.company],
        ).fetchall()
    if len(found) == 1:
        return UUID(str(found[0][0]))
    if found:
        raise UsageError(f"--company {scope.company}: several companies have this name. Give an id: {found[0][0]}, …")
    raise UsageError(f"--company {scope.company}: there is no company of this id or name in billing.companies")


def _keep(conn: Connection, found: Reconciliation) -> Reconciliation:
    assert found.ledger is not None  # noqa: S101 - the caller has compared
    row = conn.execute(
        "select backfill.keep_comparison(%s, %s, %s)",
        [found.ledger.sha256, Jsonb(plain(found.scope)), Jsonb(plain(found.classes))],
    ).fetchone()
    return replace(found, comparison_id=row[0] if row else None)
