"""`runner apply`: rehearse, show, ask, do."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from runner.errors import SqlError, UsageError
from runner.money import add_money, money_text
from runner.terminal import ci
from runner.terminal.complete import BACKFILLS
from runner.terminal.page import apply_page
from runner.terminal.report import draw_findings, draw_report, draw_verdict
from runner.terminal.sheets import Stopped, rejected_page
from runner.terminal.verb import Actor, AllowRejects, AllRows, Answer, AsOf, Call, DryRun, Yes, verb
from runner.text import clean, cleaned, counted

if TYPE_CHECKING:
    from runner.result import Report


@verb()
def apply(
    call: Call,
    backfills: Annotated[
        list[str] | None,
        BACKFILLS,
    ] = None,
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
    save_plan: Annotated[
        Path | None, typer.Option(metavar="FILE", help="With --dry-run: write what it found, to be signed.")
    ] = None,
    valid_for: Annotated[str, typer.Option(metavar="TIME", help="How long the saved plan holds.")] = "168h",
    plan: Annotated[Path | None, typer.Option(metavar="FILE", help="Do what this saved plan says, or nothing.")] = None,
    expect: Annotated[
        str | None, typer.Option(metavar="SIGNATURE", help="Do what has this signature, or nothing.")
    ] = None,
    all_rows: AllRows = False,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the report for Finance as a page.")] = None,
    junit: Annotated[Path | None, typer.Option(metavar="FILE", help="Write gates and backfills as JUnit XML.")] = None,
    actor: Actor = None,
) -> Answer:
    """Rehearse migrations, backfills and gates; then, unless --dry-run, do the same again and commit."""
    from runner.apply import Plan
    from runner.apply import apply as apply_
    from runner.plan_file import read

    if save_plan is not None and not dry_run:
        raise UsageError("--save-plan writes what a rehearsal found: give --dry-run as well")
    if plan is not None and (backfills or allow_rejects or as_of or expect):
        raise UsageError("--plan says which backfills, as of when, and how many rejects: name none of them beside it")
    if expect is not None and not re.fullmatch("[0-9a-f]{64}", expect):
        raise UsageError("--expect is the signature of a dry run, 64 hexadecimal digits")
    bound = read(plan) if plan is not None else None
    page = call.file(html)
    xml = call.file(junit)
    saved = call.file(save_plan)
    content: list[bytes] = []
    stopped: list[tuple[Any, ...]] = []
    sink = call.row_sink(all_rows)
    rows = call.page_rows(html, sink.add if sink else None)

    def confirm(report: Report) -> bool:
        return call.confirm(question(report), report, partial(draw_findings, changes=not all_rows), yes=yes)

    wanted = Plan(
        backfills=bound.names if bound else tuple(backfills or ()),
        dry_run=dry_run,
        allow_rejects=bound.allow_rejects if bound else allow_rejects,
        as_of=(bound.as_of or None) if bound else as_of,
        bound=bound,
        expect=expect or "",
        save=content.append if saved else None,
        valid=_valid(valid_for),
        accept_taken=accept_taken,
        allow_non_transactional=allow_non_transactional,
        actor=actor,
        every_row=rows.add if rows else sink.add if sink else None,
        by_dimension=html is not None,
        rejected=lambda *found: stopped.append(found),
        prove_undo=prove_undo,
    )
    try:
        report = apply_(call.settings, wanted, confirm=confirm, progress=call.progress)
    except SqlError as exc:
        if exc.sqlstate == "BF004" and stopped:
            where, found = clean(stopped[-1][0]), cleaned(Stopped(*stopped[-1][1:]))
            cases = ci.rejected(found.backfill, found.rejects, found.left_out)
            call.write_beside(page, partial(rejected_page, found, where))
            call.write_beside(xml, partial(ci.junit, "apply", cases))
        raise
    if report.verdict == "declined" and call.unasked:
        report = replace(report, verdict="not asked")

    call.tell(ci.tell_report(report))

    def html_page(shown: Report) -> bytes:
        listed = rows.kept if rows and rows.count else None
        return apply_page(shown, listed, rows.write() if rows else "")

    files = [(page, html_page), (xml, lambda shown: ci.junit("apply", ci.cases_of(shown)))]
    seen = report.verdict in ("declined", "not asked") or (
        # It is what was shown, or it would not be committed; only what was left to others was not on the screen yet.
        report.verdict == "applied" and not any(item.taken for item in report.attempt.backfills)
    )
    if seen and call.shown:
        return Answer(report, draw_verdict, files=files)
    if saved is not None and content:
        saved.write(content[-1])
    draw = partial(draw_report, changes=not all_rows and not call.shown)
    return Answer(report, draw, rows=sink, files=files)


def _valid(text: str) -> timedelta:
    """How long a plan holds."""
    from runner.settings import duration

    try:
        return timedelta(milliseconds=duration(text))
    except ValueError as exc:
        raise UsageError(f"--valid-for {text}: {exc}") from None


def question(report: Report) -> str:
    """What a yes would do, with the facts: how much, and to what, as whom."""
    attempt = report.attempt
    todo = [f"apply {counted(len(attempt.migrations), 'migration')}"] if attempt.migrations else []
    if attempt.backfills:
        money = add_money(*(backfill.due_money for backfill in attempt.backfills))
        rows = counted(sum(backfill.rows for backfill in attempt.backfills), "row")
        todo.append(f"write {rows}{'' if money is None else f', {money_text(money)}'},")
    text = " and ".join(todo)
    return f"{text[:1].upper()}{text[1:]} to {report.where}?"
