"""`runner reconcile`: what both sides hold, and where they differ."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from runner.errors import UsageError
from runner.money import NO_CURRENCY, add_money, amount, money_lines
from runner.reconciliation.pages import cases_of_reconciliation, reconciliation_junit, reconciliation_page
from runner.terminal import ci
from runner.terminal.output import escape, styled, table
from runner.terminal.report import row_words
from runner.terminal.verb import AllowRejects, Answer, Call, verb

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from runner.reconciliation.reconcile import ClassTotals, Reconciliation


@verb(system="reconciliation")
def reconcile(
    call: Call,
    ledger: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Finance's ledger; header as docs/sample_ledger_template.csv.")
    ] = None,
    tolerance: Annotated[int, typer.Option(min=0, metavar="CENTS", help="Amounts so close count as equal.")] = 0,
    allow_rejects: AllowRejects = 0,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Write it as a page to be signed.")] = None,
    junit: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the classes as JUnit XML.")] = None,
    store_failures: Annotated[bool, typer.Option(help="Keep the findings in backfill.comparison_finding.")] = False,
) -> Answer:
    """Compare invoices with Finance's ledger, both ways, without writing to billing."""
    from runner.reconciliation import reconcile as reconcile_

    if ledger is None and (tolerance or allow_rejects or store_failures):
        raise UsageError("--tolerance, --allow-rejects and --store-failures need --ledger FILE")
    files = [
        (call.file(junit), reconciliation_junit),
        (call.file(html), reconciliation_page),
    ]
    found = reconcile_.reconcile(
        call.settings,
        ledger=ledger,
        tolerance=tolerance,
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
    out.print(f"\n[bold]{escape(found.ledger.name)}[/] ({state}, {found.ledger.rejects:,} lines rejected)")
    rows = [
        (_class(c), f"{c.ledger_rows:,}", money_lines(c.ledger_money), f"{c.db_rows:,}", money_lines(c.db_money))
        for c in found.classes
    ]
    total = (
        "total",
        f"{sum(c.ledger_rows for c in found.classes):,}",
        money_lines(add_money(*(c.ledger_money for c in found.classes))),
        f"{sum(c.db_rows for c in found.classes):,}",
        money_lines(add_money(*(c.db_money for c in found.classes))),
    )
    out.print(table("class", ">lines", ">ledger", ">invoices", ">database", rows=[*rows, total]))
    if found.findings:
        out.print("\nFindings, a sample of each class")
        out.print(table("class", ">line", "entry", "invoice", "in the ledger", "in the database", rows=(
            (f["class"], f.get("line", ""), f.get("ledger_id", ""), f.get("ledger_number") or f.get("db_number", ""),
             _side(f, "ledger"), _side(f, "db"))
            for f in found.findings
        )))  # fmt: skip
    if found.comparison_id is not None:
        out.print(f"\nKept as comparison {found.comparison_id} in backfill.comparison_finding.")
    out.print(
        "\n[bold green]Ledger and database agree.[/]"
        if found.verdict == "reconciled"
        else "\n[bold red]Ledger and database differ.[/]"
    )


def _class(totals: ClassTotals) -> Text:
    return styled(totals.name, "red" if totals.is_finding else "")


def _side(finding: dict[str, Any], side: str) -> str:
    """What one side has of that in which the two differ; the amount where nothing else does."""
    field = finding["class"].removesuffix(" differs")
    if field in ("date", "status"):
        return str(finding.get(f"{side}_{field}", ""))
    cents = finding.get(f"{side}_cents")
    currency = finding.get(f"{side}_currency")
    return "" if cents is None else f"{amount(cents, currency or NO_CURRENCY)} {currency or '(no currency)'}"


def _row(row: dict[str, object]) -> str:
    return escape(row_words({name: value for name, value in row.items() if not name.endswith("invoice_id")}))
