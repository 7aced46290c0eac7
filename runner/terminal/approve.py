"""`runner approve`: say yes, or no, to what a plan writes."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from runner.money import money_text
from runner.terminal.output import escape
from runner.terminal.verb import Answer, Call, Yes, verb
from runner.text import counted

if TYPE_CHECKING:
    from rich.console import Console

    from runner.approve import Decision


@verb()
def approve(
    call: Call,
    plan: Annotated[
        str,
        typer.Argument(metavar="PLAN", help="A file of --save-plan, or a signature that a rehearsal showed."),
    ],
    remark: Annotated[str, typer.Option("--remark", metavar="TEXT", help="Why; kept with your login.")] = "",
    refuse: Annotated[bool, typer.Option("--refuse", help="Say no: nothing like it is committed.")] = False,
    yes: Yes = False,
) -> Answer:
    """Approve what a plan writes, or refuse it: as a login in backfill_approver, and not the one that writes."""
    from runner.approve import approve as approve_

    def confirm(shown: Decision) -> bool:
        return call.confirm(question(shown, refuse), shown, draw_shown, yes=yes)

    said = approve_(call.settings, plan, remark, approved=not refuse, confirm=confirm)
    if said.verdict == "declined" and call.unasked:
        said = replace(said, verdict="not asked")
    return Answer(said, partial(draw_decision, before=not call.shown))


def question(shown: Decision, refuse: bool) -> str:
    """What a yes says, with the facts."""
    what = "these changes"
    if shown.rows:
        what = counted(shown.rows, "row") + (f", {money_text(shown.money)}" if shown.money else "")
    return f"{'Refuse' if refuse else 'Approve'} {what}, in {shown.where}?"


def draw_shown(shown: Decision, out: Console) -> None:
    """What it is about."""
    out.print(f"[dim]{escape(shown.where)}[/]")
    for backfill, signature in shown.signatures.items():
        out.print(f"{escape(backfill)} {escape(signature)}".strip(), soft_wrap=True)
    if shown.rows:
        worth = f", {money_text(shown.money)}" if shown.money else ""
        out.print(f"{counted(shown.rows, 'row')}{escape(worth)}; rehearsed {escape(shown.made_at)}")


def draw_decision(said: Decision, out: Console, *, before: bool = True) -> None:
    """What was said, and for how long it holds."""
    if before:
        draw_shown(said, out)
    if said.verdict == "approved":
        out.print(f"[bold green]Approved[/] until {escape(said.expires_at)}, for one run by another login.")
    elif said.verdict == "refused":
        out.print("[bold yellow]Refused[/]: nothing with these changes is committed until this login approves it.")
    elif said.verdict == "not asked":
        out.print("[bold red]Nobody was asked (no terminal): give --yes. Nothing was said.[/]")
    else:
        out.print("[bold yellow]Nothing was said.[/]")
