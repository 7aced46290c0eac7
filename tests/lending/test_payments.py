"""The backfill of payments: what is due, each item by itself, once whoever writes it, and taken back by chargebacks."""

from __future__ import annotations

import datetime as dt

import psycopg
import pytest

from tests.engine.words import reverse
from tests.lending.book import Book, Row, customer, schedule, transaction

FAR = (dt.datetime.now(dt.UTC).date() + dt.timedelta(days=30)).isoformat()


@pytest.fixture
def book(conn: psycopg.Connection) -> Book:
    return Book(conn)


def due(book: Book) -> dict[str, str]:
    return {
        row["reference"]: row["kind"] for row in book.rows("select * from lending.payments_due order by transaction_id")
    }


def counts(run: Row) -> dict[str, int]:
    return {name: run["metrics"][name] for name in ("payments", "postings", "chargebacks", "failed")}


def test_only_approved_and_settled_rows_of_linked_schedules_are_due(book: Book) -> None:
    book.linked(
        transaction(1),
        transaction(2, status="Future"),
        transaction(3, status="Pending"),
        transaction(4, None),
        transaction(5, status="Declined", status_reason="NSF"),
        transaction(6, FAR),
        transaction(7, transaction_schedule_id=8),
        transaction(8, transaction_schedule_id=None),
        transaction(9, status="Chargeback"),
        transaction(10, "2025-03-03"),
    )
    assert due(book) == {"rotessa:tx:1": "payment", "rotessa:tx:10": "payment"}
    run = book.backfill()
    assert (run["status"], counts(run)) == ("succeeded", {"payments": 2, "postings": 0, "chargebacks": 0, "failed": 0})
    assert book.entries() == {"rotessa:tx:1": "2025-02-03 00:00:00", "rotessa:tx:10": "2025-03-03 00:00:00"}
    assert due(book) == {}


def test_a_backfilled_payment_is_as_the_processor_shows_it_and_comes_in_through_the_borrower(book: Book) -> None:
    mortgage = book.linked(transaction(1, amount="812.34"))
    book.backfill()
    payment = book.payment("rotessa:tx:1")
    wanted = {"mortgage_id": mortgage, "amount_cents": 81_234, "status": "approved", "origin": "backfill"}
    assert {name: payment[name] for name in wanted} == wanted
    assert payment["rotessa_customer_id"] == 1
    assert (payment["process_date"], payment["settlement_date"]) == (dt.date(2025, 2, 1), dt.date(2025, 2, 3))
    lines = book.rows(
        "select line_no, account, asset, amount from ledger.postings where transaction_id = %s order by line_no",
        payment["ledger_transaction_id"],
    )
    assert [tuple(row.values()) for row in lines] == [
        (1, "world", "CAD/2", -81_234),
        (2, "borrower:1:rotessa", "CAD/2", 81_234),
        (3, "borrower:1:rotessa", "CAD/2", -81_234),
        (4, f"mortgage:{mortgage}:trust", "CAD/2", 81_234),
    ]


def test_many_at_once_and_one_by_one_write_the_same_ledger(book: Book) -> None:
    mortgage = book.linked(*(transaction(n, f"2025-02-{n:02}", amount=f"{n}.10") for n in range(1, 6)))

    def entries() -> list[tuple[object, ...]]:
        rows = book.rows(
            "select t.id, t.reference, t.effective_at, p.line_no, p.account, p.asset, p.amount"
            " from ledger.transactions as t join ledger.postings as p on p.transaction_id = t.id"
            " order by t.reference, p.line_no"
        )
        return [tuple(row.values()) for row in rows]

    book.do("savepoint before")
    book.backfill()
    at_once = entries()
    book.do("rollback to savepoint before")
    for n in range(1, 6):
        payment = book.live(n, mortgage, n * 100 + 10, settlement_date=f"2025-02-{n:02}")
        book.row("select * from ledger.record_payment_collection(%s, %s)", payment, f"2025-02-{n:02} 00:00Z")
    assert entries() == at_once
    assert len(at_once) == 20


def test_a_second_run_changes_nothing(book: Book) -> None:
    book.linked(transaction(1), transaction(2))
    first = book.backfill()
    second = book.backfill()
    assert counts(first)["payments"] == 2
    assert (counts(second)["payments"], second["metrics"]["tables"]) == (0, {})


def test_a_payment_of_live_sync_counts_as_there(book: Book) -> None:
    mortgage = book.linked(transaction(1), transaction(2))
    live = book.live(1, mortgage)
    posted = book.row("select * from ledger.record_payment_collection(%s)", live)
    assert due(book) == {"rotessa:tx:2": "payment"}
    book.backfill()
    assert book.value("select count(*) from lending.payments") == 2
    assert book.payment("rotessa:tx:1")["ledger_transaction_id"] == posted["id"]
    assert posted["effective_at"] == posted["recorded_at"]


def test_a_payment_of_live_sync_that_was_not_posted_is_posted_at_its_settlement_date(book: Book) -> None:
    mortgage = book.linked(transaction(1), transaction(2))
    book.live(1, mortgage)
    book.live(2, mortgage, status="pending", settlement_date=None)
    assert set(due(book).values()) == {"posting"}
    assert counts(book.backfill()) == {"payments": 0, "postings": 2, "chargebacks": 0, "failed": 0}
    assert set(book.entries().values()) == {"2025-02-03 00:00:00"}
    assert {row["origin"] for row in book.rows("select origin from lending.payments")} == {"live"}
    assert book.payment("rotessa:tx:2")["status"] == "approved"


def test_an_item_that_fails_is_recorded_with_its_reason_the_rest_goes_on_and_a_retry_takes_what_is_left(
    book: Book,
) -> None:
    mortgage = book.linked(transaction(1), transaction(2), transaction(3, "2025-01-15"))
    book.live(1, mortgage, 99_999)
    book.value("select ledger.close_period('2025-01', 'year end')")
    run = book.backfill()
    assert (run["status"], counts(run)) == ("partial", {"payments": 1, "postings": 0, "chargebacks": 0, "failed": 2})
    reasons = {error["item"]: error["reason"] for error in run["errors"]}
    assert reasons["rotessa:tx:1"] == "the payment is of 99999 cents, the processor says 100000"
    assert reasons["rotessa:tx:3"].startswith("2025-01 was closed on ")
    rejects = book.rows(
        "select source_key, reason, amount from backfill.reject where run_id = %s order by source_key", run["run_id"]
    )
    assert [(row["source_key"], row["amount"]) for row in rejects] == [("1", 100_000), ("3", 100_000)]
    book.do("update lending.payments set amount_cents = 100000 where source_reference = 'rotessa:tx:1'")
    again = book.backfill()
    assert (again["metrics"]["items"], counts(again)["postings"], counts(again)["failed"]) == (2, 1, 1)
    assert sorted(book.entries()) == ["rotessa:tx:1", "rotessa:tx:2"]


def test_a_failure_that_nobody_foresaw_stops_only_its_own_item(book: Book) -> None:
    book.linked(transaction(1), transaction(2, amount="666.00"), transaction(3))
    book.do("alter table lending.payments add constraint superstition check (amount_cents <> 66600)")
    run = book.backfill()
    assert (run["status"], counts(run)["payments"], counts(run)["failed"]) == ("partial", 2, 1)
    (error,) = run["errors"]
    assert error["item"] == "rotessa:tx:2"
    assert "superstition" in error["reason"]
    assert run["metrics"]["cents"] == 200_000
    book.conn.commit()
    book.do("alter table lending.payments drop constraint superstition")
    assert counts(book.backfill())["payments"] == 1


def test_a_ledger_transaction_without_its_payment_is_no_payment(book: Book) -> None:
    book.linked(transaction(1))
    book.do("insert into ledger.accounts (account) values ('elsewhere')")
    book.do(
        "insert into ledger.transactions (id, reference, effective_at)"
        " values (gen_random_uuid(), 'rotessa:tx:1', now())"
    )
    book.do(
        "insert into ledger.postings (transaction_id, line_no, account, amount) select id, n, a, c"
        " from ledger.transactions cross join (values (1, 'world', -5), (2, 'elsewhere', 5)) as l (n, a, c)"
    )
    run = book.backfill()
    assert "the ledger has a transaction with this reference and no payment" in run["errors"][0]["reason"]
    assert book.value("select count(*) from lending.payments") == 0


def test_the_log_carries_mortgage_schedule_and_who(book: Book) -> None:
    book.linked(transaction(1))
    book.backfill(7)
    (run,) = book.rows("select * from lending.runs where mortgage = 'M-1' and backfill = 'lending_payments'")
    assert (run["schedule_id"], run["triggered_by"], run["status"]) == (7, "postgres", "succeeded")
    book.do("set local enable_seqscan = off")
    for condition, index in (
        ("subject ? 'mortgage' and subject ->> 'mortgage' = 'M-1'", "backfill_log_mortgage"),
        ("status = 'partial'", "backfill_log_status"),
        ("""subject @> '{"schedule": 7}'""", "backfill_log_subject"),
    ):
        plan = book.rows(f"explain select * from backfill.backfill_log where {condition}")
        assert index in str(plan)


def test_a_schedule_that_is_not_linked_has_no_backfill(book: Book) -> None:
    with pytest.raises(psycopg.Error, match="schedule 7 is linked to no mortgage") as caught:
        book.value("select run_id from lending.begin_payment_backfill(7)")
    assert caught.value.sqlstate == "BF043"


def test_in_steps_the_log_row_is_there_first_and_what_is_done_shows(book: Book, database_url: str) -> None:
    book.linked(*(transaction(n) for n in range(1, 6)))
    book.conn.commit()
    begun = book.row("select * from lending.begin_payment_backfill(7, 'ada')")
    assert (begun["resumed"], begun["due_items"], begun["due_cents"]) == (False, 5, 500_000)
    book.conn.commit()
    seen = []
    with psycopg.connect(database_url, autocommit=True) as other:
        watching = Book(other)
        while True:
            seen.append(watching.row("select status, metrics from lending.runs where run_id = %s", begun["run_id"]))
            step = book.row("select * from lending.step_payment_backfill(%s, 2)", begun["run_id"])
            book.conn.commit()
            if step["done"]:
                break
    assert [(row["status"], row["metrics"].get("payments", 0)) for row in seen] == [
        ("running", 0),
        ("running", 2),
        ("running", 4),
    ]
    log = book.row("select * from lending.finish_payment_backfill(%s)", begun["run_id"])
    assert (log["status"], log["actor"], log["metrics"]["payments"], log["metrics"]["cents"]) == (
        "succeeded", "ada (claimed) via postgres", 5, 500_000
    )  # fmt: skip


def test_in_steps_a_failing_item_is_given_up_once_and_a_broken_run_is_resumed(book: Book) -> None:
    mortgage = book.linked(*(transaction(n) for n in range(1, 6)))
    book.live(2, mortgage, 5)
    begun = book.row("select * from lending.begin_payment_backfill(7)")
    book.row("select * from lending.step_payment_backfill(%s, 2)", begun["run_id"])
    book.conn.commit()
    again = book.row("select * from lending.begin_payment_backfill(7)")
    assert (again["run_id"], again["resumed"]) == (begun["run_id"], True)
    steps = 0
    while not book.row("select done from lending.step_payment_backfill(%s, 2)", begun["run_id"])["done"]:
        steps += 1
        assert steps < 5
    log = book.row("select * from lending.finish_payment_backfill(%s)", begun["run_id"])
    assert (log["status"], counts(log), len(log["errors"])) == (
        "partial", {"payments": 4, "postings": 0, "chargebacks": 0, "failed": 1}, 1
    )  # fmt: skip


def test_a_chargeback_writes_one_linked_reversal_once(book: Book) -> None:
    mortgage = book.linked(transaction(1), transaction(2))
    book.backfill()
    assert book.balances()[f"mortgage:{mortgage}:trust"] == 200_000
    book.fetch(transactions=[transaction(1, status="Chargeback", status_reason="NSF"), transaction(2)])
    assert due(book) == {"rotessa:tx:1": "chargeback"}
    assert counts(book.backfill()) == {"payments": 0, "postings": 0, "chargebacks": 1, "failed": 0}
    assert book.balances() == {"borrower:1:rotessa": 0, f"mortgage:{mortgage}:trust": 100_000, "world": -100_000}
    (reversal,) = book.rows("select * from ledger.transactions where reverses is not null")
    assert reversal["reference"] == "rotessa:tx:1:chargeback"
    assert reversal["reverses"] == book.payment("rotessa:tx:1")["ledger_transaction_id"]
    assert book.payment("rotessa:tx:1")["status"] == "chargeback"
    assert due(book) == {}
    assert book.backfill()["metrics"]["tables"] == {}
    again = book.row("select * from ledger.record_payment_chargeback(%s)", book.payment("rotessa:tx:1")["id"])
    assert again == reversal


def test_a_chargeback_of_a_closed_month_is_booked_in_the_open_one(book: Book) -> None:
    book.linked(transaction(1))
    book.backfill()
    book.value("select ledger.close_period('2025-02', 'audited')")
    book.fetch(transactions=[transaction(1, status="Chargeback")])
    assert counts(book.backfill())["chargebacks"] == 1
    reversal = book.row("select * from ledger.transactions where reverses is not null")
    assert reversal["effective_at"] == reversal["recorded_at"]
    assert set(book.balances("2025-02-28 23:59:59Z").values()) == {0, 100_000, -100_000}
    assert set(book.balances().values()) == {0}


def test_what_was_never_posted_and_came_back_is_only_marked(book: Book) -> None:
    mortgage = book.linked(transaction(1, status="Chargeback"))
    book.live(1, mortgage, status="pending")
    assert counts(book.backfill())["chargebacks"] == 1
    assert book.payment("rotessa:tx:1")["status"] == "chargeback"
    assert book.entries() == {}


def test_reversing_the_run_takes_payments_and_postings_away_and_brings_the_same_rows_back(book: Book) -> None:
    book.linked(transaction(1), transaction(2))
    run = book.backfill()
    book.conn.commit()
    before = book.rows("select id, reference from ledger.transactions order by reference")
    assert reverse(book.conn, run["run_id"]) == {"restored": 2 + 2 + 8}
    assert book.rows("select * from lending.payments") == book.rows("select * from ledger.postings") == []
    book.backfill()
    book.conn.commit()
    assert book.rows("select id, reference from ledger.transactions order by reference") == before


def test_a_run_of_a_month_that_was_closed_since_is_not_reversed(book: Book) -> None:
    book.linked(transaction(1))
    run = book.backfill()
    book.value("select ledger.close_period('2025-02', 'audited')")
    book.conn.commit()
    with pytest.raises(psycopg.Error) as caught:
        reverse(book.conn, run["run_id"])
    assert caught.value.sqlstate == "BF023"
    book.conn.rollback()
    assert sorted(book.entries()) == ["rotessa:tx:1"]


def test_two_mortgages_of_one_customer_keep_their_payments_apart(book: Book) -> None:
    book.mortgage("M-1", 1)
    book.mortgage("M-2", 1, 50_000)
    book.fetch(
        customers=[customer(1)],
        schedules={1: [schedule(7), schedule(8, "500.00")]},
        transactions=[transaction(1), transaction(2, transaction_schedule_id=8, amount="500.00")],
    )
    book.link(7, "M-1")
    book.link(8, "M-2")
    assert book.backfill(8)["metrics"]["cents"] == 50_000
    assert due(book) == {"rotessa:tx:1": "payment"}
