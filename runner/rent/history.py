"""Rent calculations, files `YYYY_MM_vN.json`: bytes in, one typed calculation or the reasons against it out."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal, InvalidOperation
from typing import Any, Final

from runner.rent.amounts import ore
from runner.rent.files import BadFileError, decoded

_NAME: Final = re.compile(r"(20[0-9]{2})_(0[1-9]|1[0-2])_v([1-9][0-9]{0,5})\.json")
_SUSPECT_MONTHS: Final = 6


@dataclass(frozen=True, slots=True)
class Share:
    """What a calculation says of one roommate. Money in öre; `days` None = the whole month."""

    tenant: str
    days: Decimal | None
    room_adjustment: int
    amount: int


@dataclass(frozen=True, slots=True)
class Calculation:
    """One calculation. `period` and `calculation_month` are YYYY-MM; money in öre; `text` is the whole document."""

    name: str
    period: str
    version: int
    calculation_month: str
    title: str | None
    calculated_at: datetime
    base_monthly_rent: int
    shares: tuple[Share, ...]
    text: str
    suspicions: tuple[str, ...] = ()
    remarks: tuple[str, ...] = field(default=())


def is_calculation(name: str) -> bool:
    """Is it the name of a calculation?"""
    return _NAME.fullmatch(name) is not None


def parse(name: str, content: bytes) -> Calculation:
    """The calculation. Raises BadFileError with the reason; what only makes it suspect is in `suspicions`."""
    named = _NAME.fullmatch(name)
    if named is None:
        raise BadFileError("the name is not YYYY_MM_vN.json")
    text = decoded(content)
    document = load_document(text)
    if not isinstance(document, dict):
        raise BadFileError("is not a JSON object")
    metadata, constants, roommates, results = (
        _object(document, key) for key in ("metadata", "constants", "roommates", "final_results")
    )
    period = f"{named[1]}-{named[2]}"
    version = int(named[3])
    calculated_at = _calculated_at(metadata)
    month, remarks = _calculation_month(period, constants)
    if "version" in metadata and metadata["version"] != version:
        remarks.append(f"metadata.version is {_short(metadata['version'])}, the name says {version}")
    late = _months_between(period, f"{calculated_at:%Y-%m}")
    suspicions = [f"calculated on {calculated_at:%Y-%m-%d}, {late} months after {period}"] * (late > _SUSPECT_MONTHS)
    for key, value in constants.items():
        if value is not None:
            _ore(value, f"constants.{key}")
    return Calculation(
        name=name,
        period=period,
        version=version,
        calculation_month=month,
        title=_title(metadata),
        calculated_at=calculated_at,
        base_monthly_rent=_base(constants, len(roommates)),
        shares=_shares(roommates, results),
        text=text,
        suspicions=tuple(suspicions),
        remarks=tuple(remarks),
    )


def absent(
    calculation: Calculation, residence: dict[str, tuple[str | None, str | None]]
) -> tuple[list[str], list[str]]:
    """(names that are no tenants, suspicions against those who lived there in neither month of the calculation).

    `residence` has start and departure of each tenant as YYYY-MM, None where there is none. The months are the rent
    month and the month lived in, which is the one after the calculation's.
    """
    lived = next_month(calculation.calculation_month)
    first, last = min(calculation.period, lived), max(calculation.period, lived)
    unknown, suspicions = [], []
    for share in calculation.shares:
        if share.tenant not in residence:
            unknown.append(share.tenant)
            continue
        start, departure = residence[share.tenant]
        if start is not None and start > last:
            suspicions.append(f"{share.tenant} did not live there in {calculation.period}: came in {start}")
        elif departure is not None and departure < first:
            suspicions.append(f"{share.tenant} did not live there in {calculation.period}: left in {departure}")
    return unknown, suspicions


def load_document(text: str) -> Any:
    """The JSON with Decimals for numbers. Raises BadFileError where it is broken or holds what jsonb cannot."""
    try:
        document = json.loads(
            text, parse_float=_decimal, parse_int=_decimal, parse_constant=_no_number, object_pairs_hook=_unique
        )
        _refuse_unstorable(document)
    except RecursionError as exc:
        raise BadFileError("is nested too deeply") from exc
    except json.JSONDecodeError as exc:
        raise BadFileError(f"is not JSON: {exc.msg} in line {exc.lineno}, column {exc.colno}") from exc
    return document


def next_month(period: str) -> str:
    """The period YYYY-MM after this one."""
    year, month = int(period[:4]), int(period[5:])
    return f"{year + month // 12:04}-{month % 12 + 1:02}"


def _decimal(digits: str) -> Decimal:
    try:
        number = Decimal(digits)
    except InvalidOperation as exc:
        raise BadFileError(f"holds a number that is too large: {digits[:20]}…") from exc
    exponent = number.as_tuple().exponent
    if number and (abs(number.adjusted()) > 30 or (isinstance(exponent, int) and exponent < -30)):
        raise BadFileError(f"holds a number that is too large or too fine: {digits[:20]}…")
    return number


def _no_number(word: str) -> Decimal:
    raise BadFileError(f"holds {word}, which is not a number")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise BadFileError(f"holds {_short(twice)} twice in one object")
    return found


def _refuse_unstorable(value: Any) -> None:
    if isinstance(value, dict):
        for key, item in value.items():
            _refuse_unstorable(key)
            _refuse_unstorable(item)
    elif isinstance(value, list):
        for item in value:
            _refuse_unstorable(item)
    elif isinstance(value, str) and ("\0" in value or any("\ud800" <= c <= "\udfff" for c in value)):
        raise BadFileError("holds a text with a NUL or half a character")


def _object(document: dict[str, Any], key: str) -> dict[str, Any]:
    found = document.get(key)
    if not isinstance(found, dict):
        raise BadFileError(f"{key} is {'missing' if found is None else 'not an object'}")
    if not found:
        raise BadFileError(f"{key} is empty")
    return found


def _calculated_at(metadata: dict[str, Any]) -> datetime:
    text = metadata.get("calculation_date")
    if not isinstance(text, str):
        raise BadFileError("metadata.calculation_date is missing or not text")
    try:
        found = datetime.fromisoformat(text)
    except ValueError as exc:
        raise BadFileError(f"metadata.calculation_date is not a date and time: {_short(text)}") from exc
    if found.tzinfo is None:
        raise BadFileError(f"metadata.calculation_date has no time zone: {_short(text)}")
    if not 2000 <= found.year < 2100:
        raise BadFileError(f"metadata.calculation_date is impossible: {_short(text)}")
    return found


def _title(metadata: dict[str, Any]) -> str | None:
    title = metadata.get("title")
    if title is not None and not isinstance(title, str):
        raise BadFileError(f"metadata.title is not text: {_short(title)}")
    return title


def _calculation_month(period: str, constants: dict[str, Any]) -> tuple[str, list[str]]:
    """The month that was calculated, and what is odd about it. Without a year, the one that fits the name."""
    month = _whole(constants.get("month"), "constants.month", 1, 12)
    year = _whole(constants.get("year"), "constants.year", 2000, 2099)
    if month is None:
        if year is None or year == int(period[:4]):
            return period, []
        return period, [f"constants.year is {year}, without a month"]
    if year is None:
        year = int(period[:4]) - (month == 12 and period[5:] == "01")
    found = f"{year}-{month:02}"
    if period in (found, next_month(found)):
        return found, []
    return found, [f"the name says {period}, constants say {found}: neither that month nor the one before"]


def _whole(value: object, name: str, lowest: int, highest: int) -> int | None:
    if value is None:
        return None
    if not isinstance(value, Decimal) or not lowest <= value <= highest or value != int(value):
        raise BadFileError(f"{name} is not a number from {lowest} to {highest}: {_short(value)}")
    return int(value)


def _ore(value: object, name: str) -> int:
    if not isinstance(value, Decimal):
        raise BadFileError(f"{name} is not a number: {_short(value)}")
    try:
        return ore(value)
    except ValueError as exc:
        raise BadFileError(f"{name} {exc}: {_short(value)}") from exc


def _base(constants: dict[str, Any], roommates: int) -> int:
    """Öre: kallhyra by the number of roommates, half an öre rounded up (as rent.record_calculation does)."""
    kallhyra = _ore(constants.get("kallhyra"), "constants.kallhyra")
    if kallhyra <= 0:
        raise BadFileError(f"constants.kallhyra is not positive: {_short(constants['kallhyra'])}")
    return (2 * kallhyra + roommates) // (2 * roommates)


def _shares(roommates: dict[str, Any], results: dict[str, Any]) -> tuple[Share, ...]:
    for name in results:
        if name not in roommates:
            raise BadFileError(f"{_short(name)} is in final_results and not in roommates")
    return tuple(_share(name, given, results) for name, given in roommates.items())


def _share(name: str, given: object, results: dict[str, Any]) -> Share:
    if not name.strip():
        raise BadFileError("roommates holds an empty name")
    if name not in results:
        raise BadFileError(f"{_short(name)} is in roommates and not in final_results")
    if not isinstance(given, dict):
        raise BadFileError(f"roommates.{_short(name)} is not an object")
    days = given.get("days")
    if days is not None and (not isinstance(days, Decimal) or not 0 < days <= 31):
        raise BadFileError(f"days of {_short(name)} is not a number above 0, up to 31: {_short(days)}")
    adjustment = given.get("room_adjustment")
    amount = _ore(results[name], f"final_results.{_short(name)}")
    if amount < 0:
        raise BadFileError(f"final_results.{_short(name)} is negative: {_short(results[name])}")
    return Share(
        name, days, 0 if adjustment is None else _ore(adjustment, f"room_adjustment of {_short(name)}"), amount
    )


def _months_between(first: str, last: str) -> int:
    return (int(last[:4]) - int(first[:4])) * 12 + int(last[5:]) - int(first[5:])


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"{text[:40]}…"
