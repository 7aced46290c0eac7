"""`runner reconcile`: what both sides hold, and where they differ."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from runner.errors import UsageError
from runner.money import NO_CURRENCY, amount, money_lines
from runner.reconciliation.pages import (
    cases_of_reconciliation,
    line_words,
    reconciliation_junit,
    reconciliation_page,
    side_words,
    words_of_columns,
)
from runner.terminal import ci
from runner.terminal.output import escape, styled, table
from runner.terminal.report import row_words
from runner.terminal.verb import AllowRejects, Answer, Call, day, verb

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from runner.reconciliation.reconcile import ClassTotals, Reconciliation


_TOO_MUCH: Final = Decimal(10) ** 15
"""Whole units: what no amount of a ledger reaches."""


@verb(system="reconciliation")
def reconcile(
    call: Call,
    ledger: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Finance's ledger; header as docs/sample_ledger_template.csv.")
    ] = None,
    since: Annotated[
        str | None, typer.Option("--from", metavar="DATE", help="Only what is dated on this day or later.")
    ] = None,
    until: Annotated[
        str | None, typer.Option("--to", metavar="DATE", help="Only what is dated on this day or earlier.")
    ] = None,
    as_of: Annotated[
        str | None, typer.Option(metavar="DATE", help="As --to, with statuses as they were at the end of that day.")
    ] = None,
    company: Annotated[str | None, typer.Option(metavar="NAME", help="Only this company: its id or name.")] = None,
    tolerance: Annotated[
        str | None, typer.Option(metavar="AMOUNT", help="Amounts so close count as equal: 0.01 of each currency.")
    ] = None,
    tolerance_total: Annotated[
        str | None, typer.Option(metavar="AMOUNT", help="Up to so much in sum. [default: as --tolerance]")
    ] = None,
    allow_rejects: AllowRejects = 0,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Write it as a page to be signed.")] = None,
    junit: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the classes as JUnit XML.")] = None,
    store_failures: Annotated[bool, typer.Option(help="Keep the findings in backfill.comparison_finding.")] = False,
) -> Answer:
    """Compare invoices with Finance's ledger, both ways, without writing to billing."""
    from runner.reconciliation import reconcile as reconcile_

    scope = reconcile_.Scope(
        since=None if since is None else day("--from", since),
        until=None if until is None else day("--to", until),
        as_of=None if as_of is None else day("--as-of", as_of),
        company=company,
        tolerance=_units("--tolerance", tolerance or "0"),
        tolerance_total=None if tolerance_total is None else _units("--tolerance-total", tolerance_total),
    )
    if until is not None and as_of is not None:
        raise UsageError("--to and --as-of both name the last day: give one of them")
    if ledger is None and (scope != reconcile_.Scope() or allow_rejects or store_failures):
        raise UsageError(
            "--from, --to, --as-of, --company, --tolerance, --allow-rejects and --store-failures need --ledger FILE"
        )
    files = [
        (call.file(junit), reconciliation_junit),
        (call.file(html), reconciliation_page),
    ]
    found = reconcile_.reconcile(
        call.settings,
        ledger=ledger,
        scope=scope,
        allow_rejects=allow_rejects,
        store=store_failures,
        progress=call.progress,
    )
    call.tell(ci.tell("runner reconcile", f"{found.verdict}: {found.database}", cases_of_reconciliation(found)))
    return Answer(found, draw_reconciliation, files=files)


def draw_reconciliation(found: Reconciliation, out: Console) -> None:
    """Measures, classes, a sample of the findings, the verdict."""
    mode = "read-only transaction" if found.read_only else "transaction"
    out.print(f"[dim]{escape(found.database)} · {mode}[/]\n")
    out.print(table("measure", "currency", "status", ">rows", ">amount", rows=(
        (m.name, m.currency or "not known", m.status, f"{m.rows:,}", amount(m.cents, m.currency or NO_CURRENCY))
        for m in found.measures
    )))  # fmt: skip
    if found.ledger is None:
        for name, row in found.samples:
            out.print(f"  [dim]{escape(name)}:[/] {_row(row)}")
        return
    state = "imported" if found.ledger.imported_now else "imported before"
    out.print(f"\n[bold]{escape(found.ledger.name)}[/] ({state})")
    out.print(table("class", ">lines", ">ledger", ">invoices", ">database", rows=(
        (_class(c), f"{c.ledger_rows:,}", money_lines(c.ledger_money), f"{c.db_rows:,}", money_lines(c.db_money))
        for c in (*found.classes, found.total)
    )))  # fmt: skip
    for line in words_of_columns(found):
        out.print(escape(line))
    if found.findings:
        out.print("\nFindings, a sample of each class")
        out.print(table("class", ">line", "entry", "invoice", "in the ledger", "in the database", rows=(
            (f["class"], line_words(f), f.get("ledger_id", ""), f.get("ledger_number") or f.get("db_number", ""),
             side_words(f, "ledger"), side_words(f, "db"))
            for f in found.findings
        )))  # fmt: skip
    if found.comparison_id is not None:
        out.print(f"\nKept as comparison {found.comparison_id} in backfill.comparison_finding.")
    out.print(
        "\n[bold green]Ledger and database agree.[/]"
        if found.verdict == "reconciled"
        else "\n[bold red]Ledger and database differ.[/]"
    )


def _units(option: str, text: str) -> Decimal:
    """An amount in whole units of whatever currency."""
    try:
        units = Decimal(text)
    except ArithmeticError:
        units = Decimal(-1)
    if not (units.is_finite() and 0 <= units < _TOO_MUCH):
        raise UsageError(f"{option} {text}: not an amount such as 0.01")
    return units


def _class(totals: ClassTotals) -> Text:
    return styled(totals.name, "red" if totals.is_finding and totals.name != "total" else "")


def _row(row: dict[str, object]) -> str:
    return escape(row_words({name: value for name, value in row.items() if not name.endswith("invoice_id")}))
