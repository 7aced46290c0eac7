"""The text file of electricity bills: bytes in, typed bills and rejects out."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Final

from runner.rent.amounts import ore
from runner.rent.files import BadFileError, decoded

PROVIDERS: Final = ("Vattenfall", "Fortum")

_LINE: Final = re.compile(r"(\S+)[ \t]+(.*)")
_AMOUNT: Final = re.compile(r"([0-9]{1,12}(?:[.,][0-9]{1,2})?) kr")
_DATE: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
# `# Tibber (elhandel)` and `# Tibber`: headings of the forms that the providers' have, of nobody who is known. Taken
# for a comment, the lines below would go to the provider before.
_HEADING: Final = re.compile(r"#+\s*(\w[\w.&-]*(?: \w[\w.&-]*)?)\s*\(.*")
_NAME_ALONE: Final = re.compile(r"#+\s*([^\W\d_][\w.&-]*)\s*:?")


@dataclass(frozen=True, slots=True)
class Bill:
    """One bill. `amount` in öre, `bill_date` is the due date, `line` counts from 1."""

    line: int
    provider: str
    bill_date: date
    amount: int


@dataclass(frozen=True, slots=True)
class BadLine:
    """A line that is no bill, with the reason."""

    line: int
    reason: str
    text: str


def parse(content: bytes) -> tuple[list[Bill], list[BadLine]]:
    """All bills and all bad lines. Raises BadFileError for what is not text or holds neither."""
    text = decoded(content)
    if "\0" in text:
        raise BadFileError("holds NUL bytes: it is not text")
    bills: list[Bill] = []
    bad: list[BadLine] = []
    seen: dict[tuple[str, date], int] = {}
    provider: str | None = None
    unknown: str | None = None
    for number, raw in enumerate(re.split(r"\r\n|\n|\r", text), start=1):
        line = raw.strip(" \t")
        if line.startswith("#"):
            named = _provider(line)
            heading = _HEADING.fullmatch(line) or (_NAME_ALONE.fullmatch(line) if provider else None)
            if named:
                provider, unknown = named, None
            elif heading and (heading.re is _HEADING or heading[1][0].isupper()):
                provider, unknown = None, heading[1]
        elif line:
            try:
                bill = _bill(number, line, provider, unknown)
                first = seen.setdefault((bill.provider, bill.bill_date), number)
                if first != number:
                    raise ValueError(f"{bill.provider} of {bill.bill_date} is in line {first} already")
                bills.append(bill)
            except ValueError as exc:
                bad.append(BadLine(number, str(exc), line[:80]))
    if not bills and not bad:
        raise BadFileError("holds no bill")
    return bills, bad


def _provider(line: str) -> str | None:
    word = re.match(r"#+\s*(\w+)", line)
    return next((name for name in PROVIDERS if word and word[1].casefold() == name.casefold()), None)


def _bill(number: int, line: str, provider: str | None, unknown: str | None) -> Bill:
    fields = _LINE.fullmatch(line)
    if fields is None or not _DATE.fullmatch(fields[1]):
        raise ValueError(f"is not `YYYY-MM-DD 1632 kr`: {line[:40]}")
    try:
        day = date.fromisoformat(fields[1])
    except ValueError as exc:
        raise ValueError(f"there is no day {fields[1]}") from exc
    if not 2000 <= day.year < 2100:
        raise ValueError(f"the year of {day} is impossible")
    amount = _AMOUNT.fullmatch(fields[2])
    if amount is None:
        raise ValueError(f"is not an amount in kr: {fields[2][:40]}")
    amount_ore = ore(Decimal(amount[1].replace(",", ".")))
    if amount_ore <= 0:
        raise ValueError(f"the amount is not positive: {fields[2]}")
    if unknown is not None:
        raise ValueError(f"stands below the heading of {unknown}, who is not among {', '.join(PROVIDERS)}")
    if provider is None:
        raise ValueError("stands before any heading: the provider is not known")
    return Bill(number, provider, day, amount_ore)
