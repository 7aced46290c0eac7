"""`runner load` and `runner verify`, of rent calculations and electricity bills."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from runner.terminal.load import draw_load
from runner.terminal.output import table
from runner.terminal.progress import say
from runner.terminal.verb import AllowRejects, Answer, Call, DryRun, verb

if TYPE_CHECKING:
    from rich.console import Console

    from runner.rent.load import RentHistoryLoad
    from runner.rent.verify import Verification

Directory = Annotated[Path, typer.Argument(metavar="DIR", help="Directory with YYYY_MM_vN.json files.")]
Bills = Annotated[Path, typer.Argument(metavar="FILE", help="Text file of bills under `# Provider` headings.")]


@verb(system="rent")
def load_rent_history(
    call: Call,
    directory: Directory,
    accept: Annotated[
        list[str] | None, typer.Option(metavar="FILE", help="Name of a suspect file that is right (repeatable).")
    ] = None,
    dry_run: DryRun = False,
    allow_rejects: AllowRejects = 0,
) -> Answer:
    """Rent calculations, every version of every month."""
    from runner.rent import load

    loaded = load.load_rent_history(
        call.settings, directory, accept=accept or (), dry_run=dry_run, allow_rejects=allow_rejects
    )
    return Answer(loaded, draw_rent_history)


def draw_rent_history(loaded: RentHistoryLoad, out: Console) -> None:
    """The files, and of each month which version counts."""
    draw_load(loaded.result, out)
    if loaded.calculations:
        out.print(table("month", ">version", "use", "remarks", rows=(
            (s.period, str(s.version), "counts" if s.counts else "history",
             "; ".join([*(f"accepted: {reason}" for reason in s.accepted), *s.remarks]))
            for s in sorted(loaded.calculations, key=lambda s: (s.period, s.version))
        )))  # fmt: skip
    for name in loaded.ignored:
        say(f"not looked at: {name}")


@verb(system="rent")
def load_electricity(call: Call, file: Bills, dry_run: DryRun = False, allow_rejects: AllowRejects = 0) -> Answer:
    """Electricity bills of both providers."""
    from runner.rent import load

    return Answer(load.load_electricity(call.settings, file, dry_run=dry_run, allow_rejects=allow_rejects), draw_load)


@verb(system="rent")
def verify_rent_history(call: Call, directory: Directory) -> Answer:
    """Rent calculations: every value in rent.calculation, and what counts in the ledger."""
    from runner.rent import verify

    return Answer(verify.verify_rent_history(call.settings, directory), draw_verification)


@verb(system="rent")
def verify_electricity(call: Call, file: Bills) -> Answer:
    """Electricity bills: every line in rent.electricity_bills."""
    from runner.rent import verify

    return Answer(verify.verify_electricity(call.settings, file), draw_verification)


def draw_verification(found: Verification, out: Console) -> None:
    """What is not proved, and whether the files may go."""
    for finding in found.findings:
        database = f", in the database: {finding.in_database}" if finding.state == "differs" else ""
        line = f"{finding.file} {finding.where} {finding.state}: {finding.in_file}{database}"
        out.print(line, markup=False, soft_wrap=True)
    for name in found.ignored:
        out.print(f"not looked at: {name}", markup=False)
    if found.proved:
        count = len(found.files)
        files = "1 file" if count == 1 else f"{count:,} files"
        out.print(
            f"All {found.values:,} values of {files} are in the database. "
            f"{'This file' if count == 1 else 'These files'} may be deleted."
        )
    else:
        out.print(f"{len(found.findings):,} of {found.values:,} values are not proved: keep the files.")
