"""`runner waive`: who answers for a failing gate or due rows, until when and why."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from runner.errors import UsageError
from runner.terminal.verb import Actor, Answer, Call, day, verb

if TYPE_CHECKING:
    from rich.console import Console

    from runner.promote import Waiver


@verb()
def waive(
    call: Call,
    test: Annotated[str, typer.Argument(metavar="TEST", help="A gate, or a backfill whose due rows are waived.")],
    until: Annotated[str, typer.Option(metavar="DATE", help="Last day on which it holds, YYYY-MM-DD.")],
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Why; it is on the sheet that Finance signs.")],
    actor: Actor = None,
) -> Answer:
    """Let promotion pass a failing gate or due rows until a day; kept for good."""
    from runner import gates
    from runner.promote import waive as waive_

    last = day("--until", until)
    known = {name for gate in gates.compile(call.settings) for name in (gate.name, *gate.backfills)}
    if test not in known:
        raise UsageError(f"there is no gate or backfill {test}")
    return Answer(waive_(call.settings, test, until=last.isoformat(), reason=reason, actor=actor), draw_waiver)


def draw_waiver(given: Waiver, out: Console) -> None:
    """What is waived."""
    out.print(f"{given.test} is waived until {given.until} by {given.actor}: {given.reason}", markup=False)
