"""Backfills billing_profiles and payment_links: what is certain is written, the rest is named with its candidates."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import psycopg
import pytest

from runner import apply as apply_
from runner import gates
from runner.settings import Settings
from runner.systems import SYSTEMS
from tests.engine.words import Connection, do, reverse, rows, value

ONE, TWO = UUID(int=1), UUID(int=2)
ADA, BOB = UUID(int=0xADA), UUID(int=0xB0B)


def ident(name: str) -> UUID:
    """A fixed id for an invoice, payment or profile of a story."""
    return UUID(bytes=name.encode().rjust(16, b"\0"))


@pytest.fixture
def billing(conn: Connection) -> Connection:
    """Two companies, customers Ada and Bob of the first."""
    for company in (ONE, TWO):
        conn.execute("insert into billing.companies (id, name) values (%s, %s)", [company, str(company)])
        conn.execute("insert into billing.facilities (id, company_id, name) values (%s, %s, 'F')", [company, company])
    for customer, name in ((ADA, "Ada"), (BOB, "Bob")):
        conn.execute("insert into billing.customers (id, company_id, name) values (%s, %s, %s)", [customer, ONE, name])
    conn.commit()
    return conn


def invoice(
    conn: Connection, number: str, *, customer: UUID | None = ADA, cents: int = 10_000, day: str = "2026-01-10",
    currency: str | None = "USD", status: str = "sent", company: UUID = ONE,
) -> UUID:  # fmt: skip
    conn.execute(
        "insert into billing.invoices (id, company_id, facility_id, invoice_number, period_start, period_end, status,"
        " sent_at, total_cents, currency, customer_id) values (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
        [ident(number), company, company, number, day, day, status, f"{day} 12:00Z", cents, currency, customer],
    )
    return ident(number)


def profile(
    conn: Connection, name: str, *, customer: UUID = ADA, currency: str = "USD", start: str = "2026-01-01",
    end: str | None = None,
) -> UUID:  # fmt: skip
    conn.execute(
        "insert into billing.billing_profiles (id, company_id, customer_id, name, currency, valid_from, valid_to)"
        " values (%s, %s, %s, %s, %s, %s, %s)",
        [ident(name), ONE, customer, name, currency, start, end],
    )
    return ident(name)


def payment(
    conn: Connection, name: str, reference: str | None = None, *, customer: UUID | None = ADA, cents: int = 10_000,
    day: str = "2026-01-20", currency: str = "USD", status: str = "succeeded", company: UUID = ONE,
) -> UUID:  # fmt: skip
    conn.execute(
        "insert into billing.payments (id, company_id, customer_id, amount_cents, currency, status, reference, paid_at)"
        " values (%s, %s, %s, %s, %s, %s, %s, %s)",
        [ident(name), company, customer, cents, currency, status, reference, f"{day} 12:00Z"],
    )
    return ident(name)


def run(conn: Connection, backfill: str, rejects: int = 0) -> Any:
    log = rows(conn, "select run_id, status, metrics from backfill.run(%s, '{}', %s)", [backfill, rejects])[0]
    conn.commit()
    return log


def links(conn: Connection) -> dict[UUID, UUID]:
    return dict(rows(conn, "select id, invoice_id from billing.payments where invoice_id is not null"))


def states(conn: Connection) -> dict[str, tuple[str, int]]:
    """Status and open amount by invoice number."""
    found = rows(conn, "select invoice_number, status, open_cents from billing.invoice_balances")
    return {number: (status, cents) for number, status, cents in found}


def doubts(conn: Connection, name: str) -> list[tuple[str | None, str]]:
    """Candidates of a payment under review, best first."""
    return rows(
        conn,
        "select invoice_number, doubt from billing.payment_review where payment_id = %s order by rank",
        [ident(name)],
    )


# ---- billing profiles


def test_an_invoice_gets_the_only_profile_that_fits(billing: Connection) -> None:
    usd = profile(billing, "usd", end="2026-01-31")
    profile(billing, "cad", currency="CAD")
    later = profile(billing, "later", start="2026-02-01")
    profile(billing, "bob", customer=BOB)
    invoice(billing, "A", day="2026-01-01")
    invoice(billing, "B", day="2026-01-31")
    invoice(billing, "C", day="2026-02-01")
    billing.commit()
    assert value(billing, "select due_rows from backfill.due('{billing_profiles}')") == 3
    run(billing, "billing_profiles")
    found = dict(rows(billing, "select invoice_number, billing_profile_id from billing.invoices"))
    assert found == {"A": usd, "B": usd, "C": later}
    assert value(billing, "select due_rows from backfill.due('{billing_profiles}')") == 0


def test_none_or_several_are_rejected_with_their_candidates(billing: Connection) -> None:
    profile(billing, "cad", currency="CAD")
    profile(billing, "one", customer=BOB)
    profile(billing, "two", customer=BOB)
    invoice(billing, "NONE")
    invoice(billing, "SEVERAL", customer=BOB)
    invoice(billing, "UNKNOWN", currency=None)
    invoice(billing, "NOBODY", customer=None)
    billing.commit()
    with pytest.raises(psycopg.Error, match="3 source rows cannot be taken"):
        run(billing, "billing_profiles")
    billing.rollback()
    run(billing, "billing_profiles", rejects=3)
    found = rows(
        billing, "select payload ->> 'invoice', reason, payload -> 'candidates' from backfill.reject order by 1"
    )
    assert [(row[0], row[1]) for row in found] == [
        ("NONE", "no billing profile of the customer fits invoice NONE (USD, issued 2026-01-10)"),
        ("SEVERAL", "2 billing profiles fit invoice SEVERAL"),
        ("UNKNOWN", "the currency of invoice UNKNOWN is not known"),
    ]
    assert [[item["profile"] for item in row[2]] for row in found] == [["cad"], ["one", "two"], ["cad"]]
    assert value(billing, "select count(*) from billing.invoices where billing_profile_id is not null") == 0


def test_the_view_of_assignments_serves_the_runbooks_rollback(billing: Connection) -> None:
    usd = profile(billing, "usd")
    invoice(billing, "A")
    invoice(billing, "B")
    billing.commit()
    log = run(billing, "billing_profiles")
    view = "select invoice_number, billing_profile_id, run_id, reason from billing._backfill_profiles order by 1"
    why = f"the only profile of customer {ADA} in USD valid on 2026-01-10"
    assert rows(billing, view) == [("A", usd, log[0], why), ("B", usd, log[0], why)]
    assert value(
        billing, "select bool_and(assigned_at is not null and actor is not null) from billing._backfill_profiles"
    )
    # Somebody has corrected A since: the rollback leaves it alone.
    other = profile(billing, "other")
    billing.execute("update billing.invoices set billing_profile_id = %s where invoice_number = 'A'", [other])
    do(
        billing,
        "select backfill.begin_run('take automated profiles back')",
        "update billing.invoices as i set billing_profile_id = null from billing._backfill_profiles as b"
        " where i.id = b.invoice_id and i.billing_profile_id = b.billing_profile_id",
        "select backfill.finish_run()",
    )
    billing.commit()
    assert rows(billing, "select invoice_number, billing_profile_id from billing.invoices order by 1") == [
        ("A", other), ("B", None),
    ]  # fmt: skip
    assert rows(billing, view) == []  # neither stands any more


def test_a_reversal_takes_the_assignments_and_the_view_back(billing: Connection) -> None:
    profile(billing, "usd")
    invoice(billing, "A")
    billing.commit()
    log = run(billing, "billing_profiles")
    assert reverse(billing, log[0]) == {"restored": 1}
    assert rows(billing, "select * from billing._backfill_profiles") == []
    assert value(billing, "select billing_profile_id from billing.invoices") is None


# ---- payment links


def test_a_number_in_the_reference_is_certain_as_a_whole_token_only(billing: Connection) -> None:
    a, b = invoice(billing, "INV-14"), invoice(billing, "INV-1499", cents=5_000)
    named = payment(billing, "p1", "Payment for inv-14, thanks", cents=9_999)
    longer = payment(billing, "p2", "ref:INV-1499.", cents=5_000)
    payment(billing, "p4", "xINV-14x", cents=77)
    payment(billing, "p5", "INV-14", cents=77, status="failed")
    billing.commit()
    run(billing, "payment_links")
    assert links(billing) == {named: a, longer: b}
    assert doubts(billing, "p4") == [
        (None, "no invoice is named, and none has this customer, currency and open amount")
    ]
    assert doubts(billing, "p5") == []


def test_the_amount_is_certain_where_it_is_the_only_one_in_the_window(billing: Connection) -> None:
    only = invoice(billing, "ONLY", cents=111)
    invoice(billing, "CAD", cents=111, currency="CAD")
    invoice(billing, "BOB", cents=111, customer=BOB)
    invoice(billing, "OLD", cents=111, day="2025-01-01")
    invoice(billing, "VOID", cents=111, status="void")
    invoice(billing, "DRAFT", cents=111, status="draft")
    found = payment(billing, "p1", "thank you", cents=111)
    payment(billing, "p2", None, cents=222)
    billing.commit()
    assert value(billing, "select metrics ->> 'linked_by_amount' from backfill.run('payment_links')") == "1"
    assert links(billing) == {found: only}


@pytest.mark.parametrize(
    ("reference", "change", "doubt"),
    [
        ("A B", {}, "the reference names 2 invoices"),
        ("A", {"currency": "CAD"}, "another currency"),
        ("A", {"customer": BOB}, "another customer"),
        ("A", {"cents": 10_001}, "more than is open"),
        ("A", {"customer": None}, "the customer of one of them is not known"),
        ("", {"day": "2026-01-09"}, "not within 92 days of issue; 0 invoices"),
        ("", {}, "2 invoices of this amount"),
    ],
)
def test_what_is_uncertain_goes_to_review(
    billing: Connection, reference: str, change: dict[str, Any], doubt: str
) -> None:
    invoice(billing, "A")
    invoice(billing, "B")
    payment(billing, "p", reference, **change)
    billing.commit()
    run(billing, "payment_links")
    assert links(billing) == {}
    first = doubts(billing, "p")[0]
    assert first[0] == "A"
    assert doubt.split(";")[0] in first[1]


def test_payments_that_together_exceed_an_invoice_go_to_review(billing: Connection) -> None:
    invoice(billing, "A", cents=100)
    payment(billing, "p", "A", cents=60)
    payment(billing, "q", "A", cents=60)
    invoice(billing, "B", cents=77)
    payment(billing, "r", cents=77)
    payment(billing, "s", cents=77)
    billing.commit()
    run(billing, "payment_links")
    assert links(billing) == {}
    assert doubts(billing, "p") == [("A", "several payments name it and together exceed it")]
    assert doubts(billing, "r") == [("B", "2 payments could be for it")]


def test_candidates_are_ranked_the_named_one_first(billing: Connection) -> None:
    invoice(billing, "NAMED", cents=50)
    invoice(billing, "NEAR", cents=70, day="2026-01-19")
    invoice(billing, "FAR", cents=70, day="2026-01-01")
    payment(billing, "p", "for NAMED", cents=70)
    billing.commit()
    assert [row[0] for row in doubts(billing, "p")] == ["NAMED", "NEAR", "FAR"]


def test_checks_and_earlier_links_count_as_covered(billing: Connection) -> None:
    a = invoice(billing, "A", cents=100)
    billing.execute(
        "insert into billing.check_payments (id, company_id, facility_id, check_number, received_on, amount_cents)"
        " values (%s, %s, %s, '7', '2026-01-11', 40)", [ONE, ONE, ONE],
    )  # fmt: skip
    billing.execute(
        "insert into billing.check_payment_applications (company_id, check_payment_id, invoice_id, amount_cents)"
        " values (%s, %s, %s, 40)", [ONE, ONE, a],
    )  # fmt: skip
    payment(billing, "p", "A", cents=61)
    fits = payment(billing, "q", cents=60)
    billing.commit()
    assert value(billing, "select uncovered_cents from billing.uncovered_invoices") == 60
    do(billing, "delete from billing.payments where amount_cents = 61")
    run(billing, "payment_links")
    assert links(billing) == {fits: a}
    assert value(billing, "select uncovered_cents from billing.uncovered_invoices") == 0


def test_a_link_that_leaves_one_candidate_is_followed_in_the_same_run(billing: Connection) -> None:
    a, b = invoice(billing, "A", cents=100), invoice(billing, "B", cents=100)
    named = payment(billing, "p", "A", cents=100)
    then = payment(billing, "q", cents=100)
    billing.commit()
    assert value(billing, "select count(*) from backfill.payment_links_due") == 1
    run(billing, "payment_links")
    assert links(billing) == {named: a, then: b}
    assert value(billing, "select count(*) from backfill.payment_links_due") == 0


# ---- a person's decision


def test_a_person_links_a_payment_as_an_audited_run(billing: Connection) -> None:
    a = invoice(billing, "A")
    invoice(billing, "B")
    p = payment(billing, "p")
    billing.commit()
    for _ in range(2):  # twice is a no-op
        billing.execute("select billing.link_payment(%s, %s, 'the customer said so')", [p, a])
        billing.commit()
    assert links(billing) == {p: a}
    log = rows(billing, "select run_id, backfill, mode, status, subject ->> 'reason' from backfill.backfill_log")
    assert [row[1:] for row in log] == [
        ("payment applied to A: the customer said so", "manual", "succeeded", "the customer said so")
    ]
    assert states(billing)["A"] == ("paid", 0)
    assert reverse(billing, log[0][0]) == {"restored": 3}
    assert links(billing) == {}
    assert states(billing)["A"] == ("sent", 10_000)


def test_a_link_joins_the_run_that_is_open(billing: Connection) -> None:
    a, p = invoice(billing, "A"), payment(billing, "p")
    billing.execute("select backfill.begin_run('the review of January')")
    billing.execute("select billing.link_payment(%s, %s, 'sure')", [p, a])
    billing.execute("select backfill.finish_run()")
    billing.commit()
    assert rows(billing, "select backfill from backfill.backfill_log") == [("the review of January",)]


@pytest.mark.parametrize(
    ("invoice_change", "payment_change", "why"),
    [
        ({"company": TWO, "customer": None}, {}, "two companies"),
        ({"customer": BOB}, {}, "two customers"),
        ({"currency": "CAD"}, {}, "in USD, the invoice in CAD"),
        ({"currency": None}, {}, "a currency not known"),
        ({"status": "void"}, {}, "it is void"),
        ({"cents": -5}, {}, "it is a credit, no invoice"),
        ({}, {"status": "failed"}, "it failed or was refunded"),
    ],
)
def test_a_link_that_cannot_be_is_refused(
    billing: Connection, invoice_change: dict[str, Any], payment_change: dict[str, Any], why: str
) -> None:
    a, p = invoice(billing, "A", **invoice_change), payment(billing, "p", **payment_change)
    with pytest.raises(psycopg.Error, match=why) as caught:
        billing.execute("select billing.link_payment(%s, %s, 'x')", [p, a])
    assert caught.value.sqlstate == "BF033"


def test_a_link_needs_a_reason_a_payment_and_none_that_stands(billing: Connection) -> None:
    a, b, p = invoice(billing, "A"), invoice(billing, "B"), payment(billing, "p")
    call = "select billing.link_payment(%s, %s, %s)"
    billing.commit()
    with pytest.raises(psycopg.Error, match="needs a reason"), billing.transaction():
        billing.execute(call, [p, a, " "])
    with pytest.raises(psycopg.Error, match="there is no payment") as caught, billing.transaction():
        billing.execute(call, [a, a, "x"])
    assert caught.value.sqlstate == "BF009"
    billing.execute(call, [p, a, "x"])
    with pytest.raises(psycopg.Error, match="nothing of it is left"):
        billing.execute(call, [p, b, "x"])


# ---- through the runner, with their gates


def test_the_runner_applies_both_with_their_gates(billing: Connection, settings: Settings) -> None:
    profile(billing, "usd")
    a = invoice(billing, "A")
    p = payment(billing, "p", "A")
    billing.commit()
    plan = apply_.Plan(backfills=("billing_profiles", "payment_links"))
    report = apply_.apply(settings, plan, confirm=lambda _: True, progress=lambda _: None)
    assert report.verdict == "applied"
    assert {gate.status for gate in report.attempt.gates} == {"pass"}
    assert len(report.attempt.gates) == 7
    assert links(billing) == {p: a}


DEFECTS = {
    "invoices_with_a_profile_that_does_not_fit": ["update billing.billing_profiles set currency = 'EUR'"],
    "invoices_whose_profile_was_not_the_only_one": [
        "update billing.billing_profiles set currency = 'USD'",
    ],
    "profiles_assigned_on_nothing": [
        "alter table backfill_audit.billing_invoices disable trigger user",
        "delete from backfill_audit.billing_invoices where operation = 'U'",
        "alter table backfill_audit.billing_invoices_row disable trigger user",
        "delete from backfill_audit.billing_invoices_row where operation = 'U'",
    ],
    "payments_linked_across_customers_or_currencies": ["update billing.payments set currency = 'CAD'"],
    "invoices_paid_more_than_their_total": ["update billing.application_entries set amount_cents = 10001"],
}


@pytest.mark.parametrize("gate", DEFECTS)
def test_each_gate_sees_its_defect_and_passes_without_it(billing: Connection, gate: str) -> None:
    profile(billing, "usd")
    profile(billing, "cad", currency="CAD")
    invoice(billing, "A")
    payment(billing, "p", "A")
    billing.commit()
    run(billing, "billing_profiles")
    run(billing, "payment_links")
    compiled = gates.compile(Settings(systems=SYSTEMS))
    names = ["billing_profiles", "payment_links"]
    assert {r.name: r.status for r in gates.run(billing, compiled, names)} == dict.fromkeys(DEFECTS, "pass")
    do(billing, *DEFECTS[gate])
    failed = {r.name: r.failures for r in gates.run(billing, compiled, names) if r.status != "pass"}
    assert failed == {gate: 1}
