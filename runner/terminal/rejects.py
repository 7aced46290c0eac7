"""`runner rejects`: which source rows cannot be taken, and why."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from runner.money import amount, label, money_text
from runner.terminal.complete import BACKFILLS
from runner.terminal.output import escape, table
from runner.terminal.page_rows import cell, to_csv
from runner.terminal.verb import Answer, Call, verb
from runner.text import counted, json_text, plain

if TYPE_CHECKING:
    from rich.console import Console

    from runner.rejects import Rejects


@verb()
def rejects(
    call: Call,
    backfills: Annotated[list[str] | None, BACKFILLS] = None,
    to_csv: Annotated[Path | None, typer.Option("--csv", metavar="FILE", help="Write them as CSV.")] = None,
) -> Answer:
    """Source rows that backfills cannot take, with the reason and the amount; and those that runs left out."""
    from runner.rejects import rejects as rejects_

    file = call.file(to_csv)
    return Answer(rejects_(call.settings, backfills or ()), draw_rejects, file=file, page=as_csv)


def draw_rejects(found: Rejects, out: Console) -> None:
    """A table for each backfill that has any."""
    out.print(f"[dim]{escape(found.database)}[/]")
    names = list(dict.fromkeys(row.backfill for row in found.rows))
    if not names:
        out.print("No source row is rejected.")
    for name in names:
        rows = [row for row in found.rows if row.backfill == name]
        out.print(f"\n[bold]{escape(name)}[/]: {counted(len(rows), 'source row')} that cannot be taken")
        out.print(table("source row", "reason", ">amount", "left out by", rows=(
            (f"{row.source} {row.source_key if row.line is None else f'line {row.line}'}", row.reason,
             money_text(row.money), (row.run or "")[:8])
            for row in rows
        )))  # fmt: skip


def as_csv(found: Rejects) -> bytes:
    """One line a row, for a spreadsheet: what begins as a formula does stands behind an apostrophe."""
    lines = []
    for row in found.rows:
        currency, minor = next(iter(row.money.items())) if row.money else ("", None)
        shown = amount(minor, currency).replace(",", "")
        cells = [row.backfill, row.source, row.source_key, row.line or "", row.reason]
        lines.append([
            *map(cell, cells), shown, label(currency), row.run or "", cell(json_text(plain(row.payload))),
        ])  # fmt: skip
    headings = ["backfill", "source", "key", "line", "reason", "amount", "currency", "left_out_by", "payload"]
    return to_csv(headings, lines)
