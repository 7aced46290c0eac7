"""What the processor shows lands in staging: once for each id, typed, changes as versions, bad rows by their reason."""

from __future__ import annotations

import datetime as dt

import psycopg
import pytest
from psycopg.types.json import Jsonb

from tests.engine.words import refused
from tests.lending.book import Book, Row, customer, schedule, transaction


@pytest.fixture
def book(conn: psycopg.Connection) -> Book:
    return Book(conn)


def staged(book: Book) -> dict[int, Row]:
    return {row["transaction_id"]: row for row in book.rows("select * from lending.transactions")}


def test_overlapping_pages_and_rows_twice_on_a_page_are_one_transaction(book: Book) -> None:
    fetch = book.begin_fetch()
    assert book.page(fetch, 1, [transaction(1), transaction(2), transaction(2)]) == (2, 0, 0, 0)
    assert book.page(fetch, 2, [transaction(2), transaction(3)]) == (1, 0, 1, 0)
    assert sorted(staged(book)) == [1, 2, 3]


def test_approved_that_became_chargeback_is_a_new_version_and_the_old_one_stays(book: Book) -> None:
    first = book.fetch(transactions=[transaction(1)])
    second = book.begin_fetch()
    assert book.page(second, 1, [transaction(1, status="Chargeback", status_reason="NSF")]) == (0, 1, 0, 0)
    (row,) = staged(book).values()
    assert (row["status"], row["status_reason"], row["version"], row["fetch_id"]) == ("Chargeback", "NSF", 2, second)
    (old,) = book.rows("select * from staging.rotessa_version")
    assert (old["kind"], old["id"], old["version"], old["replaced_by"]) == ("transaction", 1, 1, second)
    assert (old["content"]["status"], old["content"]["fetch_id"]) == ("Approved", str(first))


def test_days_without_zeros_are_read(book: Book) -> None:
    book.fetch(transactions=[transaction(1, "2019-03-7", process_date="2019-3-1")])
    (row,) = staged(book).values()
    assert (row["process_date"], row["settlement_date"]) == (dt.date(2019, 3, 1), dt.date(2019, 3, 7))


def test_an_impossible_created_at_harms_nobody_and_an_impossible_settlement_date_is_rejected(book: Book) -> None:
    book.fetch(
        transactions=[transaction(1, created_at="2019-02-29T00:00:00Z"), transaction(2, "2019-02-29")],
    )
    assert sorted(staged(book)) == [1]
    (reject,) = book.rows("select source_key, reason, amount from backfill.reject")
    assert reject == {
        "source_key": "2",
        "reason": "settlement_date is not a day written YYYY-MM-DD: '2019-02-29'",
        "amount": 100_000,
    }


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("amount", "1,000.00", "amount is no amount written like 123.00, with at most two decimals: '1,000.00'"),
        ("amount", "10.005", "amount is no amount written like 123.00, with at most two decimals: '10.005'"),
        ("amount", "NaN", "amount is no amount written like 123.00, with at most two decimals: 'NaN'"),
        ("amount", "0.00", "amount is zero"),
        ("amount", None, "amount is missing"),
        ("status", "Refunded", "status is none that we know: 'Refunded'"),
        ("process_date", "03/07/2019", "process_date is not a day written YYYY-MM-DD: '03/07/2019'"),
        ("process_date", None, "process_date is missing"),
        ("customer_id", "x", "customer is no whole number: 'x'"),
    ],
)
def test_a_row_that_cannot_be_taken_is_rejected_with_its_reason_and_the_rest_goes_on(
    book: Book, field: str, value: str | None, reason: str
) -> None:
    fetch = book.begin_fetch()
    assert book.page(fetch, 1, [transaction(1, **{field: value}), transaction(2)]) == (1, 0, 0, 1)
    assert book.page(fetch, 2, [transaction(1, **{field: value})]) == (0, 0, 0, 1)  # once in the rejects
    assert book.rows("select source_key, reason from backfill.reject") == [{"source_key": "1", "reason": reason}]
    assert sorted(staged(book)) == [2]


def test_bank_numbers_are_nowhere_in_the_database(book: Book) -> None:
    secrets = dict.fromkeys(("account_number", "transit_number", "institution_number", "routing_number"), "98765432109")
    book.fetch(
        customers=[customer(1, **secrets), customer(2, name="", **secrets)],
        schedules={1: [schedule(7, **secrets), schedule(8, "x", **secrets)]},
        transactions=[transaction(1, **secrets), transaction(2, None, amount="x", **secrets)],
    )
    book.fetch(transactions=[transaction(1, status="Chargeback", **secrets)])
    tables = [
        row["name"]
        for row in book.rows(
            "select c.oid::regclass::text as name from pg_class as c join pg_namespace as n on n.oid = c.relnamespace"
            " where c.relkind = 'r' and n.nspname in ('staging', 'lending', 'ledger', 'backfill', 'backfill_audit')"
        )
    ]
    assert len(tables) > 20
    assert [
        name for name in tables if book.value(f"select exists (select from {name} as t where t::text like '%%98765%%')")
    ] == []


def test_a_schedule_that_the_customer_no_longer_lists_is_gone_and_can_come_back(book: Book) -> None:
    book.fetch(customers=[customer(1)], schedules={1: [schedule(7), schedule(8)]})
    fetch = book.begin_fetch()
    taken = book.row("select * from staging.take_rotessa_schedules(%s, 1, %s)", fetch, Jsonb([schedule(8)]))
    assert taken == {"created": 0, "changed": 1, "unchanged": 1, "rejected": 0}
    assert book.value("select gone from lending.schedules where schedule_id = 7")
    book.fetch(schedules={1: [schedule(7), schedule(8)]})
    assert not book.value("select gone from lending.schedules where schedule_id = 7")
    assert book.value("select version from lending.schedules where schedule_id = 7") == 3


def test_a_fetch_that_was_broken_off_goes_on_where_it_was(book: Book) -> None:
    fetch = book.begin_fetch()
    book.row("select * from staging.take_rotessa_schedules(%s, 1, '[]')", fetch)
    book.page(fetch, 1, [transaction(1)])
    again = book.row("select * from staging.begin_rotessa_fetch('2025-01-01')")
    assert (again["fetch_id"], again["resumed"], again["customers_done"], again["next_page"]) == (fetch, True, [1], 2)
    assert again["scan_from"] == dt.date(2024, 11, 17)  # 45 days of look-back
    book.conn.commit()  # each step of a fetch is a transaction
    other = book.row("select * from staging.begin_rotessa_fetch('2025-02-01')")
    assert (other["resumed"], other["next_page"]) == (False, 1)
    book.conn.commit()
    book.value("select staging.finish_rotessa_fetch(%s)", fetch)
    book.conn.commit()
    assert not book.row("select * from staging.begin_rotessa_fetch('2025-01-01')")["resumed"]


def test_the_log_shows_the_counts_of_a_fetch_while_it_runs(book: Book) -> None:
    fetch = book.begin_fetch()
    book.page(fetch, 1, [transaction(1), transaction(2)])
    book.page(fetch, 2, [transaction(2), transaction(3, amount="x")])
    log = book.row("select status, mode, metrics from backfill.backfill_log where run_id = %s", fetch)
    assert (log["status"], log["mode"]) == ("running", "load")
    assert log["metrics"]["transactions"] == {"created": 2, "changed": 0, "unchanged": 1, "rejected": 1}


def test_an_answer_that_is_no_array_and_a_fetch_that_is_over_are_refused(book: Book) -> None:
    fetch = book.begin_fetch()
    with pytest.raises(psycopg.Error) as caught, book.conn.transaction():
        book.value("select staging.take_rotessa_transactions(%s, 1, '{}')", fetch)
    assert caught.value.sqlstate == "BF041"
    assert "no array but object" in refused(caught)
    book.value("select staging.finish_rotessa_fetch(%s)", fetch)
    with pytest.raises(psycopg.Error) as caught, book.conn.transaction():
        book.page(fetch, 2, [])
    assert caught.value.sqlstate == "BF041"
    assert f"fetch {fetch} is not running" in refused(caught)


def test_a_fetch_brings_status_and_last_sync_of_linked_mortgages_up_to_date(book: Book) -> None:
    book.linked()
    book.fetch(schedules={1: [schedule(7, next_process_date=None)]})
    assert book.value("select rotessa_schedule_status from lending.mortgages") == "ended"
    book.fetch(schedules={1: []})
    assert book.value("select rotessa_schedule_status from lending.mortgages") == "missing"
    book.fetch(schedules={1: [schedule(7)]})
    assert book.value("select rotessa_schedule_status from lending.mortgages") == "active"
