"""The application's own way: numbers under a lock, and interest that leaves the past alone."""

from __future__ import annotations

import threading
import uuid

import psycopg
import pytest

from tests.invoices.world import World, line, week_of


def test_drafts_take_the_next_number(world: World) -> None:
    facility, baker = world.facility(), world.contractor()
    version = world.assignment(baker, facility, "2020-01-01")
    made = world.row(
        "select * from billing.create_facility_invoice(%s, %s, '2024-01-01', '2024-01-07', %s::jsonb)",
        world.company, facility, psycopg.types.json.Jsonb([line(7_000, contractor_id=str(baker)), line(500)]),
    )  # fmt: skip
    assert (made["invoice_number"], made["status"], made["origin"]) == ("INV-0001", "draft", "app")
    assert (made["total_cents"], made["sent_at"], made["due_date"]) == (7_500, None, None)
    lines = world.rows("select * from billing.invoice_lines order by line_no")
    assert [row["assignment_id"] for row in lines] == [version, None]
    assert world.forward(facility)["invoice_number"] == "INV-0002"
    assert world.faults() == []


def test_a_number_above_9999_is_not_cut(conn: psycopg.Connection) -> None:
    world = World.create(conn, next_number=12_345)
    assert world.forward(world.facility())["invoice_number"] == "INV-12345"


def test_a_company_without_settings_goes_on_after_its_highest_number(world: World) -> None:
    facility = world.facility()
    for week, number in enumerate(("INV-0041", "INV-0007"), 1):
        world.conn.execute(
            "insert into billing.invoices"
            " (company_id, facility_id, invoice_number, period_start, period_end, total_cents)"
            " values (%s, %s, %s, '2024-01-01', %s, 0)",
            [world.company, facility, number, week_of(60 + week)[1]],
        )
    world.conn.execute("delete from billing.settings where company_id = %s", [world.company])
    assert world.forward(facility, week=70)["invoice_number"] == "INV-0042"
    world.conn.execute("delete from billing.settings where company_id = %s", [world.company])
    world.backfill(facility, "INV-0009", week=1)
    assert world.next_number == 43


def test_a_rolled_back_number_is_given_again(world: World) -> None:
    facility = world.facility()
    with world.conn.transaction(force_rollback=True):
        assert world.forward(facility)["invoice_number"] == "INV-0001"
    assert world.forward(facility)["invoice_number"] == "INV-0001"


def test_a_facility_of_another_company_is_refused(world: World) -> None:
    with pytest.raises(psycopg.Error, match="has no facility") as caught:
        world.forward(uuid.uuid4())
    assert caught.value.sqlstate == "BF009"


def test_sessions_that_issue_at_once_share_no_number_and_leave_no_gap(database_url: str) -> None:
    with psycopg.connect(database_url) as conn:
        world = World.create(conn, next_number=990)
        facilities = [world.facility(f"Facility {number}") for number in range(4)]
    numbers: list[str] = []
    start = threading.Barrier(4)

    def issue(facility: uuid.UUID) -> None:
        with psycopg.connect(database_url) as own:
            mine = World(own, world.company)
            start.wait()
            for week in range(20):
                if week % 3 == 0:  # this one changes its mind
                    mine.forward(facility, week=100 + week)
                    own.rollback()
                made = mine.forward(facility, week=week + 1)
                own.commit()
                numbers.append(made["invoice_number"])

    threads = [threading.Thread(target=issue, args=[facility]) for facility in facilities]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(numbers, key=lambda number: int(number[4:])) == [f"INV-{n:04}" for n in range(990, 1070)]


def test_a_backfill_and_an_issue_at_once_meet_at_the_watermark(database_url: str) -> None:
    with psycopg.connect(database_url) as conn:
        world = World.create(conn, next_number=993)
        facility, other = world.facility(), world.facility("Lakeview")
    issued: list[str] = []
    with psycopg.connect(database_url) as first, psycopg.connect(database_url) as second:
        World(first, world.company).backfill(facility, "INV-1005")

        def issue() -> None:
            made = World(second, world.company).forward(other)
            second.commit()
            issued.append(made["invoice_number"])

        waiting = threading.Thread(target=issue)
        waiting.start()
        with psycopg.connect(database_url, autocommit=True) as watcher:
            blocked = "select count(*) from pg_stat_activity where pid = %s and wait_event_type = 'Lock'"
            while watcher.execute(blocked, [second.info.backend_pid]).fetchone() != (1,):
                assert waiting.is_alive(), "it did not wait"
        first.commit()
        waiting.join()
    assert issued == ["INV-1006"]


@pytest.fixture
def lending(conn: psycopg.Connection) -> World:
    """A company that takes 10 % a year."""
    return World.create(conn, interest_bps=1_000)


def test_overdue_interest_skips_backfilled_invoices(lending: World) -> None:
    facility = lending.facility()
    lending.backfill(facility, "INV-0985", total=100_000)
    lending.send(lending.forward(facility, total=365_000), due="2024-04-01")
    written = lending.rows("select * from billing.accrue_overdue_interest('2024-04-11')")
    assert [(row["amount_cents"], row["base_cents"]) for row in written] == [(1_000, 365_000)]
    assert (str(written[0]["accrued_from"]), str(written[0]["accrued_through"])) == ("2024-04-01", "2024-04-11")
    past = lending.invoice("INV-0985")
    shown = lending.row("select * from billing.receivables where invoice_number = 'INV-0985'")
    assert (past["status"], shown["open_cents"]) == ("sent", 100_000)  # outstanding and overdue it is
    assert shown["days_overdue"] > 300


def test_interest_counts_each_day_once(lending: World) -> None:
    invoice = lending.forward(lending.facility(), total=365_000)
    lending.send(invoice, due="2024-04-01")
    accrue = "select * from billing.accrue_overdue_interest(%s)"
    assert len(lending.rows(accrue, "2024-04-11")) == 1
    assert lending.rows(accrue, "2024-04-11") == []
    assert lending.rows(accrue, "2024-04-05") == []
    again = lending.row("select * from billing.accrue_invoice_interest(%s, '2024-04-16')", invoice["id"])
    assert (again["amount_cents"], str(again["accrued_from"])) == (500, "2024-04-11")


def test_days_that_round_to_nothing_are_kept_for_the_next_time(lending: World) -> None:
    lending.send(lending.forward(lending.facility(), total=100), due="2024-04-01")
    assert lending.rows("select * from billing.accrue_overdue_interest('2024-04-11')") == []
    assert lending.row("select * from billing.accrue_overdue_interest('2025-04-01')")["amount_cents"] == 10


def test_interest_of_one_backfilled_invoice_is_refused(lending: World) -> None:
    made = lending.backfill(lending.facility(), "INV-0985")
    with pytest.raises(psycopg.Error, match="INV-0985 was backfilled: it bears no interest") as caught:
        lending.conn.execute("select billing.accrue_invoice_interest(%s)", [made["id"]])
    assert caught.value.sqlstate == "BF302"


@pytest.mark.parametrize("state", ["draft", "paid", "not yet due", "no due date"])
def test_what_is_not_overdue_bears_none(lending: World, state: str) -> None:
    facility = lending.facility()
    invoice = lending.forward(facility, total=365_000)
    if state != "draft":
        lending.send(invoice, due={"not yet due": "2024-04-30", "no due date": None}.get(state, "2024-04-01"))
    if state == "paid":
        lending.allocate(lending.check(facility, 365_000, on="2024-03-20"))
    assert lending.rows("select * from billing.accrue_overdue_interest('2024-04-30')") == []


def test_only_what_is_open_bears_interest(lending: World) -> None:
    facility = lending.facility()
    lending.send(lending.forward(facility, total=365_000), due="2024-04-01")
    lending.allocate(lending.check(facility, 292_000, on="2024-03-20"))
    assert lending.row("select * from billing.accrue_overdue_interest('2024-04-11')")["amount_cents"] == 200


def test_week_of_is_a_week() -> None:
    assert (week_of(1)[0].weekday(), (week_of(2)[0] - week_of(1)[1]).days) == (0, 1)
