"""`runner load invoices` and `runner statement`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast, get_args

import typer

from runner.errors import UsageError
from runner.money import NO_CURRENCY, amount
from runner.terminal.load import draw_load
from runner.terminal.output import escape, table
from runner.terminal.page_rows import cell, to_csv
from runner.terminal.verb import Actor, AllowRejects, Answer, Call, DryRun, day, verb

if TYPE_CHECKING:
    from rich.console import Console

    from runner.invoices.catalogue import PaidAs
    from runner.invoices.documents import Stored
    from runner.invoices.load import InvoicesLoaded
    from runner.invoices.statement import Statement


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


@verb(system="invoices")
def statement(
    call: Call,
    debtor: Annotated[
        str | None,
        typer.Argument(metavar="DEBTOR", help="A facility or customer, by name or id; default: the aging of all."),
    ] = None,
    since: Annotated[
        str | None,
        typer.Option("--from", metavar="DATE", help="First day of the account; default: from the beginning."),
    ] = None,
    until: Annotated[
        str | None, typer.Option("--to", metavar="DATE", help="As of the end of this day; default: today.")
    ] = None,
    by: Annotated[str, typer.Option(metavar="WHO", help="Aging by facility or customer.")] = "facility",
    to_csv: Annotated[Path | None, typer.Option("--csv", metavar="FILE", help="Write it as CSV.")] = None,
) -> Answer:
    """Who owes what since when; or the account of one debtor, as of any day."""
    from runner.invoices.statement import statement as statement_

    if by not in ("facility", "customer"):
        raise UsageError(f"--by {by}: facility or customer")
    if debtor is None and since is not None:
        raise UsageError("--from is for the account of a debtor: name one")
    file = call.file(to_csv)
    found = statement_(
        call.settings,
        debtor,
        since=None if since is None else day("--from", since),
        until=None if until is None else day("--to", until),
        by=by,
    )
    return Answer(found, draw_statement, file=file, page=statement_csv)


def draw_statement(found: Statement, out: Console) -> None:
    """A line for each debtor and currency, or for each move."""
    out.print(f"[dim]{escape(found.database)}[/]\n")
    if found.debtor is None:
        from runner.invoices.statement import AGES

        out.print(f"[bold]Open at the end of {found.until}[/], by days past the due date")
        if not found.aging:
            out.print("Nothing is open.")
            return
        lines = [(row.debtor or "not known", row.currency, [*row.ages, row.open_cents]) for row in found.aging]
        for code in dict.fromkeys(row.currency for row in found.aging):
            columns = zip(*(cents for _, own, cents in lines if own == code), strict=True)
            lines.append(("total", code, [sum(column) for column in columns]))
        out.print(table("debtor", "currency", *(f">{age}" for age in AGES), ">open", rows=(
            (debtor, code or "not known", *(amount(minor, code or NO_CURRENCY) for minor in cents))
            for debtor, code, cents in lines
        )))  # fmt: skip
        return
    span = f"from {found.since} to {found.until}" if found.since else f"to {found.until}"
    out.print(f"[bold]{escape(found.debtor)}[/] {span}")
    if not found.moves:
        out.print("Nothing was ever billed.")
        return
    out.print(table("day", "what", "document", "currency", ">amount", ">balance", rows=(
        ("" if move.document is None and found.since is None else move.day, move.what, move.document or "",
         move.currency or "not known", amount(move.amount_cents, move.currency or NO_CURRENCY),
         amount(move.balance_cents, move.currency or NO_CURRENCY))
        for move in found.moves
    )))  # fmt: skip


def statement_csv(found: Statement) -> bytes:
    """One line for each debtor and currency, or for each move; amounts in units."""

    def units(cents: int, currency: str | None) -> str:
        return amount(cents, currency or NO_CURRENCY).replace(",", "")

    if found.debtor is None:
        from runner.invoices.statement import AGES

        return to_csv(
            ["debtor", "currency", "invoices", *AGES, "open"],
            [
                [cell(row.debtor or ""), row.currency or "", str(row.invoices),
                 *(units(cents, row.currency) for cents in [*row.ages, row.open_cents])]
                for row in found.aging
            ],
        )  # fmt: skip
    return to_csv(
        ["day", "what", "document", "currency", "amount", "balance"],
        [
            [str(move.day), move.what, cell(move.document or ""), move.currency or "",
             units(move.amount_cents, move.currency), units(move.balance_cents, move.currency)]
            for move in found.moves
        ],
    )  # fmt: skip
