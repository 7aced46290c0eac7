"""The pages that people sign: one HTML file each, of what a verb found or did. Knows no database."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from typing import TYPE_CHECKING, Any, Final

from runner.money import Amount, Money, add_money, amount, label, money_lines, money_text
from runner.terminal import report as report_
from runner.terminal.output import change_line, source_row
from runner.text import clean, cleaned, counted, size

if TYPE_CHECKING:
    from jinja2 import Environment

    from runner.gates import GateResult
    from runner.result import Change, Dimension, DimensionLine, Lock, Report, TableChanges

MONTHS: Final = 36
"""Months up to which each has a line; more are added up by year."""
VALUES: Final = 20
"""Values that have a line each, those of the largest change; the others are added up."""
ROWS: Final = 10_000
"""Rows that a page holds; what are more stand beside it, as CSV."""

Cell = str | Sequence[str]


@dataclass(frozen=True, slots=True)
class Bar:
    """A line of a dimension: `width` is that of its bar, 0 to 100, in the scale of its currency."""

    value: str
    rows: str
    before: str
    change: str
    after: str
    width: float
    minus: bool


@dataclass(frozen=True, slots=True)
class Bars:
    """A dimension as it is drawn; `known`: what was there before and after."""

    name: str
    caption: str
    lines: tuple[Bar, ...]
    known: bool


@dataclass(frozen=True, slots=True)
class Section:
    """A table with its heading; `numbers` are the places of its columns of figures."""

    heading: str
    caption: str
    headings: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    numbers: Sequence[int] = ()


@dataclass(frozen=True, slots=True)
class Sheet:
    """A page of anything but an apply."""

    title: str
    headline: str
    colour: str
    sentence: str
    where: str
    sections: Sequence[Section] = ()
    folded: Sequence[Section] = ()
    remarks: Sequence[tuple[str, str]] = ()
    dimensions: Sequence[Dimension] = ()
    left: Any = None
    """What has `left_out` and `rejects`."""
    signatures: Sequence[tuple[str, str]] = ()
    head: str = ""


def apply_page(report: Report, listed: Sequence[Change] | None = None, csv: str = "") -> bytes:
    """The page of an apply or its rehearsal. `listed`: its rows, else the samples are shown; `csv`: a file of all."""
    report = cleaned(report)
    headline, colour = report_.headline(report)
    sample = [change for item in report.attempt.backfills for change in item.sample]
    rows = [[change.table, *change_line(change)] for change in (sample if listed is None else cleaned(list(listed)))]
    beside = f"; all of them are in {csv}, beside this file" if csv else ""
    count = sum(item.rows for item in report.attempt.backfills)
    signatures = [(item.name, item.signature) for item in report.attempt.backfills if item.signature]
    return _render(
        "apply.html.j2", title=f"Backfill of {clean(report.where.partition(' on ')[0] or report.database)}",
        headline=headline, colour=colour, report=report, attempt=report.attempt, sentence=sentence(report),
        signatures=signatures, rows=rows,
        caption=f"{len(rows):,} of {counted(count, 'row')}" + beside,
    )  # fmt: skip


def sheet_page(sheet: Sheet) -> bytes:
    """The page of anything else."""
    sheet = cleaned(sheet)
    return _render("sheet.html.j2", title=sheet.title, headline=sheet.headline, colour=sheet.colour, sheet=sheet)


def sentence(report: Report) -> str:
    """What it comes to, in the words of whoever signs."""
    attempt = report.attempt
    money = add_money(*(item.due_money for item in attempt.backfills))
    rows = counted(sum(item.rows for item in attempt.backfills), "row")
    what = f"{rows}{f' worth {money_text(money)}' if money else ''}"
    why = "; ".join(item.description for item in attempt.backfills)
    if not attempt.backfills:
        return "No money is touched." if attempt.migrations else "There is nothing to do."
    if report.verdict == "applied":
        return f"{what} were written: {why}."
    if report.verdict == "gate failed":
        found = counted(len(attempt.stopped), "check")
        return f"Nothing was written, since {found} found what must not be. It would have been {what}: {why}."
    if report.verdict in ("plan differed", "apply differed"):
        return f"Nothing was written, since it was no longer what had been looked at. It would have been {what}: {why}."
    return f"{what} will be written if this is applied: {why}. Nothing is written yet."


def bars(dimension: Dimension) -> Bars:
    """A dimension as lines with bars: months in their order, other values by the size of the change."""
    lines = list(dimension.lines)
    monthly = all(line.value is None or _is_month(line.value) for line in lines)
    name = dimension.column.removesuffix("_id").replace("_", " ")
    more = ""
    if monthly and len({line.value for line in lines}) > MONTHS:
        lines, name = (
            [_added(those, year) for year, those in _by(lines, lambda line: (line.value or "")[:4])],
            f"year of {name}",
        )
    elif not monthly:
        kept = []  # the largest of each currency: amounts of two are not compared
        for _, those in _by(lines, _currency):
            ranked = sorted(those, key=lambda line: -_size(line))
            kept += ranked[:VALUES]
            if rest := ranked[VALUES:]:
                kept.append(_added(rest, counted(len(rest), "other")))
                more = f" Of each currency the {VALUES} largest; the others are added up below them."
        lines = kept
    lines.sort(key=_currency)
    largest: dict[str, Amount] = {}
    for line in lines:
        largest[_currency(line)] = max(largest.get(_currency(line), 0), _size(line))
    return Bars(
        name, f"Money that this changes, by {name}.{more}",
        tuple(
            Bar(
                "(none)" if line.value is None else line.value, f"{line.rows:,}", _money(line.before, line),
                _money(line.change, line), _money(line.after, line),
                round(float(100 * _size(line) / largest[_currency(line)]), 2) if largest[_currency(line)] else 0,
                next(iter((line.change or {}).values()), 0) < 0,
            )
            for line in lines
        ),
        any(line.after is not None for line in lines),
    )  # fmt: skip


def _is_month(value: str) -> bool:
    return len(value) == 7 and value[4] == "-" and value[:4].isdigit() and value[5:].isdigit()


def _by(lines: Sequence[DimensionLine], key: Any) -> Iterable[tuple[str, list[DimensionLine]]]:
    """By the key and the currency."""
    ordered = sorted(lines, key=lambda line: (key(line), _currency(line)))
    return [(name, list(those)) for (name, _), those in groupby(ordered, key=lambda line: (key(line), _currency(line)))]


def _added(lines: Sequence[DimensionLine], value: str) -> DimensionLine:
    from runner.result import DimensionLine

    return DimensionLine(
        value, sum(line.rows for line in lines), *(
            add_money(*(getattr(line, part) for line in lines)) for part in ("before", "change", "after")
        ),
    )  # fmt: skip


def _currency(line: DimensionLine) -> str:
    return next(iter(line.change or line.after or line.before or {}), "")


def _size(line: DimensionLine) -> Amount:
    for part in (line.change or {}).values():
        return part if part >= 0 else -part
    return 0


def _money(money: Money | None, line: DimensionLine) -> str:
    if money is None:
        return ""
    currency = _currency(line)
    return f"{amount(next(iter(money.values()), 0), currency or 'amounts')} {label(currency)}".strip()


def must_not_be(gate: GateResult) -> str:
    """What a check looks for, as its description says: never its name where there are words."""
    return gate.description or gate.name.replace("_", " ")


def found_words(gate: GateResult) -> str:
    """What it found."""
    if gate.status == "error":
        return "could not be checked"
    if gate.status == "pass":
        return "none"
    return f"{gate.failures:,}" + (", which stops it" if gate.stops else ", a warning")


def table_rows(tables: Sequence[TableChanges]) -> list[list[Cell]]:
    """A line a table that is written."""
    return [
        [t.table, f"{t.inserted:,}", f"{t.updated:,}", f"{t.deleted:,}", money_lines(t.money)] for t in tables
    ]  # fmt: skip


def _total_rows(report_totals: Any) -> list[list[Cell]]:
    return [
        [t.table, report_.count(t.rows_before), report_.row_changes(t), report_.count(t.rows_after),
         *report_.money_of(t), "proved" if t.proved else "WRONG"]
        for t in report_.worth_showing(report_totals)
    ]  # fmt: skip


def _left_rows(rows: Sequence[Any]) -> list[list[Cell]]:
    return [[source_row(row), row.reason, money_text(row.money)] for row in rows]


def _taken_rows(rows: Sequence[Any]) -> list[list[Cell]]:
    return [[row.table, row.key, money_text(row.money)] for row in rows]


def _lock_rows(locks: Sequence[Lock]) -> list[list[Cell]]:
    return [[lock.table, lock.mode, f"{lock.seconds:.2f}"] for lock in report_.strongest(locks)]


@cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(loader=PackageLoader("runner.terminal", ""), autoescape=True, undefined=StrictUndefined,
                              trim_blocks=True, lstrip_blocks=True)  # fmt: skip
    environment.filters.update(
        due_line=report_.due_line, counted=counted, size=size, by_band=report_.by_band, bars=bars,
        must_not_be=must_not_be,
        found_words=found_words, table_rows=table_rows, total_rows=_total_rows, left_rows=_left_rows,
        taken_rows=_taken_rows, lock_rows=_lock_rows, finer_lines=report_.finer_lines,
        undo_line=lambda undo: report_.undo_line(undo)[0], row_words=report_.row_words,
    )  # fmt: skip
    # One that no line holds may be broken anywhere; a name that one does, never.
    environment.tests["long"] = lambda cell: any(
        len(word) > 30 for text in ([cell] if isinstance(cell, str) else cell) for word in text.split()
    )
    return environment


def _render(template: str, **values: Any) -> bytes:
    return _environment().get_template(template).render(**values).encode()
