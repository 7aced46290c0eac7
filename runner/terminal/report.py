"""The report of an apply: on a terminal, and as a page for Finance. Knows no database."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from itertools import groupby
from typing import TYPE_CHECKING, Any

from runner.money import NO_CURRENCY, Money, add_money, amount, label, money_text
from runner.systems import ENGINE, SYSTEMS
from runner.terminal.output import (
    change_line,
    changes_by_table,
    draw_left_out,
    escape,
    escape_lines,
    span,
    styled,
    table,
)
from runner.text import clean, counted, size

if TYPE_CHECKING:
    from rich.console import Console

    from runner.approvals import Approvals
    from runner.gates import GateResult
    from runner.result import Attempt, BackfillResult, Lock, Report, TableTotals, Undo

_HEADLINES = {
    "nothing due": ("Nothing is due.", "green"),
    "rehearsed": ("Rehearsed and rolled back: nothing was changed.", "cyan"),
    "applied": ("Applied and committed.", "green"),
    "declined": ("Not applied: you said no. Nothing was changed.", "yellow"),
    "not asked": ("Not applied: nobody was asked (no terminal): give --yes. Nothing was changed.", "red"),
    "not approved": ("Not applied: it is not approved. Nothing was changed.", "red"),
    "plan differed": ("Not what was signed: nothing was changed.", "red"),
    "gate failed": ("Stopped by a gate: nothing was changed.", "red"),
    "apply differed": ("The apply differed from the rehearsal: nothing was changed.", "red"),
}
SHOWN = 20
"""Source rows that were left out which a terminal shows without --all."""
_MARKS = {"pass": ("pass", "green"), "warn": ("warn", "yellow"), "fail": ("FAIL", "red"), "error": ("ERROR", "red")}


def draw_report(report: Report, out: Console, *, changes: bool = True) -> None:
    """What `runner apply` prints; `changes` is false where the rows were printed already."""
    draw_findings(report, out, changes=changes)
    draw_verdict(report, out)


def draw_findings(report: Report, out: Console, *, changes: bool = True) -> None:
    """The report without its verdict, as it is shown before the question."""
    from rich.padding import Padding

    attempt = report.attempt
    if attempt.backfills:
        out.print(f"[bold]{escape(summary(report))}[/]")
    out.print(
        f"[dim]{escape(report.database)} · PostgreSQL {escape(report.server)} · {escape(report.time_zone)} · "
        f"{escape(report.started_at)}[/]"
    )
    if report.as_of:
        out.print(f"as of {escape(report.as_of)}: what was not settled before is left out")
    if report.advice:
        out.print(f"\n[yellow]{escape(report.advice)}[/]")
    if attempt.migrations:
        out.print(f"\n[bold]Migrations[/] ({len(attempt.migrations)})")
        out.print(Padding(escape_lines(by_band(attempt.migrations)), (0, 0, 0, 2)))
    for misfit in attempt.misfits:
        out.print(f"\n[{'yellow' if report.named else 'bold red'}]{escape(str(misfit))}[/]")
    for name in report.not_rehearsable:
        out.print(f"  [yellow]{escape(name)} was not rehearsed: transactional: false[/]")
    for backfill in attempt.backfills:
        out.print(f"\n[bold]Backfill {escape(backfill.name)}[/] – {escape(backfill.description)}")
        out.print(
            f"  due {escape(due_line(backfill))}; "
            f"rejects {backfill.rejects:,}; {backfill.seconds:,.1f} s; digest {escape(backfill.digest[:16])}"
        )
        if backfill.rule_file:
            out.print(f"  the rule: {backfill.due_relation} in {backfill.rule_file}", markup=False)
        if changes and backfill.sample:
            out.print()
            heading = "table and row" if backfill.several else " / ".join(backfill.business_key)
            out.print(table(heading, "", ">amount", rows=changed_rows(backfill)))
            if backfill.rows > len(backfill.sample):
                more = counted(backfill.rows - len(backfill.sample), "more row")
                out.print(f"  [dim]… {more}: --all shows every one[/]")
        out.print()
        out.print(changes_by_table(backfill.tables))
        words, colour = undo_line(backfill.undo)
        out.print(f"  [{colour}]{escape(words)}[/]")
        draw_approvals(backfill.approvals, out)
        draw_left_out(backfill.left_out[: SHOWN if changes else None], backfill.rejects, out)  # a page has them all
        _draw_taken(backfill, out)
    _draw_totals(attempt.totals, out)
    draw_gates(attempt.gates, out)
    _draw_costs(attempt, out)
    if report.differences:
        out.print("\n[bold red]What differed[/]")
        for difference in (*report.differences, *report.unsteady):
            out.print(f"  {escape(difference)}")


def draw_verdict(report: Report, out: Console) -> None:
    """How it ended, and what to do next."""
    verdict, colour = headline(report)
    out.print(f"\n[bold {colour}]{verdict}[/] {_next_step(report)}".rstrip())
    if report.command:
        out.print("To do exactly this, or nothing:")
        out.print(f"  {report.command}", markup=False, soft_wrap=True)  # on one line: it is copied
    if report.attempt.chain and report.verdict == "applied":
        out.print(f"Chain {report.attempt.chain}", markup=False, soft_wrap=True)
    if report.attempt.misfits and not report.named:
        names = ", ".join(misfit.system or misfit.migration for misfit in report.attempt.misfits)
        out.print(
            f"[red]Left out: {escape(names)}.[/] Mend what is named above, or take it out of systems in runner.toml."
        )
    if report.committed_first:
        out.print(
            f"[yellow]Committed before the rehearsal, and there to stay: {escape(', '.join(report.committed_first))}[/]"
        )


def headline(report: Report) -> tuple[str, str]:
    """The verdict and its colour. That nothing was changed is said of what the server has shown to be rolled back."""
    words, colour = _HEADLINES[report.verdict]
    if report.committed_first:
        words = words.replace("othing was changed", "othing else was changed")
    return words, colour


def summary(report: Report) -> str:
    """What it comes to, in a line: rows, money, gates, undo."""
    attempt = report.attempt
    money = add_money(*(item.due_money for item in attempt.backfills))
    passed = sum(gate.status == "pass" for gate in attempt.gates)
    undone = all(item.undo.state == "proved" for item in attempt.backfills)
    rows = counted(sum(item.rows for item in attempt.backfills), "row")
    said = f"{', '.join(item.name for item in attempt.backfills)}: {rows}"
    if money:
        said += f", {money_text(money)}"
    if attempt.gates:
        said += f"; {passed} of {counted(len(attempt.gates), 'gate')} pass"
    return f"{said}; undo proved" if undone else said


def changed_rows(backfill: BackfillResult) -> list[tuple[str, str, str]]:
    """The sample's lines; with the table before each row where the run wrote more than one."""
    lines = []
    for change in backfill.sample:
        key, operation, change_of = change_line(change)
        lines.append((f"{change.table} {key}" if backfill.several else key, operation, change_of))
    return lines


def by_band(names: Sequence[str]) -> list[str]:
    """Migrations as `runner status` lists them: a line for each folder's, many as the first, the last and the count.

    A band of a hundred numbers is a folder's; all from 1000 on are the project's own.
    """
    bands = groupby(names, key=lambda name: min(name[:2], "10"))
    folders = (ENGINE, *SYSTEMS)
    return [
        f"{folders[int(band)] if int(band) < len(folders) else 'own'}: {span(list(files))}" for band, files in bands
    ]


def undo_line(undo: Undo) -> tuple[str, str]:
    """Whether the run could be undone, and the colour of it: red where it could not."""
    if undo.state == "proved":
        return f"undo proved: {counted(undo.rows, 'row')}", "green"
    if undo.state == "refused":
        return f"undo would be refused: {' '.join(undo.reason.split())}", "bold red"
    return f"undo not tried: {undo.reason}", "dim"


def _next_step(report: Report) -> str:
    if report.verdict == "applied" and report.attempt.backfills:
        runs = "\n".join(f"  runner rollback {result.run_id}" for result in report.attempt.backfills)
        return f"To undo:\n{runs}"
    if report.verdict == "rehearsed":
        return "To do it: the same without --dry-run."
    if report.verdict == "not approved":
        return "Have it approved, as said above; then run the same again."
    if report.verdict == "plan differed":
        return "Rehearse again, and have that signed: --dry-run --save-plan."
    if report.verdict == "apply differed" and report.unsteady:
        return "Another value in each attempt can never be the rehearsal's: mend what is named above first."
    if report.verdict == "apply differed":
        return (
            "The data changed between the two; look at it, then run the same command again. Where the application "
            "itself writes such rows: --accept-taken leaves them to it, --as-of what is not settled yet."
        )
    if report.verdict == "gate failed":
        return "The rows above say what does not reconcile."
    return ""


def draw_approvals(approvals: Approvals | None, out: Console) -> None:
    """What a policy asks for, and what there is."""
    if approvals is not None:
        colour = "green" if approvals.enough else "yellow" if approvals.refused is None else "bold red"
        out.print(f"  [{colour}]{escape(approvals.sentence)}[/]")
        if not approvals.enough:
            out.print(f"    runner approve {approvals.signature} --remark …", markup=False, soft_wrap=True)


def _draw_taken(backfill: BackfillResult, out: Console) -> None:
    """What others wrote first: each row, since it is all in which the apply is not the rehearsal."""
    if backfill.taken:
        out.print(
            f"  [yellow]left to others, who wrote them since the rehearsal: {counted(len(backfill.taken), 'row')}[/]"
        )
        several = len({item.table for item in backfill.taken}) > 1
        for item in backfill.taken:
            of_it = f"  {money_text(item.money)}" if item.money is not None else ""
            out.print(f"    {escape(f'{item.table} {item.key}' if several else item.key)}{escape(of_it)}")


def _draw_totals(totals: tuple[TableTotals, ...], out: Console) -> None:
    if not totals:
        return
    out.print("\n[bold]Control totals[/]")
    out.print(table("table", ">rows before", ">changes", ">rows after", "", ">before", ">change",
                    ">after", "", rows=(
        (
            t.table, count(t.rows_before), row_changes(t), count(t.rows_after), *money_of(t),
            styled("ok", "green") if t.proved else styled("WRONG", "red"),
        ) for t in worth_showing(totals)
    )))  # fmt: skip
    for finer in finer_lines(totals):
        out.print(f"  [yellow]{escape(finer)}[/]")
    left = len(totals) - len(worth_showing(totals))
    if left:
        out.print(f"[dim]and {counted(left, 'more tracked table')} that did not change[/]")


def count(rows: int | None) -> str:
    """How many rows a table has, where that was looked at."""
    return "not counted" if rows is None else f"{rows:,}"


def due_line(backfill: BackfillResult) -> str:
    """What was due, in rows and money."""
    rows = counted(backfill.due_rows, "row")
    return rows if backfill.due_money is None else f"{rows}, {money_text(backfill.due_money)}"


def row_changes(total: TableTotals) -> list[str]:
    """How many rows a table gained or lost, and how many of those that stayed were changed."""
    return [f"{total.rows_changed:+,}" if total.rows_changed else "0"] * (
        total.rows_changed != 0 or total.rows_updated == 0
    ) + [f"{total.rows_updated:,} updated"] * (total.rows_updated != 0)


def money_of(total: TableTotals) -> tuple[list[str], ...]:
    """Currencies, and the money before, changed and after in each: a line for each currency."""
    sums: tuple[Money | None, ...] = (total.money_before, total.money_changed, total.money_after)
    names = sorted({name for money in sums if money for name in money}) or [NO_CURRENCY]
    return (
        [label(name) for name in names],
        *([amount(money.get(name, 0), name) for name in names] if money is not None else [] for money in sums),
    )


def finer_lines(totals: Sequence[TableTotals]) -> list[str]:
    """Tables that hold amounts with more decimals than their currency has."""
    return [
        f"{t.table}: {counted(t.finer, 'amount')} with more decimals than the currency has: summed as they are"
        for t in totals if t.finer
    ]  # fmt: skip


def worth_showing(totals: Sequence[TableTotals]) -> list[TableTotals]:
    """Tables that changed, those of the plan that hold money, and whatever is not proved; --json has them all."""
    return [
        t for t in totals
        if t.rows_changed or t.rows_updated or t.money_changed or t.money_after or t.finer or not t.proved
    ]  # fmt: skip


def draw_gates(gates: tuple[GateResult, ...], out: Console) -> None:
    """A line a gate, and the failing rows of those that do not pass."""
    if not gates:
        return
    out.print("\n[bold]Gates[/]")
    out.print(table("gate", "", ">failing rows", ">s", rows=(
        (gate.name, styled(*_MARKS[gate.status]), f"{gate.failures:,}", f"{gate.seconds:.2f}") for gate in gates
    )))  # fmt: skip
    for gate in gates:
        if gate.status != "pass":
            out.print(f"\n[{_MARKS[gate.status][1]}]{escape(gate.name)}[/] {escape(' '.join(gate.message.split()))}")
            for row in gate.rows:
                out.print(f"  {row_words(row)}", markup=False)
            if gate.rows and gate.failures > len(gate.rows):
                out.print(f"  … {gate.failures - len(gate.rows):,} more")


def row_words(row: Mapping[str, Any]) -> str:
    """Each column's name and value. Cents are shown as money, in the decimals of their currency: that of `ledger_cents`
    stands in `ledger_currency`, else in `currency`."""

    def words(name: str, value: Any) -> str:
        if name.endswith("cents") and isinstance(value, int | Decimal):
            side = name.removesuffix("cents").rstrip("_")
            currency = row.get(f"{side}_currency") or row.get("currency") or NO_CURRENCY
            return f"{side or 'amount'} {amount(int(value), currency)}"
        return f"{name} {'null' if value is None else clean(str(value))}"

    return ", ".join(words(name, value) for name, value in row.items())


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
