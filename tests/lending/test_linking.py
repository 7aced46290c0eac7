"""Linking a schedule to a mortgage: suggested to people, decided by them, checked, audited, and taken back."""

from __future__ import annotations

import threading

import psycopg
import pytest

from tests.engine.words import refused
from tests.lending.book import Book, Row, customer, schedule, transaction


@pytest.fixture
def book(conn: psycopg.Connection) -> Book:
    """Customers 1 (schedules 7 and 8) and 2 (schedule 9); mortgages M-1 of customer 1 and M-2 of customer 2."""
    book = Book(conn)
    book.mortgage("M-1", 1)
    book.mortgage("M-2", 2, name="Grace")
    book.fetch(
        customers=[customer(1), customer(2, "Grace")],
        schedules={1: [schedule(7), schedule(8, "450.00")], 2: [schedule(9)]},
    )
    return book


def links(book: Book) -> dict[str, int | None]:
    return {
        row["number"]: row["rotessa_schedule_id"]
        for row in book.rows("select number, rotessa_schedule_id from lending.mortgages order by number")
    }


def refusal(book: Book, sqlstate: str, query: str, *parameters: object) -> str:
    before = book.rows("select * from lending.mortgages order by id")
    runs = book.value("select count(*) from backfill.backfill_log")
    with pytest.raises(psycopg.Error) as caught, book.conn.transaction():
        book.rows(query, *parameters)
    assert caught.value.sqlstate == sqlstate, refused(caught)
    assert book.rows("select * from lending.mortgages order by id") == before
    assert book.value("select count(*) from backfill.backfill_log") == runs
    return refused(caught)


LINK = "select * from lending.link_schedule(%s, %s, %s)"


def test_suggestions_are_ranked_and_link_nothing(book: Book) -> None:
    book.mortgage("M-3", 1, 45_500)
    unlinked = {row["schedule_id"]: row for row in book.rows("select * from lending.unlinked_schedules")}
    assert sorted(unlinked) == [7, 8, 9]
    seven: list[Row] = unlinked[7]["suggestions"]
    assert [(s["mortgage"], s["exact"], s["same_customer"], s["same_amount"]) for s in seven] == [
        ("M-1", True, True, True),
        ("M-3", False, True, False),
        ("M-2", False, False, True),
    ]
    assert unlinked[7]["exact_suggestions"] == 1
    eight = [(s["mortgage"], s["difference_cents"]) for s in unlinked[8]["suggestions"]]
    assert eight == [("M-3", -500), ("M-1", -55_000)]
    assert (unlinked[9]["customer_name"], unlinked[9]["amount_cents"], unlinked[9]["frequency"]) == (
        "Grace",
        100_000,
        "Monthly",
    )
    without = {row["mortgage_number"]: row for row in book.rows("select * from lending.mortgages_without_schedule")}
    assert without["M-1"]["suggested_schedules"][0] == 7
    assert [without[name]["exact_suggestions"] for name in ("M-1", "M-2", "M-3")] == [1, 1, 0]
    assert set(links(book).values()) == {None}


def test_a_link_is_written_whole_and_audited(book: Book) -> None:
    row = book.link(7, "M-1")
    assert (row["rotessa_schedule_id"], row["rotessa_schedule_status"]) == (7, "active")
    assert row["rotessa_last_sync_at"] is not None
    (run,) = book.rows("select * from lending.runs where backfill = 'link_schedule'")
    assert (run["mortgage"], run["schedule_id"], run["triggered_by"], run["status"]) == (
        "M-1",
        7,
        "postgres",
        "succeeded",
    )
    (change,) = book.rows("select operation, business_key from backfill.change_log where run_id = %s", run["run_id"])
    assert change == {"operation": "UPDATE", "business_key": "M-1"}
    assert [
        row["schedule_id"] for row in book.rows("select schedule_id from lending.unlinked_schedules order by 1")
    ] == [8, 9]


def test_the_same_link_again_changes_nothing(book: Book) -> None:
    first = book.link(7, "M-1")
    runs = book.value("select count(*) from backfill.backfill_log")
    assert book.link(7, "M-1") == first
    assert book.value("select count(*) from backfill.backfill_log") == runs


def test_a_mortgage_may_be_named_by_its_id(book: Book) -> None:
    mortgage = book.value("select id::text from lending.mortgages where number = 'M-2'")
    assert book.link(9, mortgage)["number"] == "M-2"


def test_an_unknown_schedule_or_mortgage_is_refused(book: Book) -> None:
    assert "schedule 99 does not exist at the processor" in refusal(book, "BF043", LINK, 99, "M-1", None)
    assert "there is no mortgage 'M-99'" in refusal(book, "BF009", LINK, 7, "M-99", None)


def test_a_schedule_that_the_processor_no_longer_has_is_refused(book: Book) -> None:
    book.fetch(schedules={1: [schedule(8, "450.00")]})
    assert "schedule 7 is no longer at the processor" in refusal(book, "BF043", LINK, 7, "M-1", None)


def test_one_schedule_one_mortgage(book: Book) -> None:
    book.link(7, "M-1")
    book.mortgage("M-3", 1)
    assert "schedule 7 cannot be linked to mortgage M-3: it is linked to mortgage M-1" in refusal(
        book, "BF043", LINK, 7, "M-3", None
    )
    assert "the mortgage has schedule 7" in refusal(book, "BF043", LINK, 8, "M-1", None)
    with pytest.raises(psycopg.errors.UniqueViolation), book.conn.transaction():
        book.do("update lending.mortgages set rotessa_schedule_id = 7 where number = 'M-3'")


@pytest.mark.parametrize("reason", [None, "", "  "])
def test_another_customer_than_the_borrower_is_refused_without_a_reason(book: Book, reason: str | None) -> None:
    told = refusal(book, "BF044", LINK, 9, "M-1", reason)
    assert "schedule 9 belongs to customer 2 (Grace), and mortgage M-1 to customer 1 (Ada)" in told
    assert "--override-mismatch" in told


def test_an_overridden_mismatch_is_kept_in_the_log(book: Book) -> None:
    book.link(9, "M-1", "Grace pays for her sister")
    (run,) = book.rows("select parameters from lending.runs where backfill = 'link_schedule'")
    assert run["parameters"] == {"override_mismatch": "Grace pays for her sister"}


def test_a_link_that_joins_an_open_run_keeps_its_reason_there(book: Book) -> None:
    book.value("select backfill.begin_run('moving day')")
    book.rows(LINK, 9, "M-1", "Grace pays for her sister")
    book.rows(LINK, 8, "M-2", "and her sister for her")
    book.rows(LINK, 8, "M-2", "said again, which is no action")
    book.rows("select * from backfill.finish_run()")
    assert links(book) == {"M-1": 9, "M-2": 8}
    (run,) = book.rows("select * from backfill.backfill_log where backfill = 'moving day'")
    actions = [
        (a["action"], a["mortgage"], a["schedule"], a["override_mismatch"]) for a in run["parameters"]["actions"]
    ]
    assert actions == [
        ("link_schedule", "M-1", 9, "Grace pays for her sister"),
        ("link_schedule", "M-2", 8, "and her sister for her"),
    ]


def test_a_reason_that_was_not_needed_is_not_said_to_override_anything(book: Book) -> None:
    book.link(7, "M-1", "to be sure")
    (run,) = book.rows("select parameters from lending.runs where backfill = 'link_schedule'")
    assert run["parameters"] == {}


def test_only_the_admin_may_link(book: Book) -> None:
    for role, may in (("backfill_operator", False), ("backfill_auditor", False), ("lending_admin", True)):
        for function in ("link_schedule(bigint, text, text)", "unlink_schedule(bigint, text, boolean)"):
            assert book.value("select has_function_privilege(%s, %s, 'execute')", role, f"lending.{function}") is may
    book.do("set local role lending_admin")
    book.link(7, "M-1")
    assert book.rows("select schedule_id from lending.unlinked_schedules where schedule_id = 7") == []
    book.do("reset role")
    book.do("set local role backfill_operator")
    with pytest.raises(psycopg.errors.InsufficientPrivilege), book.conn.transaction():
        book.link(9, "M-2")


def test_unlinking_reverses_the_links_run_also_after_a_sync(book: Book) -> None:
    before = book.rows("select * from lending.mortgages order by number")
    book.link(7, "M-1")
    book.conn.commit()
    book.fetch(schedules={1: [schedule(7, next_process_date=None), schedule(8, "450.00")]})
    book.conn.commit()
    assert book.row("select * from lending.unlink_schedule(7, 'wrong house')")["rotessa_schedule_id"] is None
    assert book.rows("select * from lending.mortgages order by number") == before
    statuses = book.rows(
        "select backfill, mode, status, parameters from lending.runs where schedule_id = 7 order by started_at, mode"
    )
    assert [(row["backfill"], row["mode"], row["status"]) for row in statuses] == [
        ("link_schedule", "manual", "reversed"),
        ("unlink_schedule", "manual", "succeeded"),
        ("link_schedule", "reversal", "succeeded"),
    ]
    assert statuses[1]["parameters"]["reason"] == "wrong house"
    book.conn.commit()
    assert book.link(7, "M-1")["rotessa_schedule_id"] == 7


def test_unlinking_is_refused_without_a_link_a_reason_or_while_payments_are_on_the_mortgage(book: Book) -> None:
    unlink = "select * from lending.unlink_schedule(%s, %s)"
    assert "schedule 7 is linked to no mortgage" in refusal(book, "BF047", unlink, 7, "why")
    book.link(7, "M-1")
    assert "needs a reason" in refusal(book, "BF047", unlink, 7, " ")
    book.fetch(transactions=[transaction(1)])
    run = book.backfill()["run_id"]
    assert "schedule 7 has 1 payment on mortgage M-1" in refusal(book, "BF047", unlink, 7, "why")
    book.rows("select * from backfill.reverse_run(%s)", run)
    book.row("select * from lending.unlink_schedule(7, 'why')")
    assert set(links(book).values()) == {None}


def test_payments_can_be_kept_when_another_schedule_takes_the_place(book: Book) -> None:
    book.link(7, "M-1")
    book.fetch(transactions=[transaction(1)])
    book.backfill()
    book.row("select * from lending.unlink_schedule(7, 'new bank', true)")
    book.link(8, "M-1")
    assert book.value("select count(*) from lending.payments") == 1
    assert book.backfill(8)["metrics"]["items"] == 0


def test_two_people_link_one_schedule_at_once_and_one_of_them_is_refused(book: Book, database_url: str) -> None:
    book.mortgage("M-3", 1)
    book.conn.commit()
    book.link(7, "M-1")
    failed: list[str | None] = []

    def other() -> None:
        with psycopg.connect(database_url) as conn:
            try:
                conn.execute(LINK, [7, "M-3", None])
            except psycopg.Error as exc:
                failed.append(exc.sqlstate)

    thread = threading.Thread(target=other)
    thread.start()
    book.conn.commit()
    thread.join(20)
    assert failed == ["BF043"]
    assert links(book) == {"M-1": 7, "M-2": None, "M-3": None}
