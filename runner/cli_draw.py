"""How the smaller verbs look on a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.text import Text

from runner.doctor import Finding
from runner.log import Run, RunDetail
from runner.report import change_line, clean, money, table
from runner.result import Reversal, TableChanges
from runner.status import StatusReport

_STATES = {"ok": "green", "warn": "yellow", "fail": "red"}
_STATUS = {"succeeded": "green", "partial": "yellow", "failed": "red", "running": "cyan", "reversed": "dim"}


def draw_status(report: StatusReport, out: Console) -> None:
    """Migrations, due counts, last runs."""
    out.print(f"[dim]{escape(report.database)} · PostgreSQL {report.server}[/]")
    for item in report.edited:
        out.print(f"[red]edited migration[/] {escape(item)}")
    if report.pending:
        out.print(f"\n[bold]Pending migrations[/] ({len(report.pending)})")
        for name in report.pending:
            out.print(f"  {name}")
    else:
        out.print("\nNo migration is pending.")
    if report.due:
        out.print("\n[bold]Backfills[/]")
        out.print(table("backfill", ">due rows", ">due", ">rejects", "", rows=(
            (due.backfill, f"{due.due_rows:,}", money(due.due_cents), f"{due.rejects:,}", due.description)
            for due in report.due
        )))  # fmt: skip
    if report.runs:
        out.print()
        draw_runs(report.runs, out)
    if report.pending or any(due.due_rows for due in report.due):
        out.print("\nNext: runner apply --dry-run")


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
            Text(run.status, _STATUS[run.status]), f"{_rows(run.tables):,}", _cents(run.tables), run.actor,
        ) for run in runs
    )))  # fmt: skip


def draw_run(detail: RunDetail, out: Console) -> None:
    """Everything the log has of one run, and its rows."""
    run = detail.run
    ended = f"{run.completed_at:%H:%M:%S}" if run.completed_at else "still running"
    title = escape(clean(run.backfill))
    out.print(f"[bold]Run {run.run_id}[/] {title} ({run.mode}), [{_STATUS[run.status]}]{run.status}[/]")
    out.print(f"by {escape(clean(run.actor))}, {run.started_at:%Y-%m-%d %H:%M:%S %Z} – {ended}")
    for name, value in (("subject", run.subject), ("parameters", run.parameters)):
        if value:
            out.print(f"{name}: {clean(str(value))}", markup=False)
    if run.reverses:
        out.print(f"undoes run {run.reverses}")
    if run.reversed_by:
        out.print(f"undone by run {run.reversed_by}")
    if run.digest:
        out.print(f"[dim]digest {run.digest}[/]")
    for error in run.errors:
        out.print(f"error: {clean(str(error))}", markup=False)
    out.print()
    _draw_tables(run.tables, out)
    if detail.changes:
        out.print()
        out.print(table("row", "", ">amount", rows=map(change_line, detail.changes)))
        if _rows(run.tables) > len(detail.changes):
            out.print(f"[dim]… {_rows(run.tables) - len(detail.changes):,} more rows: --all shows every one[/]")


def draw_reversal(reversal: Reversal, out: Console) -> None:
    """What an undo would do, or did."""
    if reversal.verdict == "already reversed":
        out.print(f"Run {reversal.run_id} was already undone by run {reversal.reversal_id}: nothing to do.")
        return
    out.print(f"[bold]Undo of run {reversal.run_id}[/] ({escape(clean(reversal.backfill))})")
    if reversal.sample:
        out.print()
        out.print(table("row", "", rows=((key, found) for _, key, found in reversal.sample)))
        left = sum(count for _, _, count in reversal.counts) - len(reversal.sample)
        if left > 0:
            out.print(f"[dim]… {left:,} more rows[/]")
    out.print()
    out.print(table("table", "found", ">rows", rows=(
        (name, found, f"{count:,}") for name, found, count in reversal.counts
    )))  # fmt: skip
    out.print()
    _draw_tables(reversal.cents, out)
    headline = {
        "rehearsed": "[bold cyan]Rehearsed and rolled back: nothing was changed.[/]",
        "reversed": f"[bold green]Undone and committed[/] as run {reversal.reversal_id}.",
        "declined": "[bold yellow]Not undone: you said no. Nothing was changed.[/]",
    }[reversal.verdict]
    out.print(f"\n{headline} {reversal.seconds:,.1f} s")


def draw_checks(findings: Sequence[Finding], out: Console) -> None:
    """A line a check."""
    out.print(table("", "", "", rows=(
        (Text(finding.state, _STATES[finding.state]), finding.subject, finding.message) for finding in findings
    )))  # fmt: skip


def _draw_tables(tables: Sequence[TableChanges], out: Console) -> None:
    out.print(table("table", ">inserted", ">updated", ">deleted", ">change", rows=(
        (t.table, f"{t.inserted:,}", f"{t.updated:,}", f"{t.deleted:,}", money(t.cents)) for t in tables
    )))  # fmt: skip


def _rows(tables: Sequence[TableChanges]) -> int:
    return sum(t.inserted + t.updated + t.deleted for t in tables)


def _cents(tables: Sequence[TableChanges]) -> str:
    amounts = [t.cents for t in tables if t.cents is not None]
    return money(sum(amounts)) if amounts else ""
