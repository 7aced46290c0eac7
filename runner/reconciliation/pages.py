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
    kinds = (
        sum(item.is_finding for item in found.classes)
        + bool(found.beyond)
        + bool(found.ledger and found.ledger.rejects)
    )
    agreed = found.verdict != "differences"
    said = f"{counted(kinds, 'kind')} of differences found." if kinds else "no difference was found."
    sections = [Section(
        "Measures", "All of billing, by currency and status.", ("measure", "currency", "status", "rows", "amount"),
        [[m.name, m.currency or "not known", m.status, f"{m.rows:,}", amount(m.cents, m.currency or NO_CURRENCY)]
         for m in found.measures], (3, 4),
    )]  # fmt: skip
    if found.ledger:
        sections.insert(0, Section(
            "Classes",
            " ".join(["Every line of the ledger and every invoice is in one class.", *words_of_columns(found)]),
            ("class", "lines", "ledger", "invoices", "database"),
            [[c.name, f"{c.ledger_rows:,}", money_lines(c.ledger_money), f"{c.db_rows:,}", money_lines(c.db_money)]
             for c in (*found.classes, found.total)], (1, 2, 3, 4),
        ))  # fmt: skip
    if found.findings:
        headings = ("class", "line", "entry", "invoice", "ledger", "database")
        sections.append(Section("Findings", "A sample of each class.", headings, [
            [f["class"], line_words(f), str(f.get("ledger_id") or ""),
             str(f.get("ledger_number") or f.get("db_number") or ""), side_words(f, "ledger"), side_words(f, "db")]
            for f in found.findings
        ]))  # fmt: skip
    return sheet_page(Sheet(
        title="Reconciliation",
        headline={"reported": "Reported.", "reconciled": "Ledger and database agree."}.get(
            found.verdict, "Ledger and database differ."),
        colour="green" if agreed else "red",
        sentence=f"Billing was compared with the ledger {found.ledger.name}: {said}" if found.ledger
            else "Billing was counted; it was compared with no ledger.",
        where=found.database,
        sections=sections,
        signatures=[("ledger, sha256", found.ledger.sha256)] if found.ledger else [],
    ))  # fmt: skip


def words_of_columns(found: Reconciliation) -> list[str]:
    """What was compared; in how many pairs each column differs; by how much those are apart that count as equal."""
    scope = found.scope
    asked = [
        f"from {scope.since}" if scope.since else "",
        f"to {scope.until}" if scope.until else "",
        f"as of {scope.as_of}" if scope.as_of else "",
        f"company {scope.company}" if scope.company else "",
        f"tolerance {scope.tolerance}, in sum {scope.most_apart}" if scope.tolerance else "",
    ]
    columns = [f"{name} in {counted(count, 'pair')}" for name, count in found.columns if count]
    words = [
        f"Compared: {', '.join(word for word in asked if word)}." if any(asked) else "",
        f"Columns that differ: {', '.join(columns)}." if columns else "",
        f"Apart and counted as equal, in sum: {money_text(found.apart)}." if found.apart else "",
        f"That is more than --tolerance-total allows: {money_text(found.beyond)}." if found.beyond else "",
    ]
    ledger = found.ledger
    if ledger is not None and ledger.rejects:
        words.append(f"{counted(ledger.rejects, 'line')} of the ledger could not be taken, and that is a difference.")
    if ledger is not None and ledger.missing_outside:
        words.append(
            f"The ledger is dated {ledger.first} to {ledger.last}, and {counted(ledger.missing_outside, 'invoice')} "
            f"missing in it are not: --from {ledger.first} --to {ledger.last} compares its days alone."
        )
    return [word for word in words if word]


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
    if found.ledger is not None:
        sums = f"{money_text(found.apart) or 'nothing'} is apart and counted as equal"
        cases.append(Case("what is apart stays within the tolerance in sum", sums if found.beyond else ""))
    return cases


def reconciliation_junit(found: Reconciliation) -> bytes:
    """A reconciliation as JUnit XML."""
    return junit("reconcile", cases_of_reconciliation(found))


def side_words(finding: dict[str, Any], side: str) -> str:
    """What one side ("ledger", "db") has of all in which the two differ; the amount where nothing else does."""
    differs = finding.get("differs", ())
    words = [str(finding.get(f"{side}_{name}", "")) for name in differs if name not in ("amount", "currency")]
    cents = finding.get(f"{side}_cents")
    if cents is not None and (not words or {"amount", "currency"} & set(differs)):
        currency = finding.get(f"{side}_currency") or NO_CURRENCY
        words.insert(0, f"{amount(cents, currency)} {label(currency) or '(no currency)'}")
    return ", ".join(words)


def line_words(finding: dict[str, Any]) -> str:
    """The first line of an entry in the file, and how many others there are."""
    more = finding.get("lines", 1) - 1
    return f"{finding.get('line', '')}{f' (+{more})' if more > 0 else ''}"
