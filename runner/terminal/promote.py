"""`runner promote`: the checklist on the terminal, and the sheet that Finance signs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from runner.errors import UsageError
from runner.terminal.output import escape, styled, table
from runner.terminal.sheets import promotion_page
from runner.terminal.verb import Answer, Call, verb
from runner.text import clean

if TYPE_CHECKING:
    from rich.console import Console

    from runner.promote import Promotion

_MARKUP: Final = re.compile(r"[\\`*{}\[\]<>#+!|~&]|(?<!\w)_|_(?!\w)")
_STATES: Final = {"green": "green", "waived": "yellow", "red": "red"}


@verb()
def promote(
    call: Call,
    stage: Annotated[
        str, typer.Option(metavar="NAME", help="What it is promoted to; named on the sheet.")
    ] = "production",
    sheet: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the sign-off sheet (Markdown).")] = None,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Write it as a page to be signed.")] = None,
    snapshot_hours: Annotated[int, typer.Option(min=1, metavar="HOURS", help="How old the snapshot may be.")] = 24,
) -> Answer:
    """Prove the promotion checklist line by line; exit 0 only when none is red."""
    from runner.promote import promote as promote_

    if sheet is not None and html is not None:
        raise UsageError("--sheet and --html are the same sheet, in Markdown and as a page: give one of them")
    file = call.file(sheet or html)
    found = promote_(call.settings, stage=stage, snapshot_hours=snapshot_hours, progress=call.progress)
    page = promotion_page if html is not None else lambda shown: sign_off_sheet(shown).encode()
    return Answer(found, draw_promotion, file=file, page=page)


def draw_promotion(found: Promotion, out: Console) -> None:
    """The checklist, what is in the way, the verdict."""
    out.print(f"[dim]{escape(found.database)} · PostgreSQL {escape(found.server)} · {escape(found.checked_at)}[/]\n")
    out.print(table("", "line", "what was found", rows=(
        (styled(line.state, _STATES[line.state]), line.name, line.message) for line in found.lines
    )))  # fmt: skip
    for line in found.lines:
        for detail in line.details:
            out.print(f"  [{_STATES[line.state]}]{escape(line.name)}[/]: {escape(' '.join(detail.split()))}")
    out.print(
        f"\n[bold green]Ready for {escape(found.stage)}.[/]"
        if found.green
        else f"\n[bold red]Not ready for {escape(found.stage)}.[/]"
    )


def sign_off_sheet(found: Promotion) -> str:
    """The sign-off sheet for Finance, in Markdown; whatever others wrote stands in it as its own letters."""
    marks = {"green": "✓", "waived": "waived", "red": "✗"}
    lines = [
        f"# Promotion to {_text(found.stage)}: {'ready' if found.green else 'not ready'}",
        "",
        f"{_text(found.database)} · PostgreSQL {_text(found.server)} · {found.checked_at}",
        "",
        "| | line | what was found |",
        "|---|---|---|",
        *(f"| {marks[line.state]} | {_text(line.name)} | {_text(line.message)} |" for line in found.lines),
    ]
    for line in found.lines:
        if line.details:
            lines += ["", f"## {_text(line.name)}", "", *(f"- {_text(detail)}" for detail in line.details)]
    if found.waivers:
        lines += ["", "## Waivers", "", "| test | until | by | why |", "|---|---|---|---|"]
        lines += [
            f"| {_text(w.test)} | {_text(w.until)} | {_text(w.actor)} | {_text(w.reason)} |" for w in found.waivers
        ]
    lines += ["", "## Signed", "", "| role | name | date | signature |", "|---|---|---|---|"]
    lines += [f"| {role} | | | |" for role in ("Finance", "Operations")]
    return "\n".join(lines) + "\n"


def _text(text: str) -> str:
    """On one line, without markup: no cell, heading, link or tag of the sheet is anybody's but its own."""
    return _MARKUP.sub(r"\\\g<0>", clean(" ".join(text.split())))
