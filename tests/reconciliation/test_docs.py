"""The SQL recipes of the pages of system 4 run as they stand."""

from __future__ import annotations

import re

import pytest

from tests.engine.words import Connection, do, rows, value
from tests.place import ROOT
from tests.reconciliation.test_corrections import billing, invoice, payment, profile, run

__all__ = ["billing"]


def recipes(page: str) -> list[str]:
    """The SQL blocks of a page."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    return re.findall(r"^```sql\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


@pytest.fixture
def corrected(billing: Connection) -> Connection:
    profile(billing, "usd")
    invoice(billing, "A")
    payment(billing, "p", cents=7)
    billing.commit()
    run(billing, "billing_profiles")
    return billing


def test_the_comparison_in_the_sql_editor(corrected: Connection) -> None:
    found = rows(corrected, recipes("reconciliation.md")[0])
    # No line of such a file is staged: the invoice, if it is of those days, is missing.
    assert {row[0] for row in found} <= {"missing in the ledger"}
    text = recipes("reconciliation.md")[0].replace("2026-01-01", "-infinity").replace("2026-01-31", "infinity")
    assert [row[0] for row in rows(corrected, text)] == ["missing in the ledger"]


def test_the_rollback_of_billing_profiles(corrected: Connection) -> None:
    corrected.autocommit = True
    do(corrected, recipes("reconciliation.md")[3])
    assert value(corrected, "select billing_profile_id from billing.invoices") is None
    assert value(corrected, "select count(*) from backfill.backfill_log where mode = 'manual'") == 1


def test_requiring_profiles(corrected: Connection) -> None:
    corrected.autocommit = True
    for statement in recipes("reconciliation.md")[4].strip().split("\n"):
        do(corrected, statement)
    state = "select convalidated from pg_constraint where conname = 'invoices_profile_of_customer'"
    assert rows(corrected, state) == [(True,)]


def test_the_list_for_review(corrected: Connection) -> None:
    query = recipes("reconciliation.md")[5]
    assert [row[1:3] for row in rows(corrected, query)] == [(1, None)]


def test_the_page_of_constraints_and_policies(corrected: Connection) -> None:
    """Every statement of it runs; the switches do what the page says of them."""
    corrected.autocommit = True
    secured = "select count(*) from pg_class where relrowsecurity and relnamespace = 'billing'::regnamespace"
    validate, switches = recipes("reconciliation.md")[1:3]
    assert {row[2] for row in rows(corrected, validate)} <= {"valid", "validated"}
    on, off, prepare = switches.strip().split("\n")
    assert value(corrected, secured) == 0
    assert len(rows(corrected, on)) == value(corrected, secured) > 10
    assert len(rows(corrected, off)) > 10
    do(corrected, prepare)
    assert value(corrected, secured) == 0


def test_no_statement_of_the_pages_is_outside_of_a_block() -> None:
    """What stands indented as a command would not be run by a test."""
    for page in ("promotion.md", "reconciliation.md"):
        text = (ROOT / "docs" / page).read_text(encoding="utf-8")
        assert re.findall(r"^    (?:select|update|insert|delete|begin)\b.*$", text, re.MULTILINE) == []
