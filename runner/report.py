"""One result object drawn three ways: terminal, JSON, HTML. Knows no database."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import sys
from collections.abc import Iterable, Sequence
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import IO, Any

from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from runner.gates import GateResult
from runner.result import Attempt, Change, Lock, Report, TableTotals

WIDTH = 100
_HEADLINES = {
    "nothing due": ("Nothing is due.", "green"),
    "rehearsed": ("Rehearsed and rolled back: nothing was changed.", "cyan"),
    "applied": ("Applied and committed.", "green"),
    "declined": ("Not applied: you said no. Nothing was changed.", "yellow"),
    "gate failed": ("Stopped by a gate: nothing was changed.", "red"),
    "apply differed": ("The apply differed from the rehearsal: nothing was changed.", "red"),
}
_MARKS = {"pass": ("pass", "green"), "warn": ("warn", "yellow"), "fail": ("FAIL", "red"), "error": ("ERROR", "red")}


def money(cents: int | None) -> str:
    """Cents as people read money: 1593538300 is 15,935,383.00; nothing where there is none."""
    if cents is None:
        return ""
    whole, rest = divmod(abs(cents), 100)
    return f"{'-' if cents < 0 else ''}{whole:,}.{rest:02}"


def size(count: int) -> str:
    """Bytes in the unit in which they are short."""
    if count < 1024:
        return f"{count} B"
    for unit in ("kB", "MB", "GB"):
        count_ = count / 1024 ** ("kB", "MB", "GB").index(unit) / 1024
        if count_ < 1024 or unit == "GB":
            return f"{count_:,.1f} {unit}"
    raise AssertionError("unreachable")


def to_json(result: Any) -> str:
    """Any result object as one JSON object; money stays integer cents, named so by its key."""
    return json.dumps(plain(result), ensure_ascii=False, indent=2)


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


def reader_left() -> None:
    """Whoever read stdout (head, a pager) has seen enough: what is still printed goes nowhere, the work goes on."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


class _Console(Console):
    def on_broken_pipe(self) -> None:
        # rich would end the process with code 1; the exit code is the verb's, not the reader's.
        reader_left()


def console(stream: IO[str] | None = None) -> Console:
    """A console no wider than the documented width, also where no terminal says how wide it is."""
    wide = Console(file=stream)
    # Data may hold what rich takes for an emoji's name: it is printed as it is.
    return _Console(
        file=stream, highlight=False, emoji=False, width=min(wide.width, WIDTH) if wide.is_terminal else WIDTH
    )


def table(*columns: str, rows: Iterable[Iterable[Any]]) -> Table:
    """A plain table; a column whose name begins with `>` is flush right."""
    drawn = Table(box=None, pad_edge=False, show_edge=False)
    for name in columns:
        right = name.startswith(">")
        drawn.add_column(name.lstrip(">"), justify="right" if right else "left", header_style="dim",
                         overflow="fold", no_wrap=right)  # fmt: skip
    for row in rows:
        drawn.add_row(*(item if isinstance(item, Text) else Text(clean(str(item))) for item in row))
    return drawn


_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def clean(text: str) -> str:
    """Data as it may go to a terminal: control characters, which could move its cursor, are spelled out."""
    return _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", text)


def change_line(change: Change) -> tuple[str, str, str]:
    """A change as business key, what was done, and its money."""
    if change.operation == "UPDATE" and change.cents_before != change.cents_after:
        cents = f"{money(change.cents_before)} → {money(change.cents_after)}"
    elif change.operation == "DELETE":
        cents = money(-change.cents_before) if change.cents_before is not None else ""
    else:
        cents = money(change.cents_after)
    return clean(change.business_key), change.operation.lower(), cents


def draw_report(report: Report, out: Console, *, changes: bool = True) -> None:
    """What `runner apply` prints; `changes` is false where the rows were printed already."""
    draw_findings(report, out, changes=changes)
    draw_verdict(report, out)


def draw_findings(report: Report, out: Console, *, changes: bool = True) -> None:
    """The report without its verdict, as it is shown before the question."""
    attempt = report.attempt
    out.print(
        f"[dim]{escape(report.database)} · PostgreSQL {report.server} · {report.time_zone} · {report.started_at}[/]"
    )
    if attempt.migrations:
        out.print(f"\n[bold]Migrations[/] ({len(attempt.migrations)})")
        out.print(Padding(", ".join(attempt.migrations), (0, 0, 0, 2)))
    for name in report.not_rehearsable:
        out.print(f"  [yellow]{name} was not rehearsed: transactional: false[/]")
    for backfill in attempt.backfills:
        out.print(f"\n[bold]Backfill {backfill.name}[/] – {escape(backfill.description)}")
        out.print(
            f"  due {backfill.due_rows:,} rows, {money(backfill.due_cents)}; "
            f"rejects {backfill.rejects:,}; {backfill.seconds:,.1f} s; digest {backfill.digest[:16]}"
        )
        if changes and backfill.sample:
            out.print()
            out.print(table(" / ".join(backfill.business_key), "", ">amount", rows=map(change_line, backfill.sample)))
            if backfill.rows > len(backfill.sample):
                out.print(f"  [dim]… {backfill.rows - len(backfill.sample):,} more rows: --all shows every one[/]")
        out.print()
        out.print(table("table", ">inserted", ">updated", ">deleted", ">change", rows=(
            (t.table, f"{t.inserted:,}", f"{t.updated:,}", f"{t.deleted:,}", money(t.cents)) for t in backfill.tables
        )))  # fmt: skip
    _draw_totals(attempt.totals, out)
    _draw_gates(attempt.gates, out)
    _draw_costs(attempt, out)
    if report.differences:
        out.print("\n[bold red]What differed[/]")
        for difference in report.differences:
            out.print(f"  {difference}")


def draw_verdict(report: Report, out: Console) -> None:
    """How it ended, and what to do next."""
    headline, colour = _HEADLINES[report.verdict]
    out.print(f"\n[bold {colour}]{headline}[/] {_next_step(report)}".rstrip())
    if report.committed_first:
        out.print(f"[yellow]Committed before the rehearsal, and there to stay: {', '.join(report.committed_first)}[/]")


def _next_step(report: Report) -> str:
    if report.verdict == "applied" and report.attempt.backfills:
        runs = "\n".join(f"  runner rollback {result.run_id}" for result in report.attempt.backfills)
        return f"To undo:\n{runs}"
    if report.verdict == "rehearsed":
        return "To do it: the same without --dry-run."
    if report.verdict == "apply differed":
        return "The data changed between the two; look at it, then run the same command again."
    if report.verdict == "gate failed":
        return "The rows above say what does not reconcile."
    return ""


def _draw_totals(totals: tuple[TableTotals, ...], out: Console) -> None:
    if not totals:
        return
    out.print("\n[bold]Control totals[/]")
    out.print(table("table", ">rows before", ">changes", ">rows after", ">before", ">change",
                    ">after", "", rows=(
        (
            t.table, f"{t.rows_before:,}", f"{t.rows_changed:+,}" if t.rows_changed else "0", f"{t.rows_after:,}",
            money(t.cents_before), money(t.cents_changed) if t.cents_before is not None else "",
            money(t.cents_after), Text("ok", "green") if t.proved else Text("WRONG", "red"),
        ) for t in worth_showing(totals)
    )))  # fmt: skip
    left = len(totals) - len(worth_showing(totals))
    if left:
        out.print(f"[dim]and {left} more tracked tables, without money or rows, that did not change[/]")


def worth_showing(totals: Sequence[TableTotals]) -> list[TableTotals]:
    """Tables that changed or hold money, and whatever is not proved; --json has them all."""
    return [t for t in totals if t.rows_changed or t.cents_changed or t.cents_after or not t.proved]


def _draw_gates(gates: tuple[GateResult, ...], out: Console) -> None:
    if not gates:
        return
    out.print("\n[bold]Gates[/]")
    out.print(table("gate", "", ">failing rows", ">s", rows=(
        (gate.name, Text(*_MARKS[gate.status]), f"{gate.failures:,}", f"{gate.seconds:.2f}") for gate in gates
    )))  # fmt: skip
    for gate in gates:
        if gate.status != "pass":
            out.print(f"\n[{_MARKS[gate.status][1]}]{gate.name}[/] {escape(clean(' '.join(gate.message.split())))}")
            for row in gate.rows:
                words = ", ".join(f"{name} {_shown(name, value)}" for name, value in row.items())
                out.print(f"  {words}", markup=False)
            if gate.rows and gate.failures > len(gate.rows):
                out.print(f"  … {gate.failures - len(gate.rows):,} more")


def _shown(name: str, value: Any) -> str:
    if name.endswith("cents") and isinstance(value, int | Decimal):
        return money(int(value))
    return "null" if value is None else clean(str(value))


def _draw_costs(attempt: Attempt, out: Console) -> None:
    if not attempt.backfills and not attempt.migrations:
        return
    if attempt.locks:
        out.print("\n[bold]Locks[/] [dim]the strongest on each table; readers wait for AccessExclusive only[/]")
        out.print(table("table", "mode", ">held s", rows=(
            (lock.table, lock.mode.removesuffix("Lock"), f"{lock.seconds:.2f}") for lock in strongest(attempt.locks)
        )))  # fmt: skip
    out.print(f"\nWAL {size(attempt.wal_bytes)} (whole server) · {attempt.seconds:,.1f} s")
    for trigger in attempt.triggers:
        out.print(f"[yellow]trigger that fires on these tables: {escape(trigger)}[/]")
    for sequence in attempt.sequences:
        out.print(f"[yellow]sequence that moved, which no rollback undoes: {escape(sequence)}[/]")


_STRENGTH = (
    "RowShare",
    "RowExclusive",
    "ShareUpdateExclusive",
    "Share",
    "ShareRowExclusive",
    "Exclusive",
    "AccessExclusive",
)


def strongest(locks: Sequence[Lock]) -> list[Lock]:
    """Of each table the strongest lock: the others make nobody else wait."""
    found: dict[str, Lock] = {}
    for lock in sorted(locks, key=lambda lock: _STRENGTH.index(lock.mode.removesuffix("Lock"))):
        found[lock.table] = lock
    return [found[name] for name in sorted(found)]


def write_html(report: Report, path: Path) -> None:
    """The report for Finance: one self-contained page. Raises OSError."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(loader=PackageLoader("runner"), autoescape=True, undefined=StrictUndefined,
                              trim_blocks=True, lstrip_blocks=True)  # fmt: skip
    environment.filters["money"] = money
    environment.filters["shown"] = lambda item: _shown(*item)
    environment.filters["size"] = size
    environment.filters["line"] = change_line
    environment.filters["strongest"] = strongest
    environment.filters["worth_showing"] = worth_showing
    template = environment.get_template("report.html.j2")
    headline, colour = _HEADLINES[report.verdict]
    path.write_text(template.render(report=report, attempt=report.attempt, headline=headline, colour=colour),
                    encoding="utf-8")  # fmt: skip
