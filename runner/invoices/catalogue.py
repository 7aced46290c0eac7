"""The catalogue of historical invoices as CSV: typed rows, and what cannot be read as rejects."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, TypeAlias
from zoneinfo import available_timezones

from runner.errors import ConfigurationError
from runner.invoices import cells
from runner.load import Reject

Invoice: TypeAlias = tuple[int, str, str, dt.date, dt.date, dt.date, dt.date, int]
"""Line, number, client, first and last day of the period, issue date, due date, total in cents."""

Line: TypeAlias = tuple[int, str, str, str | None, dt.date | None, str | None, int | None, int]
"""Line, invoice number, description, contractor, week, hours, rate and amount in cents."""

HEADERS: Mapping[str, tuple[str, ...]] = {
    "number": ("Invoice #", "Invoice No", "Invoice Number", "Invoice", "Number"),
    "client": ("Client", "Customer", "Facility", "Bill To"),
    "period_start": ("Period Start", "Week Start", "From"),
    "period_end": ("Period End", "Week End", "To"),
    "sent_on": ("Issue Date", "Invoice Date", "Issued", "Date"),
    "due_date": ("Due Date", "Due"),
    "total": ("Total", "Amount", "Amount Due"),
    "remark": ("Remark", "Remarks", "Notes", "Note"),
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


def read_invoices(path: Path, form: Format) -> Iterator[Invoice | Reject]:
    """Every row of the catalogue, in order: typed, or as a reject with its line and reason."""
    not_ours = re.compile(form.not_ours, re.IGNORECASE)
    for line, row in cells.rows(path, form.headers, frozenset({"remark"})):
        problems: list[str] = []
        if "!" in row:
            yield Reject(path.name, str(line), line, row["!"])
            continue
        total = _take(problems, "total", row["total"], lambda text: cells.cents(text, decimal=form.decimal))
        if not_ours.search(row.get("remark", "")):
            problems = [f"it is marked as not the company's: {row['remark']!r}"]
        dates = [
            _take(problems, name, row[name], lambda text: cells.date(text, form.date_order))
            for name in ("period_start", "period_end", "sent_on", "due_date")
        ]
        for name in ("number", "client"):
            if not row[name]:
                problems.append(f"{name} is missing")
        if problems or total is None or None in dates:
            marked = problems[0].startswith("it is marked")
            reason = "; ".join(problems[:1] if marked else problems)
            kept = ("number", "remark") if marked else ("number",)
            yield Reject(path.name, str(line), line, reason, total, {name: row[name] for name in kept})
        else:
            start, end, sent, due = (day for day in dates if day is not None)
            yield line, row["number"], row["client"], start, end, sent, due, total


def read_lines(path: Path, form: Format) -> Iterator[Line | Reject]:
    """Every row of the file with the lines."""
    optional = frozenset({"contractor", "week_start", "hours", "rate"})
    for line, row in cells.rows(path, form.line_headers, optional):
        problems: list[str] = []
        if "!" in row:
            yield Reject(path.name, str(line), line, row["!"])
            continue

        def money(text: str) -> int:
            return cells.cents(text, decimal=form.decimal)

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
            yield Reject(path.name, str(line), line, "; ".join(problems), amount, {"number": row["number"]})
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
