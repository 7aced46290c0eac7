"""The catalogue of historical invoices as CSV: typed rows, and what cannot be read as rejects."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeAlias
from zoneinfo import available_timezones

from runner.errors import ConfigurationError
from runner.invoices import cells, currencies
from runner.load import Reject
from runner.money import minor_digits

Invoice: TypeAlias = tuple[int, str, str, dt.date, dt.date, dt.date, dt.date, int, str, int]
"""Line, number, client, first and last day of the period, issue date, due date, total, its currency, what is paid.

Amounts are in the currency's minor unit; a total below zero is a credit.
"""

Line: TypeAlias = tuple[int, str, str, str | None, dt.date | None, str | None, int | None, int]
"""Line, invoice number, description, contractor, week, hours, rate and amount in the invoice's minor unit."""

HEADERS: Mapping[str, tuple[str, ...]] = {
    "number": ("Invoice #", "Invoice No", "Invoice Number", "Invoice", "Number"),
    "client": ("Client", "Customer", "Facility", "Bill To"),
    "period_start": ("Period Start", "Week Start", "From"),
    "period_end": ("Period End", "Week End", "To"),
    "sent_on": ("Issue Date", "Invoice Date", "Issued", "Date"),
    "due_date": ("Due Date", "Due"),
    "total": ("Total", "Amount", "Amount Due"),
    "remark": ("Remark", "Remarks", "Notes", "Note"),
    "currency": ("Currency", "Curr"),
    "status": ("Status", "State"),
    "paid": ("Amount Paid", "Paid"),
}
LINE_HEADERS: Mapping[str, tuple[str, ...]] = {
    "number": HEADERS["number"],
    "description": ("Description", "Item"),
    "contractor": ("Contractor", "Worker", "Provider"),
    "week_start": ("Week", "Week Start", "Week Of"),
    "hours": ("Hours", "Qty", "Quantity"),
    "rate": ("Rate",),
    "amount": ("Amount", "Line Total"),
}
ALIAS_HEADERS: Mapping[str, tuple[str, ...]] = {"client": ("Client", "Customer", "Alias"), "facility": ("Facility",)}

PaidAs: TypeAlias = Literal["reject", "outstanding", "paid"]
_OUTSTANDING = frozenset({"", "open", "sent", "outstanding", "unpaid", "issued", "overdue", "due", "not paid"})
"""What a column Status says of an invoice that is still owed as a whole."""
_PAID = frozenset({"paid", "paid in full", "settled", "closed"})
_PARTIAL = frozenset({"partial", "partially paid", "part paid"})
_SAY_OWED = "--paid-as outstanding takes all of it as owed"
_SAY_PAID = f"{_SAY_OWED}, --paid-as paid what is paid as paid"

_HOURS = re.compile(r"\d{1,7}(\.\d{1,2})?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Format:
    """How the files are written: `[invoices]` of runner.toml."""

    company: str | None = None
    """Name of the company; needed where the database has several."""
    time_zone: str = "UTC"
    """In which an issue date is a day."""
    date_order: cells.DateOrder | None = None
    decimal: str = "."
    not_ours: str = r"\bnot (ours|the company'?s)\b"
    """A regular expression; a row whose remark it matches is not the company's."""
    earliest: dt.date = dt.date(1990, 1, 1)
    """An issue date before it is taken for a slip."""
    documents: str = "documents"
    """Where originals are kept: a folder, or a URL such as s3://bucket/prefix."""
    storage: Mapping[str, Any] = field(default_factory=dict)
    """Options of the store, such as endpoint_url; credentials come from the environment."""
    headers: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: HEADERS)
    line_headers: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: LINE_HEADERS)

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Format:
        """From the table of runner.toml. Raises ConfigurationError naming the key."""
        unknown = sorted(set(values) - {item.name for item in fields(cls)})
        if unknown:
            raise ConfigurationError(f"invoices: unknown key {unknown[0]!r}")
        kept = dict(values)
        for name, default in (("headers", HEADERS), ("line_headers", LINE_HEADERS)):
            kept[name] = _headers(name, values.get(name, {}), default)
        made = cls(**kept)
        wrong = {
            "time_zone": made.time_zone not in available_timezones(),
            "date_order": made.date_order not in (None, "dmy", "mdy"),
            "decimal": made.decimal not in (".", ","),
            "earliest": type(values.get("earliest", made.earliest)) is not dt.date,
            "not_ours": not _compiles(made.not_ours),
            # A file that is committed is no place for credentials.
            "storage": not isinstance(values.get("storage", {}), Mapping)
            or bool({"key", "secret", "token"} & set(made.storage)),
        }
        for key, bad in wrong.items():
            if bad:
                shown = "" if key == "storage" else f" = {values.get(key)!r}"
                raise ConfigurationError(f"invoices: {key}{shown} cannot be used")
        return made


def read_invoices(
    path: Path, form: Format, currency: str | None = "USD", paid_as: PaidAs = "reject"
) -> Iterator[Invoice | Reject]:
    """Every row of the catalogue, in order: typed, or as a reject with its line and reason.

    `currency` is the company's: that of a row which names none. A row whose currency is not clear is a reject; so is
    one that is not outstanding as a whole (Status, Amount Paid), unless `paid_as` says what that means.
    """
    not_ours = re.compile(form.not_ours, re.IGNORECASE)
    today = dt.datetime.now(dt.UTC).date() + dt.timedelta(days=1)  # somewhere it is tomorrow already
    for line, row in cells.rows(path, form.headers, frozenset({"remark", "currency", "status", "paid"})):
        problems: list[str] = []
        if "!" in row:
            yield Reject(path.name, str(line), line, row["!"])
            continue
        named, total, paid = _money(problems, row, form, currency, paid_as)
        if not_ours.search(row.get("remark", "")):
            problems = [f"it is marked as not the company's: {row['remark']!r}"]
        dates = [
            _take(problems, name, row[name], lambda text: cells.date(text, form.date_order))
            for name in ("period_start", "period_end", "sent_on", "due_date")
        ]
        for name in ("number", "client"):
            if not row[name]:
                problems.append(f"{name} is missing")
        problems += _doubts(row, dates[2], form, today)
        if problems or total is None or None in dates:
            marked = problems[0].startswith("it is marked")
            reason = "; ".join(problems[:1] if marked else problems)
            kept = ("number", "remark") if marked else ("number",)
            yield Reject(path.name, str(line), line, reason, total, {name: row[name] for name in kept}, named)
        else:
            start, end, sent, due = (day for day in dates if day is not None)
            yield line, row["number"], row["client"], start, end, sent, due, total, named, paid


def _doubts(row: Mapping[str, str], sent: dt.date | None, form: Format, today: dt.date) -> Iterator[str]:
    """Issue dates that no invoice has; what the dates are to one another, the database judges."""
    if sent is not None and sent > today:
        yield f"sent_on: {row['sent_on']!r} is in the future"
    if sent is not None and sent < form.earliest:
        yield f"sent_on: {row['sent_on']!r} is before {form.earliest} (earliest in runner.toml)"


def _money(
    problems: list[str], row: Mapping[str, str], form: Format, default: str | None, paid_as: PaidAs
) -> tuple[str, int | None, int]:
    """Currency of a row, its total and what of it counts as paid, both in the currency's minor unit."""
    column = row.get("currency", "")
    named = _take(problems, "currency", row["total"] or "0", lambda text: currencies.resolve(text, column, default))
    digits = minor_digits(named or "USD")
    total = _take(problems, "total", row["total"], lambda text: cells.cents(text, decimal=form.decimal, digits=digits))
    paid = _take(problems, "paid", "0", lambda _: _paid(row, total, form.decimal, digits, paid_as))
    return named, total, paid


def _paid(row: Mapping[str, str], total: int | None, decimal: str, digits: int, paid_as: PaidAs) -> int:
    """What of it counts as paid, in minor units. Raises ValueError for what a person has to decide."""
    if paid_as == "outstanding":
        return 0
    status = row.get("status", "").casefold()
    given = cells.cents(row["paid"], decimal=decimal, digits=digits) if row.get("paid") else None
    if paid_as == "reject":
        if status not in _OUTSTANDING:
            hint = _SAY_PAID if status in _PAID | _PARTIAL else _SAY_OWED
            raise ValueError(f"its status is {row['status']!r}, so it is not outstanding ({hint})")
        if given:
            raise ValueError(f"{row['paid']!r} of it is paid ({_SAY_PAID})")
        return 0
    if status in _OUTSTANDING:
        return given or 0
    if status not in _PAID | _PARTIAL:
        raise ValueError(f"its status is {row['status']!r}, which is neither paid nor outstanding: a person decides")
    whole = given if given is not None else total
    if status in _PARTIAL and (given is None or not 0 < given < (total or 0)):
        raise ValueError(f"its status is {row['status']!r}, and {row.get('paid') or 'no amount'!r} of it is paid")
    if status in _PAID and whole != total:
        raise ValueError(f"its status is {row['status']!r}, and {row['paid']!r} of {row['total']!r} is paid")
    return whole or 0


def read_lines(
    path: Path, form: Format, currency: str | None = "USD", of_invoice: Mapping[str, str] | None = None
) -> Iterator[Line | Reject]:
    """Every row of the file with the lines. `of_invoice` has the currency of an invoice that is not in `currency`,
    by its number in capitals."""
    optional = frozenset({"contractor", "week_start", "hours", "rate"})
    for line, row in cells.rows(path, form.line_headers, optional):
        problems: list[str] = []
        if "!" in row:
            yield Reject(path.name, str(line), line, row["!"])
            continue

        own = (of_invoice or {}).get(row["number"].upper(), currency) or ""
        if currencies.of_amount(row["amount"]):
            _take(problems, "currency", row["amount"], partial(currencies.resolve, column=own, default=own))
        money = partial(cells.cents, decimal=form.decimal, digits=minor_digits(own or "USD"))
        amount = _take(problems, "amount", row["amount"], money)
        rate = _take(problems, "rate", row["rate"], money) if row.get("rate") else None
        week = (
            _take(problems, "week_start", row["week_start"], lambda text: cells.date(text, form.date_order))
            if row.get("week_start")
            else None
        )
        hours = row.get("hours") or None
        if hours and not _HOURS.fullmatch(hours):
            problems.append(f"hours: {hours!r} is not a number with at most two decimals")
        if not row["number"]:
            problems.append("number is missing")
        if problems or amount is None:
            yield Reject(
                path.name, str(line), line, "; ".join(problems), amount, {"number": row["number"]}, own or None
            )
        else:
            described = row["description"] or "Services"
            yield line, row["number"], described, row.get("contractor") or None, week, hours, rate, amount


def read_aliases(path: Path) -> Iterator[tuple[int, str, str] | Reject]:
    """Line, client as it is called in the files, facility by name or id."""
    for line, row in cells.rows(path, ALIAS_HEADERS, frozenset()):
        yield Reject(path.name, str(line), line, row["!"]) if "!" in row else (line, row["client"], row["facility"])


def _take(problems: list[str], name: str, text: str, read: Callable[[str], Any]) -> Any:
    if not text:
        problems.append(f"{name} is missing")
        return None
    try:
        return read(text)
    except ValueError as exc:
        problems.append(f"{name}: {exc}")
        return None


def _headers(name: str, given: Any, default: Mapping[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    if not isinstance(given, Mapping):
        raise ConfigurationError(f'invoices: {name} must be a table of field = "Header"')
    unknown = sorted(set(given) - set(default))
    if unknown:
        raise ConfigurationError(f"invoices.{name}: unknown field {unknown[0]!r}; known are {', '.join(default)}")
    taken = {key: (value,) if isinstance(value, str) else tuple(value) for key, value in given.items()}
    return {**default, **taken}


def _compiles(pattern: str) -> bool:
    try:
        re.compile(pattern)
    except re.error:
        return False
    return True
