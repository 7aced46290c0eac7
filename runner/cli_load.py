"""`runner load …`: files into staging. Each command is one call into the module of its name."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from runner.cli import (
    Actor,
    Config,
    DatabaseUrl,
    Debug,
    DryRun,
    Json,
    output,
    print_json,
    reporting_errors,
    settings_of,
)

if TYPE_CHECKING:
    from rich.console import Console

    from runner.load import LoadResult
    from runner.load_rent_history import LoadedSnapshot

app = typer.Typer(name="load", help="Load files into staging; loading a file twice is a no-op.", no_args_is_help=True)

AllowRejects = Annotated[int, typer.Option(min=0, metavar="N", help="Rows or files that may be left out.")]


@app.callback()
def load() -> None:
    """Load files into staging; loading a file twice is a no-op."""


@app.command()
@reporting_errors
def invoices(
    catalogue: Annotated[Path, typer.Argument(metavar="FILE.csv", help="Number, dates, client, total: a row each.")],
    lines: Annotated[Path | None, typer.Option(metavar="FILE", help="Lines of the invoices, a second CSV.")] = None,
    documents: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder with <number>.pdf, to be stored after the commit.")
    ] = None,
    aliases: Annotated[Path | None, typer.Option(metavar="FILE", help="CSV: client, facility.")] = None,
    company: Annotated[
        str | None, typer.Option(metavar="NAME", help="Whose invoices, where there are several.")
    ] = None,
    first_wins: Annotated[bool, typer.Option("--first-wins", help="Of a number given twice, take the first.")] = False,
    allow_rejects: AllowRejects = 0,
    dry_run: DryRun = False,
    actor: Actor = None,
    as_json: Json = False,
    database_url: DatabaseUrl = None,
    config: Config = None,
    debug: Debug = False,
) -> None:
    """The catalogue of historical invoices; afterwards `runner apply invoices` writes them."""
    from runner.load_invoices import load_invoices

    result = load_invoices(
        settings_of(database_url, config),
        catalogue,
        lines=lines,
        aliases=aliases,
        originals=documents,
        company=company,
        first_wins=first_wins,
        dry_run=dry_run,
        allow_rejects=allow_rejects,
        actor=actor,
    )
    if as_json:
        print_json(result)
    else:
        out = output()
        draw_load(result.load, out)
        left_out = max((file.left_out for file in result.load.skipped), default=0)
        if left_out and not result.load.files:
            out.print(f"{left_out:,} rejects were left out then: load what you have mended from a file of its own")
        if result.documents is not None:
            kept = result.documents
            out.print(f"Originals: {kept.stored} stored, {kept.found} found in the store, {len(kept.failed)} failed")
            for problem in kept.failed:
                out.print(f"  {problem}", markup=False)
            if kept.missing:
                out.print(f"{len(kept.missing)} missing: put them into {documents}, then the same again", markup=False)
                for problem in kept.missing:
                    out.print(f"  {problem}", markup=False)
    if result.documents is None:
        return
    if result.documents.failed:
        raise typer.Exit(1)
    raise typer.Exit(3 if len(result.documents.missing) > allow_rejects else 0)


@app.command("rent-history")
@reporting_errors
def rent_history(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Directory with YYYY_MM_vN.json files.")],
    accept: Annotated[
        list[str] | None, typer.Option(metavar="FILE", help="Name of a suspect file that is right (repeatable).")
    ] = None,
    dry_run: DryRun = False,
    allow_rejects: AllowRejects = 0,
    as_json: Json = False,
    database_url: DatabaseUrl = None,
    config: Config = None,
    debug: Debug = False,
) -> None:
    """Rent calculations, every version of every month."""
    from runner.load_rent_history import load_rent_history

    loaded = load_rent_history(
        settings_of(database_url, config), directory, accept=accept or (), dry_run=dry_run, allow_rejects=allow_rejects
    )
    if as_json:
        print_json(loaded)
        return
    draw_load(loaded.result, output())
    _draw_snapshots(loaded.snapshots)
    for name in loaded.ignored:
        sys.stderr.write(f"not looked at: {name}\n")


@app.command()
@reporting_errors
def electricity(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Text file of bills under `# Provider` headings.")],
    dry_run: DryRun = False,
    allow_rejects: AllowRejects = 0,
    as_json: Json = False,
    database_url: DatabaseUrl = None,
    config: Config = None,
    debug: Debug = False,
) -> None:
    """Electricity bills of both providers."""
    from runner.load_electricity import load_electricity

    result = load_electricity(settings_of(database_url, config), file, dry_run=dry_run, allow_rejects=allow_rejects)
    if as_json:
        print_json(result)
        return
    draw_load(result, output())


def draw_load(result: LoadResult, out: Console) -> None:
    """What a load did, for people."""
    for file in result.skipped:
        out.print(f"{file.name} was loaded before", markup=False)
    if not result.files:
        return
    for file in result.files:
        out.print(f"{file.name} ({file.bytes:,} bytes)", markup=False)
    out.print(f"{result.rows:,} rows taken, {result.rejects:,} rejected")
    for reject in result.sample:
        out.print(f"  {reject}", markup=False)
    if result.dry_run:
        out.print("Rehearsed and rolled back: nothing was changed.")
    elif result.run_id is not None:
        out.print(f"Staged. To undo:\n  runner rollback {result.run_id}", markup=False)


def _draw_snapshots(snapshots: tuple[LoadedSnapshot, ...]) -> None:
    if not snapshots:
        return
    from runner.report import table

    output().print(table("month", ">version", "", "remarks", rows=(
        (s.period, str(s.version), "counts" if s.counts else "history",
         "; ".join([*(f"accepted: {reason}" for reason in s.accepted), *s.remarks]))
        for s in sorted(snapshots, key=lambda s: (s.period, s.version))
    )))  # fmt: skip
