"""A reconciliation as the page that people sign, and as cases for a build server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from runner.money import NO_CURRENCY, amount, label, money_lines, money_text
from runner.terminal.ci import Case, junit
from runner.terminal.page import Section, Sheet, sheet_page
from runner.terminal.report import row_words
from runner.text import counted

if TYPE_CHECKING:
    from runner.reconciliation.reconcile import Reconciliation


def reconciliation_page(found: Reconciliation) -> bytes:
    """What both sides hold, and where they differ."""
    differ = [item for item in found.classes if item.is_finding]
    agreed = found.verdict != "differences"
    against = f"the ledger {found.ledger.name}" if found.ledger else "itself"
    sections = [Section(
        "Measures", "Rows and money by currency and status.", ("measure", "currency", "status", "rows", "amount"),
        [[m.name, m.currency or "not known", m.status, f"{m.rows:,}", amount(m.cents, m.currency or NO_CURRENCY)]
         for m in found.measures], (3, 4),
    )]  # fmt: skip
    if found.ledger:
        sections.insert(0, Section(
            "Classes", "Every line of the ledger and every invoice is in one class.",
            ("class", "lines", "ledger", "invoices", "database"),
            [[c.name, f"{c.ledger_rows:,}", money_lines(c.ledger_money), f"{c.db_rows:,}", money_lines(c.db_money)]
             for c in found.classes], (1, 2, 3, 4),
        ))  # fmt: skip
    if found.findings:
        headings = ("class", "line", "entry", "invoice", "ledger", "database")
        sections.append(Section("Findings", "A sample of each class.", headings, [
            [f["class"], str(f.get("line", "")), str(f.get("ledger_id") or ""),
             str(f.get("ledger_number") or f.get("db_number") or ""), _side(f, "ledger"), _side(f, "db")]
            for f in found.findings
        ]))  # fmt: skip
    return sheet_page(Sheet(
        title="Reconciliation",
        headline={"reported": "Reported.", "reconciled": "Ledger and database agree."}.get(
            found.verdict, "Ledger and database differ."),
        colour="green" if agreed else "red",
        sentence=f"Billing was compared with {against}: " + (
            f"{counted(len(differ), 'kind')} of differences found." if differ else "no difference was found."),
        where=found.database,
        sections=sections,
        signatures=[("ledger, sha256", found.ledger.sha256)] if found.ledger else [],
    ))  # fmt: skip


def cases_of_reconciliation(found: Reconciliation) -> list[Case]:
    """A reconciliation as cases: the ledger can be read, and each class that must be empty is."""
    cases = [Case("billing holds invoices")]
    if found.ledger is not None:
        count = found.ledger.rejects
        cases.append(
            Case("every line of the ledger can be read", f"{counted(count, 'line')} rejected" if count else "")
        )
    for item in found.classes:
        text = (
            f"{item.name}: {counted(item.ledger_rows, 'line')} of {money_text(item.ledger_money) or 'nothing'}, "
            f"{counted(item.db_rows, 'invoice')} of {money_text(item.db_money) or 'nothing'}"
        )
        rows = tuple(
            row_words({name: value for name, value in row.items() if value is not None and name != "class"})
            for row in found.findings if row["class"] == item.name
        )  # fmt: skip
        cases.append(Case(item.name, text, rows) if item.is_finding else Case(item.name))
    return cases


def reconciliation_junit(found: Reconciliation) -> bytes:
    """A reconciliation as JUnit XML."""
    return junit("reconcile", cases_of_reconciliation(found))


def _side(finding: dict[str, Any], side: str) -> str:
    cents = finding.get(f"{side}_cents")
    currency = finding.get(f"{side}_currency")
    return "" if cents is None else f"{amount(cents, currency or NO_CURRENCY)} {label(currency or NO_CURRENCY)}".strip()
