"""Cells of a CSV as people export them: money to cents, dates, header names. No floats anywhere."""

from __future__ import annotations

import csv
import datetime as dt
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Literal, TypeAlias

from runner.errors import UsageError
from runner.files import opened, text_lines
from runner.invoices import currencies

DateOrder: TypeAlias = Literal["dmy", "mdy"]

_MONEY = re.compile(
    r"(?P<whole>\d{1,3}(?:(?P<group>[,.' ])\d{3})(?:(?P=group)\d{3})*|\d+)(?:(?P<point>[.,])(?P<part>\d+))?",
    re.ASCII,
)
_DECIMALS = re.compile(r"(?P<whole>\d+)(?P<point>[.,])(?P<part>\d+)", re.ASCII)
_NUMBERS = {0: "no", 2: "two", 3: "three", 4: "four"}
# What a spreadsheet or a web page leaves in a cell and nobody sees.
_UNSEEN = re.compile("[\u00ad\u200b-\u200f\u2060-\u2064\ufeff]")
_FORMULA = re.compile(r'="(.*)"', re.DOTALL)
_ISO = re.compile(r"(\d{4})-(\d{2})-(\d{2})", re.ASCII)
_NUMERIC = re.compile(r"(\d{1,2})[/.-](\d{1,2})[/.-](\d{4})", re.ASCII)
_DAY_FIRST = re.compile(r"(\d{1,2})(?:st|nd|rd|th)?[ -]([A-Za-z]+)\.?,?[ -](\d{4})", re.ASCII)
_MONTH_FIRST = re.compile(r"([A-Za-z]+)\.? (\d{1,2})(?:st|nd|rd|th)?,? (\d{4})", re.ASCII)
_MONTHS = (
    "january", "february", "march", "april", "may", "june", "july", "august", "september", "october", "november",
    "december",
)  # fmt: skip


@lru_cache(maxsize=65_536)
def cents(text: str, *, decimal: str = ".", digits: int = 2) -> int:
    """Minor units of `1,234.50`, `$1 234.5`, `(12.00)`, `-12 EUR`. Raises ValueError saying what is wrong.

    `decimal` is the decimal sign of the file; the other one of . and , separates thousands. `digits` are the decimals
    of the currency's minor unit.
    """
    too_many = f"{text!r} has more than {_NUMBERS.get(digits, digits)} decimals"
    bare = text.replace("\u00a0", " ").replace("\u202f", " ").replace("\u2212", "-").strip()
    negative = False
    if bare.startswith("(") and bare.endswith(")"):
        negative, bare = True, bare[1:-1].strip()
    bare = currencies.bare(bare)[0]
    if bare[:1] in ("-", "+"):
        negative, bare = negative != (bare[0] == "-"), bare[1:].strip()
    bare = currencies.bare(bare)[0]
    match = _MONEY.fullmatch(bare)
    if match and match["group"] == decimal and match["whole"].count(decimal) == 1 and not match["point"]:
        if digits < 3:
            raise ValueError(too_many)
        match = _DECIMALS.fullmatch(bare)  # 1.234 dinars
    if match is None or match.groupdict().get("group") == decimal or (match["point"] or decimal) != decimal:
        raise ValueError(f"{text!r} is not an amount with {decimal!r} as its decimal sign")
    part = match["part"] or ""
    if len(part.rstrip("0") if digits < 2 else part) > digits:  # 1,200.00 yen are 1,200
        raise ValueError(too_many)
    whole = re.sub(r"\D", "", match["whole"])
    if len(whole) > 15:
        raise ValueError(f"{text!r} is too large")
    value = int(whole + part.ljust(digits, "0")[:digits])
    return -value if negative else value


def cleaned(text: str) -> str:
    """A cell without what nobody sees: zero-width letters, blanks of any kind around it, Excel's `="text"`, and the
    apostrophe that makes a text of a number."""
    bare = _UNSEEN.sub("", text).strip()
    if match := _FORMULA.fullmatch(bare):
        bare = match[1].strip()
    return bare[1:].strip() if bare[:1] == "'" and len(bare) > 1 else bare


@lru_cache(maxsize=65_536)
def date(text: str, order: DateOrder | None = None) -> dt.date:
    """The date of `2023-01-31`, `31 Jan 2023`, `January 31, 2023`, `01/31/2023`. Raises ValueError.

    A numeric date that could be read both ways needs `order`; none is guessed, and neither is a century.
    """
    bare = text.strip()
    if match := _ISO.fullmatch(bare):
        return _date(text, int(match[1]), int(match[2]), int(match[3]))
    if match := _DAY_FIRST.fullmatch(bare):
        return _date(text, int(match[3]), _month(text, match[2]), int(match[1]))
    if match := _MONTH_FIRST.fullmatch(bare):
        return _date(text, int(match[3]), _month(text, match[1]), int(match[2]))
    if match := _NUMERIC.fullmatch(bare):
        first, second, year = int(match[1]), int(match[2]), int(match[3])
        if order is None:
            if first != second and first <= 12 and second <= 12:
                raise ValueError(f'{text!r} is ambiguous: say date_order = "dmy" or "mdy" in runner.toml')
            order = "mdy" if second > 12 else "dmy"
        return _date(text, year, *((first, second) if order == "mdy" else (second, first)))
    raise ValueError(f"{text!r} is not a date with a year of four digits")


def _date(text: str, year: int, month: int, day: int) -> dt.date:
    try:
        return dt.date(year, month, day)
    except ValueError as exc:
        raise ValueError(f"{text!r} is not a date: {exc}") from None


def _month(text: str, name: str) -> int:
    found = [number for number, month in enumerate(_MONTHS, 1) if month.startswith(name.lower()) and len(name) >= 3]
    if not found and name.lower() == "sept":
        found = [9]
    if len(found) != 1:
        raise ValueError(f"{text!r} names no month")
    return found[0]


def rows(
    path: Path, headers: Mapping[str, Sequence[str]], optional: frozenset[str]
) -> Iterator[tuple[int, dict[str, str]]]:
    """Line number and cells by field of each row of a CSV in UTF-8; blank rows are left out.

    `headers` maps each field to the names that its column may have, case aside. A field of `optional` may have no
    column. A row with more or fewer cells than the header, or with a NUL, has the one key `!`. Raises UsageError for
    what is no such file.
    """
    try:
        with opened(path) as file:
            lines = text_lines(path, file)
            first = next(lines, "")
            separator = max(",;\t|", key=first.count)
            reader = csv.reader(chain([first], lines), delimiter=separator, strict=True)
            names = next(reader, [])
            columns, width = _columns(path, names, headers, optional), len(names)
            line = reader.line_num + 1
            for cells in reader:
                text = "".join(cells)
                if not text.strip():
                    pass
                elif "\0" in text:
                    yield line, {"!": "it holds a NUL byte, which no text in PostgreSQL can"}
                elif len(cells) == width:
                    yield line, {field: cleaned(cells[index]) for field, index in columns.items()}
                else:
                    yield line, {"!": f"{len(cells)} cells where the header has {width}"}
                line = reader.line_num + 1
    except UnicodeDecodeError as exc:
        raise UsageError(f"{path} is not UTF-8 (byte {exc.start}): save it as CSV UTF-8") from exc
    except csv.Error as exc:
        raise UsageError(f"{path} cannot be read as CSV: {exc}") from exc
    except OSError as exc:
        raise UsageError(f"{path} cannot be read: {exc.strerror}") from exc


def _columns(
    path: Path, names: list[str], headers: Mapping[str, Sequence[str]], optional: frozenset[str]
) -> dict[str, int]:
    found: dict[str, int] = {}
    known = [" ".join(name.replace("_", " ").split()).casefold() for name in names]  # issue_date, as a database has it
    for field, wanted in headers.items():
        places = [known.index(name.casefold()) for name in wanted if name.casefold() in known]
        if len(places) > 1 or any(known.count(known[place]) > 1 for place in places):
            raise UsageError(f"{path} has more than one column for {field}: {', '.join(names[p] for p in places)}")
        if places:
            found[field] = places[0]
        elif field not in optional:
            raise UsageError(
                f"{path} has no column for {field} (looked for {', '.join(wanted)}; there are {', '.join(names)}): "
                "name it in runner.toml under headers"
            )
    return found
