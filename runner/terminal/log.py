"""`runner log`: the runs, or one run with its rows by business key."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Final

import typer

from runner.money import money_lines
from runner.terminal.complete import RUN
from runner.terminal.output import (
    change_line,
    changes_by_table,
    draw_left_out,
    escape,
    rows_in,
    styled,
    table,
)
from runner.terminal.report import draw_approvals
from runner.terminal.verb import AllRows, Answer, Call, verb
from runner.text import clean, counted

if TYPE_CHECKING:
    from rich.console import Console

    from runner.log import RunDetail, RunList
    from runner.runs import Run

_STATUS: Final = {"succeeded": "green", "partial": "yellow", "failed": "red", "running": "cyan", "reversed": "dim"}


@verb()
def log(
    call: Call,
    run: Annotated[str | None, RUN] = None,
    limit: Annotated[int, typer.Option(min=1, metavar="N", help="How many runs to list.")] = 20,
    all_rows: AllRows = False,
) -> Answer:
    """The runs; or one run's metrics and its rows by business key."""
    from runner import log as log_

    if run is None:
        return Answer(log_.log(call.settings, limit=limit), draw_log)
    sink = call.row_sink(all_rows)
    detail = log_.log_run(call.settings, run, every_row=sink.add if sink else None)
    return Answer(detail, draw_run, rows=sink)


def draw_log(found: RunList, out: Console) -> None:
    """The runs, and the head of the chain, which is to be kept elsewhere."""
    draw_runs(found.runs, out)
    out.print(f"[dim]Chain {escape(found.head)}[/]", soft_wrap=True)


def draw_runs(runs: Sequence[Run], out: Console) -> None:
    """A line a run, newest first."""
    if not runs:
        out.print("No run yet.")
        return
    out.print("[bold]Runs[/]")
    out.print(table("run", "started", "what", "", ">rows", ">change", "by", rows=(
        (
            str(run.run_id)[:8], f"{run.started_at:%Y-%m-%d %H:%M:%S}",
            f"undo of {run.backfill}" if run.mode == "reversal" else run.backfill,
            styled(run.status + (", exported" if run.exported else ""), _STATUS[run.status]),
            f"{run.rows:,}", money_lines(run.money), run.actor,
        ) for run in runs
    )))  # fmt: skip


def draw_run(detail: RunDetail, out: Console) -> None:
    """Everything the log has of one run, and its rows."""
    run = detail.run
    ended = f"{run.completed_at:%H:%M:%S}" if run.completed_at else "still running"
    out.print(
        f"[bold]Run {run.run_id}[/] {escape(run.backfill)} ({escape(run.mode)}), [{_STATUS[run.status]}]{run.status}[/]"
    )
    out.print(f"by {escape(run.actor)}, {run.started_at:%Y-%m-%d %H:%M:%S %Z} – {ended}")
    for name, value in (("subject", run.subject), ("parameters", run.parameters)):
        if value:
            out.print(f"{name}: {clean(str(value))}", markup=False)
    if run.reverses:
        out.print(f"undoes run {run.reverses}")
    if run.reversed_by:
        out.print(f"undone by run {run.reversed_by}")
    if run.digest:
        out.print(f"[dim]digest {escape(run.digest)}[/]")
    if run.link:
        out.print(f"[dim]link {escape(run.link)}[/]", soft_wrap=True)
    if run.exported:
        out.print(f"[yellow]exported, not reversible here[/]: its rows are in {escape(run.exported)}")
    for error in run.errors:
        out.print(f"error: {clean(str(error))}", markup=False)
    out.print()
    out.print(changes_by_table(run.tables))
    if detail.changes:
        out.print()
        out.print(table("row", "", ">amount", rows=map(change_line, detail.changes)))
        left = rows_in(run.tables) - len(detail.changes)
        if left > 0:
            out.print(f"[dim]… {counted(left, 'more row')}: --all shows every one[/]")
    draw_approvals(run.approvals, out)
    draw_left_out(detail.left_out, detail.rejects, out)
