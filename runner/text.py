"""How results and what others wrote become text. Knows neither a database nor a terminal."""

from __future__ import annotations

import dataclasses
import json
import re
from datetime import date, datetime
from pathlib import PurePath
from typing import Any, Final, TypeVar

T = TypeVar("T")

# What moves a cursor, turns the reading direction, hides, or is no character at all: controls, marks and overrides of
# direction, line and paragraph separators, fillers, tags, halves of a pair. The joiners, which Persian and Hindi need,
# are none of it.
_UNSAFE: Final = re.compile(
    "[\x00-\x1f\x7f-\x9f\xad\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\u3164\ufeff"
    "\uffa0\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e0fff]"
)


def clean(text: str) -> str:
    """What others wrote, on one line and harmless: what could move a cursor or turn the direction is spelled out."""
    return _UNSAFE.sub(_spelled, text)


def clean_lines(text: str) -> str:
    """As clean(), for words of several lines: all lines after the first are set in, so that none passes for ours."""
    first, *more = text.replace("\r\n", "\n").split("\n")
    return "\n".join([clean(first), *(line if line[:2] in ("  ", "") else f"  {line}" for line in map(clean, more))])


def clean_stream(text: str) -> str:
    """As clean(), for what is written as it comes: its line ends are its own."""
    return text if _UNSAFE.search(text) is None else "\n".join(map(clean, text.split("\n")))


def cleaned(value: T) -> T:
    """A result with every text in it clean(), as whoever draws it gets it."""
    return _cleaned(value)  # type: ignore[no-any-return]


def _cleaned(value: Any) -> Any:
    if isinstance(value, str):
        return clean(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = [item for item in dataclasses.fields(value) if item.init]
        return dataclasses.replace(value, **{item.name: _cleaned(getattr(value, item.name)) for item in fields})
    if isinstance(value, dict):
        return {_cleaned(key): _cleaned(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_cleaned(item) for item in value]
    if isinstance(value, tuple):
        return tuple(_cleaned(item) for item in value)
    if isinstance(value, PurePath):
        return type(value)(clean(str(value)))
    return value


def _spelled(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"


def counted(number: int, thing: str) -> str:
    """A number with its noun, in the plural where it is not one: `1 gate`, `1,200 gates`."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def size(count: int) -> str:
    """Bytes in the unit in which they are short."""
    if count < 1024:
        return f"{count} B"
    power = 1 if count < 1024**2 else 2 if count < 1024**3 else 3
    return f"{count / 1024**power:,.1f} {('kB', 'MB', 'GB')[power - 1]}"


SCHEMA_VERSION: Final = 1
"""Of what --json prints; it rises where a key changes its meaning or goes."""


def to_json(result: Any) -> str:
    """Any result object as one JSON object with its schema's version; money stays in minor units, by currency."""
    return json_text({"schema_version": SCHEMA_VERSION, **plain(result)}, indent=2)


def json_text(value: Any, indent: int | None = None) -> str:
    """JSON of plain values; what is not clean stands in JSON's own escapes, so that nothing is lost."""
    text = json.dumps(value, ensure_ascii=False, indent=indent)
    return _UNSAFE.sub(lambda found: found[0] if found[0] == "\n" else json.dumps(found[0])[1:-1], text)


def plain(value: Any) -> Any:
    """Dataclasses, tuples, times and ids as what JSON has."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {item.name: plain(getattr(value, item.name)) for item in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, datetime | date):
        return value.isoformat()
    if value is None or isinstance(value, str | int | float):
        return value
    return str(value)  # ids, decimals, intervals and whatever else a gate selects
