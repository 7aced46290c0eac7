"""How a load of files looks, whatever was loaded. The commands are the systems' own: `runner load …`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runner.money import money_text
from runner.text import clean, counted

if TYPE_CHECKING:
    from rich.console import Console

    from runner.load import LoadResult


def draw_load(result: LoadResult, out: Console) -> None:
    """What was taken and what was not, and how to undo it."""
    for file in result.skipped:
        out.print(f"{clean(file.name)} was loaded before", markup=False)
    if not result.files:
        return
    for file in result.files:
        out.print(f"{clean(file.name)} ({file.bytes:,} bytes)", markup=False)
    out.print(f"{counted(result.rows, 'row')} taken, {result.rejects:,} rejected")
    for table in result.tables:
        if table.money:
            out.print(f"  {clean(table.table)}: {clean(money_text(table.money))}", markup=False)
    for reject in result.sample:
        out.print(f"  {clean(str(reject))}", markup=False)
    if result.dry_run:
        out.print("Rehearsed and rolled back: nothing was changed.")
    elif result.run_id is not None:
        out.print(f"Staged. To undo:\n  runner rollback {result.run_id}", markup=False)
