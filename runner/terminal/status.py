"""`runner status`: what is pending, what is due, what ran."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from runner.money import money_lines
from runner.terminal.log import draw_runs
from runner.terminal.output import escape, span, styled, table
from runner.terminal.verb import Answer, Call, verb

if TYPE_CHECKING:
    from rich.console import Console

    from runner.fit import Fit
    from runner.status import StatusReport


@verb()
def status(call: Call) -> Answer:
    """Pending and edited migrations, what is due, the last runs."""
    from runner.status import status as status_

    return Answer(status_(call.settings), draw_status)


def draw_status(report: StatusReport, out: Console) -> None:
    """Migrations, due counts, last runs."""
    out.print(f"[dim]{escape(report.database)} · PostgreSQL {escape(report.server)}[/]")
    for item in report.edited:
        out.print(f"[red]edited migration[/] {escape(item)}")
    if report.unselected:
        names = ", ".join(report.unselected)
        out.print(
            f"[yellow]Installed, and not among systems in runner.toml:[/] {escape(names)}. Their log and undo go on "
            "working."
        )
    if report.fits:
        _draw_fits(report.fits, out)
    if report.pending:
        out.print(f"\n[bold]Pending migrations[/] ({len(report.pending)})")
        for folder, files in groupby(report.pending, key=lambda name: name.partition("/")[0]):
            out.print(f"  {folder}: {span([name.partition('/')[2] for name in files])}", markup=False)
    else:
        out.print("\nNo migration is pending.")
    if report.due:
        out.print("\n[bold]Backfills[/]")
        out.print(table("backfill", ">due rows", ">due", ">rejects", "the rule: a view, and its file", rows=(
            (due.backfill, f"{due.due_rows:,}", money_lines(due.due_money), f"{due.rejects:,}",
             f"{due.due_relation} {due.rule_file}".rstrip())
            for due in report.due
        )))  # fmt: skip
    if report.runs:
        out.print()
        draw_runs(report.runs, out)
    if report.pending or any(due.due_rows for due in report.due):
        out.print("\nNext: runner apply --dry-run")


def _draw_fits(found: Sequence[Fit], out: Console) -> None:
    """Which of our systems the tables that are there would fit, and how one selects them."""
    out.print("\n[bold]No system is selected[/]: the engine and the project's own migrations alone.")
    if not any(fit.found for fit in found):
        out.print(f"None of the tables of {', '.join(fit.system for fit in found)} is here.", markup=False)
        return
    out.print(table("system", "here", "", rows=(
        (fit.system, styled("fits", "green") if fit.fits else styled("does not fit", "yellow") if fit.found else "–",
         "; ".join(fit.misfits[:3]) + (f"; {len(fit.misfits) - 3} more" if len(fit.misfits) > 3 else "")
         or ", ".join(fit.found) or "none of its tables is here")
        for fit in found
    )))  # fmt: skip
    fitting = [fit.system for fit in found if fit.fits]
    if not fitting:
        return
    names = ", ".join(f'"{name}"' for name in fitting)
    out.print(f"To select, in runner.toml: systems = [{names}]", markup=False)
