"""Real loans as mortgages, their standing orders as schedules, their payments as the history: the figures, stated."""

from __future__ import annotations

import csv
from collections import Counter, defaultdict

import psycopg
import pytest

from runner import gates
from runner.settings import Settings
from runner.systems import SYSTEMS
from tests.lending.book import Book, Row
from tests.place import ROOT

DATA = ROOT.parent / "shared" / "data" / "household"


def read(name: str) -> list[dict[str, str]]:
    with (DATA / name).open(newline="") as file:
        return list(csv.DictReader(file))


def dollars(cents: str) -> str:
    return f"{int(cents) // 100}.{int(cents) % 100:02}"


@pytest.fixture(scope="module")
def compiled() -> gates.Gates:
    return gates.compile(Settings(systems=SYSTEMS))


@pytest.fixture
def book(conn: psycopg.Connection) -> Book:
    """An account is a customer, a loan a mortgage of it, an order for a loan a schedule, a payment a transaction of the
    account's one schedule; where an account has none, of no schedule."""
    if not DATA.exists():
        pytest.skip("the household data is not beside this project (../shared/data/household)")
    book = Book(conn)
    loans, orders, payments = read("loans.csv"), read("loan_orders.csv"), read("loan_payments.csv")
    for loan in loans:
        book.mortgage(
            f"L-{loan['loan_id']}", int(loan["account_id"]), int(loan["payment_cents"]), f"account {loan['account_id']}"
        )
    by_account: dict[int, list[Row]] = defaultdict(list)
    for order in orders:
        by_account[int(order["account_id"])].append(
            {"id": order["order_id"], "amount": dollars(order["amount_cents"]), "frequency": "Monthly",
             "process_date": "1993-01-01", "next_process_date": "1999-01-12"}
        )  # fmt: skip
    accounts = sorted({int(row["account_id"]) for row in [*loans, *orders, *payments]})
    book.fetch(
        customers=[{"id": account, "name": f"account {account}"} for account in accounts],
        schedules=by_account,
        transactions=[
            {
                "id": payment["trans_id"],
                "customer_id": payment["account_id"],
                "transaction_schedule_id": schedules[0]["id"] if schedules else None,
                "amount": dollars(payment["amount_cents"]),
                "status": "Approved",
                "process_date": payment["paid_on"],
                "settlement_date": payment["paid_on"],
            }
            for payment in payments
            for schedules in [by_account.get(int(payment["account_id"]), [])]
        ],
    )
    book.conn.commit()
    return book


def test_359_of_682_loans_get_one_exact_suggestion_the_others_a_ranked_one_and_none_is_linked(book: Book) -> None:
    loans = book.rows("select * from lending.mortgages_without_schedule")
    assert Counter(row["exact_suggestions"] for row in loans) == {1: 359, 0: 323}
    # The others' orders are of another amount: the customer's own order still comes first.
    ranked = book.rows(
        "select s.same_customer, s.same_amount from lending.mortgages_without_schedule as m"
        " join lending.link_suggestions as s on s.mortgage_id = m.mortgage_id"
        " and s.schedule_id = (m.suggested_schedules -> 0)::bigint"
        " where m.exact_suggestions = 0"
    )
    assert Counter((row["same_customer"], row["same_amount"]) for row in ranked) == {(True, False): 323}
    assert book.value("select count(*) from lending.unlinked_schedules") == 717
    assert book.value("select count(*) from lending.mortgages where rotessa_schedule_id is not null") == 0
    assert book.value("select count(*) from lending.runs where backfill = 'link_schedule'") == 0
    assert book.value("select count(*) from lending.payments_due") == 0


def test_linking_the_359_gives_the_48_payments_that_belong_to_them_at_their_dates(
    book: Book, compiled: gates.Gates
) -> None:
    exact = book.rows("select schedule_id, mortgage_number from lending.link_suggestions where exact")
    assert len(exact) == 359
    for row in exact:
        book.link(row["schedule_id"], row["mortgage_number"])
    run = book.backfill()
    assert (run["status"], run["metrics"]["payments"], run["metrics"]["cents"]) == ("succeeded", 48, 19_079_400)

    linked = {row["mortgage_number"] for row in exact}
    loan_of = {loan["account_id"]: f"L-{loan['loan_id']}" for loan in read("loans.csv")}
    wanted = {
        (
            loan_of[payment["account_id"]],
            f"rotessa:tx:{payment['trans_id']}",
            int(payment["amount_cents"]),
            payment["paid_on"],
        )
        for payment in read("loan_payments.csv")
        if loan_of[payment["account_id"]] in linked
    }
    got = book.rows(
        "select m.number, p.source_reference, p.amount_cents, (t.effective_at at time zone 'UTC')::text as at"
        " from lending.payments as p join lending.mortgages as m on m.id = p.mortgage_id"
        " join ledger.transactions as t on t.id = p.ledger_transaction_id"
    )
    assert {(row["number"], row["source_reference"], row["amount_cents"], row["at"]) for row in got} == {
        (loan, reference, cents, f"{day} 00:00:00") for loan, reference, cents, day in wanted
    }
    assert len({row["number"] for row in got}) == 14

    balances = book.balances()
    assert sum(balances.values()) == 0  # the trial balance
    assert balances["world"] == -19_079_400
    assert {cents for account, cents in balances.items() if account.startswith("borrower:")} == {0}
    assert book.balances("1993-07-11 23:59:59Z") == {}
    assert {result.name: result.status for result in gates.run(book.conn, compiled, ["lending_payments"])} == {
        gate.name: "pass" for gate in compiled if "lending_payments" in gate.backfills
    }
