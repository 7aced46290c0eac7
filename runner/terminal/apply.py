"""`runner apply`: rehearse, show, ask, do."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from runner.terminal.report import draw_findings, draw_report, draw_verdict, html_page
from runner.terminal.verb import Actor, AllowRejects, AllRows, Answer, AsOf, Call, DryRun, Yes, verb

if TYPE_CHECKING:
    from runner.result import Report


@verb()
def apply(
    call: Call,
    backfills: Annotated[list[str] | None, typer.Argument(metavar="[BACKFILL]…", help="Default: all due.")] = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    allow_rejects: AllowRejects = 0,
    as_of: AsOf = None,
    accept_taken: Annotated[
        bool, typer.Option("--accept-taken", help="Leave to others what they wrote since the rehearsal, and name it.")
    ] = False,
    allow_non_transactional: Annotated[
        bool, typer.Option(help="Apply `transactional: false` migrations, which cannot be rehearsed, first.")
    ] = False,
    prove_undo: Annotated[
        bool | None,
        typer.Option(
            "--prove-undo/--no-prove-undo",
            help="Undo each run in the rehearsal and compare.  [default: up to 100,000 rows]",
            show_default=False,
        ),
    ] = None,
    all_rows: AllRows = False,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the report for Finance as a page.")] = None,
    actor: Actor = None,
) -> Answer:
    """Rehearse migrations, backfills and gates; then, unless --dry-run, do the same again and commit."""
    from runner.apply import Plan
    from runner.apply import apply as apply_

    page = call.file(html)
    sink = call.row_sink(all_rows)

    def confirm(report: Report) -> bool:
        return call.confirm("Apply this?", report, partial(draw_findings, changes=not all_rows), yes=yes)

    plan = Plan(
        backfills=tuple(backfills or ()),
        dry_run=dry_run,
        allow_rejects=allow_rejects,
        as_of=as_of,
        accept_taken=accept_taken,
        allow_non_transactional=allow_non_transactional,
        actor=actor,
        every_row=sink.add if sink else None,
        prove_undo=prove_undo,
    )
    report = apply_(call.settings, plan, confirm=confirm, progress=call.progress)
    if report.verdict == "declined" and call.unasked:
        report = replace(report, verdict="not asked")
    if report.verdict in ("declined", "not asked") and call.shown:
        return Answer(report, draw_verdict, file=page, page=html_page)
    draw = partial(draw_report, changes=not all_rows and not call.shown)
    return Answer(report, draw, rows=sink, file=page, page=html_page)
