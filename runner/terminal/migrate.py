"""`runner migrate`: pending migrations alone, each in a short transaction of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runner.terminal.output import escape, table
from runner.terminal.verb import Answer, Call, DryRun, verb

if TYPE_CHECKING:
    from rich.console import Console

    from runner.migrate import Migrated


@verb()
def migrate(call: Call, dry_run: DryRun = False) -> Answer:
    """Apply pending migrations alone, each in a short transaction of its own: nobody waits for long."""
    from runner.migrate import migrate as migrate_

    return Answer(migrate_(call.settings, dry_run=dry_run, progress=call.progress), draw_migrated)


def draw_migrated(found: Migrated, out: Console) -> None:
    """Each migration with its indexes and locks, and what comes next."""
    from runner.terminal.report import strongest

    out.print(f"[dim]{escape(found.database)} · PostgreSQL {escape(found.server)}[/]")
    if found.steps:
        out.print()
        out.print(table("migration", "locks on tables that others use", ">tries", ">s", rows=(
            (step.migration, "; ".join(f"{lock.table}: {lock.mode}" for lock in strongest(step.locks)) or "none",
             step.tries, f"{step.seconds:.2f}")
            for step in found.steps
        )))  # fmt: skip
    built = [index for step in found.steps for index in step.indexes]
    if built:
        out.print("\n[bold]Indexes[/], built concurrently before their migration")
        out.print(table("index", "table", ">s", "", rows=(
            (index.name, index.table, f"{index.seconds:.2f}",
             "an invalid one was dropped first" if index.instead_of_invalid else "")
            for index in built
        )))  # fmt: skip
    for step in found.steps:
        for note in step.notes:
            out.print(f"[yellow]{escape(step.migration)}[/]: {escape(note)}")
    for note in found.notes:
        out.print(f"[yellow]{escape(note)}[/]")
    for misfit in found.misfits:
        out.print(f"\n[bold red]{escape(str(misfit))}[/]")
    if found.verdict == "nothing pending":
        out.print("\n[green]No migration is pending.[/]")
    elif found.verdict == "rehearsed":
        out.print("\n[cyan]Rehearsed and rolled back: nothing was changed.[/] To do it: the same without --dry-run.")
    else:
        out.print("\n[bold green]Migrated and committed, one by one.[/] Next: runner apply --dry-run")
