"""`runner report`: a past run as the page that people keep."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from runner.terminal.complete import RUN
from runner.terminal.log import draw_run
from runner.terminal.sheets import run_page
from runner.terminal.verb import Answer, Call, verb

if TYPE_CHECKING:
    from runner.log import RunDetail


@verb()
def report(
    call: Call,
    run: Annotated[str, RUN],
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Write it as a page.")] = None,
) -> Answer:
    """One past run: what it wrote, by month and by whom it is about, who approved it, and its place in the chain."""
    from runner.log import report_run

    file = call.file(html)
    rows = call.page_rows(html, None)
    found = report_run(call.settings, run, every_row=rows.add if rows else None)

    def page(shown: RunDetail) -> bytes:
        return run_page(shown, rows.kept if rows else None, rows.write() if rows else "")

    return Answer(found, draw_run, file=file, page=page)
