"""`runner load invoices`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast, get_args

import typer

from runner.errors import UsageError
from runner.terminal.load import draw_load
from runner.terminal.verb import Actor, AllowRejects, Answer, Call, DryRun, verb

if TYPE_CHECKING:
    from rich.console import Console

    from runner.invoices.catalogue import PaidAs
    from runner.invoices.documents import Stored
    from runner.invoices.load import InvoicesLoaded


@verb(system="invoices")
def load_invoices(
    call: Call,
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
    paid_as: Annotated[
        str,
        typer.Option(metavar="MEANING", help="Paid or void rows: reject; outstanding: owed as a whole; or paid."),
    ] = "reject",
    allow_rejects: AllowRejects = 0,
    dry_run: DryRun = False,
    actor: Actor = None,
) -> Answer:
    """The catalogue of historical invoices; afterwards `runner apply invoices` writes them."""
    from runner.invoices.load import load_invoices as load_invoices_

    loaded = load_invoices_(
        call.settings,
        catalogue,
        lines=lines,
        aliases=aliases,
        originals=documents,
        company=company,
        first_wins=first_wins,
        paid_as=_paid_as(paid_as),
        dry_run=dry_run,
        allow_rejects=allow_rejects,
        actor=actor,
    )
    code = _exit_code(loaded.documents, allow_rejects)
    return Answer(loaded, partial(draw_loaded, originals=documents), exit_code=code)


def _paid_as(value: str) -> PaidAs:
    from runner.invoices import catalogue

    known = get_args(catalogue.PaidAs)
    if value not in known:
        raise UsageError(f"--paid-as {value}: {' or '.join(known)}")
    return cast("PaidAs", value)


def _exit_code(documents: Stored | None, allowed: int) -> int:
    if documents is None:
        return 0
    if documents.failed:
        return 1
    return 3 if len(documents.missing) > allowed else 0


def draw_loaded(loaded: InvoicesLoaded, out: Console, *, originals: Path | None) -> None:
    """The rows, and the originals where a folder of them was given."""
    draw_load(loaded.load, out)
    left_out = max((file.left_out for file in loaded.load.skipped), default=0)
    if left_out and not loaded.load.files:
        out.print(f"{left_out:,} rejects were left out then: load what you have mended from a file of its own")
    if loaded.documents is None:
        return
    kept = loaded.documents
    out.print(f"Originals: {kept.stored} stored, {kept.found} found in the store, {len(kept.failed)} failed")
    for problem in kept.failed:
        out.print(f"  {problem}", markup=False)
    if kept.missing:
        out.print(f"{len(kept.missing)} missing: put them into {originals}, then the same again", markup=False)
        for problem in kept.missing:
            out.print(f"  {problem}", markup=False)
