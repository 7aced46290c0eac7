"""How reconcile, waive and promote look on a terminal."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.text import Text

from runner.promote import Promotion
from runner.reconcile import NO_FINDING, Reconciliation
from runner.report import money, table

_STATES = {"green": "green", "waived": "yellow", "red": "red"}


def draw_reconciliation(found: Reconciliation, out: Console) -> None:
    """Measures, classes, a sample of the findings, the verdict."""
    mode = "read-only transaction" if found.read_only else "transaction"
    out.print(f"[dim]{escape(found.database)} · {mode}[/]\n")
    out.print(table("measure", "currency", "status", ">rows", ">amount", rows=(
        (m.name, m.currency or "not known", m.status, f"{m.rows:,}", money(m.cents)) for m in found.measures
    )))  # fmt: skip
    if found.ledger is None:
        for name, row in found.samples:
            out.print(f"  [dim]{name}:[/] {_row(row)}")
        return
    state = "imported" if found.ledger.imported_now else "imported before"
    out.print(f"\n[bold]{escape(found.ledger.name)}[/] ({state}, {found.ledger.rejects:,} lines rejected)")
    rows = [
        (_class(c.name, c.ledger_rows + c.db_rows), f"{c.ledger_rows:,}", money(c.ledger_cents), f"{c.db_rows:,}",
         money(c.db_cents))
        for c in found.classes
    ]  # fmt: skip
    total = (
        "total",
        f"{sum(c.ledger_rows for c in found.classes):,}",
        money(sum(c.ledger_cents for c in found.classes)),
        f"{sum(c.db_rows for c in found.classes):,}",
        money(sum(c.db_cents for c in found.classes)),
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


def _class(name: str, rows: int) -> Text:
    return Text(name, "red" if rows and name not in NO_FINDING else "")


def _side(finding: dict[str, Any], side: str) -> str:
    """What one side has of that in which the two differ; the amount where nothing else does."""
    field = finding["class"].removesuffix(" differs")
    if field in ("date", "status"):
        return str(finding.get(f"{side}_{field}", ""))
    cents = finding.get(f"{side}_cents")
    return "" if cents is None else f"{money(cents)} {finding.get(f'{side}_currency') or '(no currency)'}"


def _row(row: dict[str, object]) -> str:
    shown = {
        key: money(value) if key.endswith("cents") and isinstance(value, int) else str(value)
        for key, value in row.items()
        if not key.endswith("invoice_id")
    }
    return escape(", ".join(f"{key.removesuffix('_cents')} {value}" for key, value in shown.items()))


def draw_promotion(found: Promotion, out: Console) -> None:
    """The checklist, what is in the way, the verdict."""
    out.print(f"[dim]{escape(found.database)} · PostgreSQL {found.server} · {found.checked_at}[/]\n")
    out.print(table("", "line", "what was found", rows=(
        (Text(line.state, _STATES[line.state]), line.name, line.message) for line in found.lines
    )))  # fmt: skip
    for line in found.lines:
        for detail in line.details:
            out.print(f"  [{_STATES[line.state]}]{line.name}[/]: {escape(detail)}")
    out.print(
        f"\n[bold green]Ready for {escape(found.stage)}.[/]"
        if found.green
        else f"\n[bold red]Not ready for {escape(found.stage)}.[/]"
    )
