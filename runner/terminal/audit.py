"""`runner verify audit`, `runner audit export` and `audit restore`: is the evidence whole, and where is it kept."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from runner.terminal.output import escape, table
from runner.terminal.verb import Actor, Answer, Call, Yes, day, verb
from runner.text import clean, counted, size

if TYPE_CHECKING:
    from rich.console import Console

    from runner.evidence import Export, Restored, Verification


@verb()
def verify_audit(
    call: Call,
    anchor: Annotated[
        str | None, typer.Option(metavar="HASH", help="A head of the chain that was kept elsewhere: N:hash, or hash.")
    ] = None,
) -> Answer:
    """The chain of all runs, every image, and the engine's own functions and guards."""
    from runner import evidence

    call.progress("verifying the chain")
    return Answer(evidence.verify(call.settings, anchor), draw_verification)


def draw_verification(found: Verification, out: Console) -> None:
    """What does not hold; or that all of it does, and the anchor to keep."""
    out.print(f"[dim]{escape(found.database)} · PostgreSQL {escape(found.server)} · {escape(found.checked_at)}[/]")
    for wrong in found.findings:
        where = [f"link {wrong.link}"] if wrong.link is not None else []
        where += [f"run {wrong.run_id}"] if wrong.run_id is not None else []
        out.print(
            ": ".join([", ".join(where), clean(wrong.wrong)] if where else [clean(wrong.wrong)]),
            markup=False,
            soft_wrap=True,
        )
    if found.findings:
        out.print(f"[bold red]Broken[/]: {counted(len(found.findings), 'finding')} in {counted(found.links, 'link')}.")
        out.print("docs/evidence.md says what each means, and what to do first.")
        return
    out.print(
        f"[bold green]Whole[/]: {counted(found.links, 'link')}, {counted(found.runs, 'run')}, each image and each "
        f"function as it was written."
    )
    out.print("Not looked at: owners and grants, event triggers, and the rows of catalog, tracked and trusted_owner.")
    if not found.anchored:
        out.print("[yellow]No anchor was given[/]: links that were cut off at the end would not be missed.")
    out.print(f"Head, the anchor to keep:\n  {found.head}", markup=False, soft_wrap=True)


@verb()
def export_audit(
    call: Call,
    before: Annotated[str, typer.Option("--before", metavar="DATE", help="Runs that ended before this day, in UTC.")],
    directory: Annotated[Path, typer.Option(metavar="DIR", help="Where the files go, one a run.")] = Path("audit"),
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list the runs.")] = False,
    yes: Yes = False,
    actor: Actor = None,
) -> Answer:
    """Old runs' images into files; here they are removed once the files are proved to hold them."""
    from runner import evidence

    def confirm(found: Export) -> bool:
        return call.confirm("Export these, and remove their images here?", found, draw_export, yes=yes)

    done = evidence.export(
        call.settings, day("--before", before), directory,
        dry_run=dry_run, confirm=confirm, progress=call.progress, actor=actor,
    )  # fmt: skip
    if done.verdict == "declined" and call.unasked:
        done = replace(done, verdict="not asked")
    return Answer(done, draw_export)


def draw_export(done: Export, out: Console) -> None:
    """A line a run, and how it ended."""
    if done.runs and done.verdict != "declined":
        out.print(table("run", "ended", "what", ">rows", ">bytes", "file", rows=(
            (str(run.run_id)[:8], f"{run.completed_at:%Y-%m-%d}", run.backfill, f"{run.rows:,}",
             size(run.bytes) if run.file else "", Path(run.file).name) for run in done.runs
        )))  # fmt: skip
    count = counted(len(done.runs), "run")
    if done.verdict == "exported":
        out.print(
            f"{count} exported to {escape(str(Path(done.runs[0].file).parent))}: not reversible here until restored."
        )
        out.print(f"Chain {done.head}", markup=False, soft_wrap=True)
    elif done.verdict == "nothing to export":
        out.print(f"No run that ended before {done.before} has images here.", markup=False)
    elif done.verdict != "listed":
        out.print(
            "Not exported: " + ("you said no." if done.verdict == "declined" else "nobody was asked: give --yes.")
        )


@verb()
def restore_audit(
    call: Call,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A file that `audit export` wrote.")],
    actor: Actor = None,
) -> Answer:
    """An exported run's images back from its file, after checking them."""
    from runner import evidence

    call.progress("checking the file")
    return Answer(evidence.restore(call.settings, file, actor=actor), draw_restored)


def draw_restored(done: Restored, out: Console) -> None:
    """Which run is back."""
    out.print(f"Run {done.run_id} ({escape(done.backfill)}) is back, to the byte: it can be undone again.")
    for warning in done.warnings:
        out.print(f"[yellow]{escape(clean(warning))}[/]")
    out.print(f"Chain {done.head}", markup=False, soft_wrap=True)
