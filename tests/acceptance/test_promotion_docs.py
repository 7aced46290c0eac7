"""The SQL recipes of the pages of system 4 run as they stand."""

from __future__ import annotations

import re

import pytest

from runner.settings import ROOT
from tests.integration.engine import Connection, do, rows, value
from tests.integration.test_billing_corrections import billing, invoice, payment, profile, run

__all__ = ["billing"]


def recipes(page: str) -> list[str]:
    """The SQL blocks of a page."""
    text = (ROOT / "docs" / "backfills" / page).read_text(encoding="utf-8")
    return re.findall(r"^```sql\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


@pytest.fixture
def corrected(billing: Connection) -> Connection:
    profile(billing, "usd")
    invoice(billing, "A")
    payment(billing, "p", cents=7)
    billing.commit()
    run(billing, "billing_profiles")
    return billing


def test_the_rollback_of_billing_profiles(corrected: Connection) -> None:
    corrected.autocommit = True
    do(corrected, recipes("billing_profiles.md")[0])
    assert value(corrected, "select billing_profile_id from billing.invoices") is None
    assert value(corrected, "select count(*) from backfill.backfill_log where mode = 'manual'") == 1


def test_requiring_profiles(corrected: Connection) -> None:
    corrected.autocommit = True
    for statement in recipes("billing_profiles.md")[1].strip().split("\n"):
        do(corrected, statement)
    state = "select convalidated from pg_constraint where conname = 'invoices_profile_of_customer'"
    assert rows(corrected, state) == [(True,)]


def test_the_list_for_review(corrected: Connection) -> None:
    [query] = recipes("payment_links.md")
    assert [row[1:3] for row in rows(corrected, query)] == [(1, None)]
