"""`runner rollback`: try the undo of a run, show it, ask, do it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from runner.errors import UsageError
from runner.money import add_money, money_text
from runner.terminal.complete import RUN, runs
from runner.terminal.output import changes_by_table, escape, rows_in, table
from runner.terminal.report import draw_approvals
from runner.terminal.sheets import undo_page
from runner.terminal.verb import Actor, Answer, Call, DryRun, Yes, verb
from runner.text import counted

if TYPE_CHECKING:
    from rich.console import Console

    from runner.result import Reversal, Rewind


@verb()
def rollback(
    call: Call,
    run: Annotated[str | None, RUN] = None,
    since: Annotated[
        str | None,
        typer.Option(
            "--since",
            metavar="RUN",
            autocompletion=runs,
            help="That run and all after it, newest first: all or none.",
        ),
    ] = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Write it as a page to be signed.")] = None,
    actor: Actor = None,
) -> Answer:
    """Undo a run: try it, show it, and only then do it. Refused where a row is no longer what the run left."""
    from runner.rollback import rollback as rollback_
    from runner.rollback import rollback_since

    if (run is None) == (since is None):
        raise UsageError("name one run: `runner rollback RUN`, or with all after it `runner rollback --since RUN`")

    file = call.file(html)

    def confirm(reversal: Reversal) -> bool:
        return call.confirm(question([reversal]), reversal, draw_found, yes=yes)

    def confirm_all(rewind: Rewind) -> bool:
        return call.confirm(question(rewind.reversals), rewind, draw_all_found, yes=yes)

    if since is not None:
        rewound = rollback_since(
            call.settings, since, dry_run=dry_run, confirm=confirm_all, actor=actor, progress=call.progress,
            by_dimension=html is not None,
        )  # fmt: skip
        if rewound.verdict == "declined" and call.unasked:
            rewound = replace(rewound, verdict="not asked")
        return Answer(rewound, draw_rewind_outcome if call.shown else draw_rewind, file=file, page=undo_page)
    done = rollback_(
        call.settings, run or "", dry_run=dry_run, confirm=confirm, actor=actor, progress=call.progress,
        by_dimension=html is not None,
    )  # fmt: skip
    if done.verdict == "declined" and call.unasked:
        done = replace(done, verdict="not asked")
    return Answer(done, draw_outcome if call.shown else draw_reversal, file=file, page=undo_page)


def question(reversals: Sequence[Reversal]) -> str:
    """What a yes would undo, with the facts: how much, and where, as whom."""
    what = f"run {str(reversals[0].run_id)[:8]}" if len(reversals) == 1 else f"these {len(reversals)} runs"
    tables = [table for reversal in reversals for table in reversal.tables]
    money = add_money(*(table.money for table in tables))
    worth = f", {money_text(money)}" if money else ""
    return f"Undo {what}: {counted(rows_in(tables), 'row')}{worth}, in {reversals[0].where}?"


def draw_reversal(reversal: Reversal, out: Console) -> None:
    """What an undo would do, or did."""
    if reversal.verdict != "already reversed":
        draw_found(reversal, out)
    draw_outcome(reversal, out)


def draw_found(reversal: Reversal, out: Console) -> None:
    """The rows, the change by table, and what will not come back."""
    out.print(f"[bold]Undo of run {reversal.run_id}[/] ({escape(reversal.backfill)})")
    if reversal.sample:
        out.print()
        out.print(table("row", "", rows=((key, found) for _, key, found in reversal.sample)))
        left = sum(count for _, _, count in reversal.counts) - len(reversal.sample)
        if left > 0:
            out.print(f"[dim]… {counted(left, 'more row')}[/]")
    out.print()
    out.print(table("table", "found", ">rows", rows=(
        (name, found, f"{count:,}") for name, found, count in reversal.counts
    )))  # fmt: skip
    out.print()
    out.print(changes_by_table(reversal.tables))
    draw_approvals(reversal.approvals, out)
    for stamped in reversal.stamped:
        by = f" by trigger {', '.join(stamped.triggers)}" if stamped.triggers else ""
        columns = ", ".join(stamped.columns)
        out.print(escape(f"{stamped.table}: {columns} of {counted(stamped.rows, 'row')} is stamped anew{by}."))


_HEADLINES: Final = {
    "rehearsed": "[bold cyan]Rehearsed and rolled back: nothing was changed.[/]",
    "reversed": "[bold green]Undone and committed[/]{}.",
    "declined": "[bold yellow]Not undone: you said no. Nothing was changed.[/]",
    "not approved": "[bold red]Not undone: it is not approved. Nothing was changed.[/] The line above says how.",
    "not asked": "[bold red]Not undone: nobody was asked (no terminal): give --yes. Nothing was changed.[/]",
}


def draw_outcome(reversal: Reversal, out: Console) -> None:
    """How it ended."""
    if reversal.verdict == "already reversed":
        out.print(f"Run {reversal.run_id} was already undone by run {reversal.reversal_id}: nothing to do.")
        return
    headline = _HEADLINES[reversal.verdict].format(f" as run {reversal.reversal_id}")
    out.print(f"\n{headline} {reversal.seconds:,.1f} s")
    if reversal.chain:
        out.print(f"Chain {reversal.chain}", markup=False, soft_wrap=True)


def draw_rewind(rewind: Rewind, out: Console) -> None:
    """What undoing several runs would do, or did."""
    draw_all_found(rewind, out)
    draw_rewind_outcome(rewind, out)


def draw_all_found(rewind: Rewind, out: Console) -> None:
    """One undo after the other, the newest run first."""
    for reversal in rewind.reversals:
        draw_found(reversal, out)
        out.print()


def draw_rewind_outcome(rewind: Rewind, out: Console) -> None:
    """How all of them ended."""
    if rewind.verdict == "already reversed":
        out.print(f"Run {rewind.since} and all after it were undone already: nothing to do.")
        return
    out.print(f"[bold]{len(rewind.reversals)} runs, the newest first, all of them or none.[/]")
    out.print(f"{_HEADLINES[rewind.verdict].format('')} {rewind.seconds:,.1f} s")
    if rewind.reversals and rewind.reversals[-1].chain:
        out.print(f"Chain {rewind.reversals[-1].chain}", markup=False, soft_wrap=True)
