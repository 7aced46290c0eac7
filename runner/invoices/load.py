"""`runner load invoices`: the catalogue of historical invoices into staging, and its originals into the store."""

from __future__ import annotations

import getpass
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from runner.errors import UsageError
from runner.invoices import catalogue as invoices
from runner.invoices import documents
from runner.invoices.catalogue import Format
from runner.load import Landing, LoadResult, Reject, load
from runner.money import NO_CURRENCY
from runner.settings import Settings

T = TypeVar("T")

_INVOICES = (
    "line", "number", "client", "period_start", "period_end", "sent_on", "due_date", "total_cents", "currency",
    "paid_cents",
)  # fmt: skip
_LINES = ("line", "number", "description", "contractor", "week_start", "hours", "rate_cents", "amount_cents")


@dataclass(frozen=True, slots=True)
class InvoicesLoaded:
    """What a load of invoices did: the rows, and the originals (None where no folder was given)."""

    load: LoadResult
    documents: documents.Stored | None

    @property
    def kept(self) -> str:
        """What is committed, whatever becomes of the output; empty where nothing is."""
        stored = self.documents and self.documents.run_id
        return "; ".join(filter(None, (self.load.kept, f"the originals are stored: run {stored}" if stored else "")))


def load_invoices(
    settings: Settings,
    catalogue: Path,
    *,
    lines: Path | None = None,
    aliases: Path | None = None,
    originals: Path | None = None,
    company: str | None = None,
    first_wins: bool = False,
    paid_as: invoices.PaidAs = "reject",
    dry_run: bool = False,
    allow_rejects: int = 0,
    actor: str | None = None,
) -> InvoicesLoaded:
    """Stage a catalogue, with `lines` from a second file, else one summary line an invoice; safe to repeat.

    `aliases` says which facility a client is. `originals` is a folder with <number>.pdf for each invoice: checked
    before anything is kept, stored after the commit. Raises SqlError BF004 (exit 3) for more rejects than allowed,
    UsageError for files, folders and companies that are not there.
    """
    form = Format.of(settings.tables.get("invoices", {}))
    if originals is not None and not originals.is_dir():
        raise UsageError(f"--documents {originals}: there is no such folder")
    paths = [catalogue, *(path for path in (lines, aliases) if path is not None)]

    def fill(landing: Landing) -> None:
        owner = company or form.company
        by = actor or getpass.getuser()
        _fill(landing, form, catalogue, lines, aliases, originals, owner, first_wins, by, paid_as)

    result = load(settings, loader="invoices", paths=paths, fill=fill, dry_run=dry_run, allow_rejects=allow_rejects)
    if originals is None or (dry_run and result.files):
        return InvoicesLoaded(result, None)  # a dry run of new rows has looked at their originals
    owner = company or form.company
    stored = documents.store(settings, form.documents, originals, owner, options=form.storage, dry_run=dry_run)
    return InvoicesLoaded(result, stored)


def _fill(
    landing: Landing,
    form: Format,
    catalogue: Path,
    lines: Path | None,
    aliases: Path | None,
    originals: Path | None,
    company: str | None,
    first_wins: bool,
    actor: str,
    paid_as: invoices.PaidAs,
) -> None:
    conn = landing.conn
    owner = documents.company_id(conn, company)
    landing.read_again()
    conn.execute("select staging.begin_invoices()")
    unreadable: list[Reject] = []
    if aliases is not None:
        names = _typed(unreadable, invoices.read_aliases(aliases))
        landing.copy("pg_temp.incoming_aliases", ("line", "client", "facility"), names)
        conn.execute("select staging.take_aliases(%s)", [owner])
    unread: list[Reject] = []
    default = conn.execute("select billing.company_currency(%s)", [owner]).fetchone()
    currency = default[0] if default else None
    others: dict[str, str] = {}
    found = _noted(others, currency, invoices.read_invoices(catalogue, form, currency, paid_as))
    typed = landing.copy("pg_temp.incoming_invoices", _INVOICES, _typed(unread, found))
    if not typed and not unread:
        raise UsageError(f"{catalogue} has a header and no row: there is nothing to load")
    # The number of a row that is not the company's, which has a remark, says nothing about the company's own.
    numbers = (
        (row.line, row.payload["number"]) for row in unread if row.payload.get("number") and "remark" not in row.payload
    )
    landing.copy("pg_temp.incoming_unread", ("line", "number"), numbers)
    if lines is not None:
        landing.copy(
            "pg_temp.incoming_invoice_lines", _LINES, _typed(unread, invoices.read_lines(lines, form, currency, others))
        )
    sha = {file.path: file.sha256 for file in landing.given}
    row = conn.execute(
        "select staging.take_invoices(%s, %s, %s, %s, %s, %s)",
        [owner, sha[catalogue], sha[lines] if lines else None, actor, form.time_zone, first_wins],
    ).fetchone()
    assert row is not None  # noqa: S101 - a function call returns a row
    buckets = _with_unread(row[0], unread, catalogue)
    landing.metrics["buckets"] = buckets
    landing.rows = sum(
        bucket["rows"] for kind in buckets.values() for name, bucket in kind.items() if name != "rejected"
    )
    landing.reject([*unreadable, *unread])
    sources = {"invoices": catalogue, "lines": lines or catalogue, "aliases": aliases or catalogue}
    refused = conn.execute(
        "select kind, source_key, line, reason, cents, currency from pg_temp.intake_rejects order by kind, line"
    ).fetchall()
    landing.reject(_reject(sources[kind].name, *rest) for kind, *rest in refused)
    if originals is not None:
        taken = conn.execute("select number from pg_temp.intake where reason is null order by line").fetchall()
        landing.reject(documents.rejects(originals, (number for (number,) in taken)))


def _reject(source: str, key: str, line: int, reason: str, cents: int | None, currency: str | None) -> Reject:
    """Known by its line: a number may be rejected on two of them."""
    return Reject(source, str(line), line, reason, cents, {"number": key}, currency)


def _noted(
    others: dict[str, str], currency: str | None, rows: Iterable[invoices.Invoice | Reject]
) -> Iterator[invoices.Invoice | Reject]:
    """The same rows; the currency of each invoice that is not in the company's is noted by its number in capitals."""
    for row in rows:
        if not isinstance(row, Reject) and row[8] != currency:
            others[row[1].upper()] = row[8]
        yield row


def _typed(rejects: list[Reject], rows: Iterable[T | Reject]) -> Iterator[T]:
    """The typed rows; rejects are put aside, because a COPY is under way."""
    for row in rows:
        if isinstance(row, Reject):
            rejects.append(row)
        else:
            yield row


def _with_unread(buckets: dict[str, Any], unread: list[Reject], catalogue: Path) -> dict[str, dict[str, Any]]:
    """The buckets with what could not even be read among the rejected; money where the row had an amount."""
    made: dict[str, dict[str, Any]] = {kind: dict(buckets.get(kind) or {}) for kind in ("invoices", "lines")}
    for reject in unread:
        kind = made["invoices" if reject.source == catalogue.name else "lines"]
        rejected = kind.setdefault("rejected", {"rows": 0, "money": {}})
        rejected["rows"] += 1
        if reject.cents is not None:
            code = reject.currency or NO_CURRENCY
            rejected["money"][code] = rejected["money"].get(code, 0) + reject.cents
    return made
