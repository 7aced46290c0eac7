"""Real sessions at once: numbers, backfills, checks and a reversal, each with its own connection."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable

import psycopg

from tests.billing.world import World


def at_once(url: str, company: uuid.UUID, *works: Callable[[World], None]) -> list[BaseException]:
    """Run each on its own connection, all starting together; the errors that they ended with."""
    start = threading.Barrier(len(works))
    errors: list[BaseException] = []

    def run(work: Callable[[World], None]) -> None:
        try:
            with psycopg.connect(url) as conn:
                start.wait()
                work(World(conn, company))
        except BaseException as exc:
            errors.append(exc)

    threads = [threading.Thread(target=run, args=[work]) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return errors


def test_checks_of_one_facility_at_once_pay_each_cent_once(database_url: str) -> None:
    with psycopg.connect(database_url) as conn:
        world = World.create(conn)
        facility = world.facility()
        for week in range(1, 11):
            world.backfill(facility, f"INV-{week}", week=week)
        checks = [world.check(facility, 7_000, f"INV-{number % 10 + 1}") for number in range(12)]

    def pay(check: uuid.UUID) -> Callable[[World], None]:
        def work(mine: World) -> None:
            mine.allocate(check)
            mine.conn.commit()
            mine.unapply(check)
            mine.conn.commit()
            mine.allocate(check)

        return work

    assert at_once(database_url, world.company, *map(pay, checks)) == []
    with psycopg.connect(database_url) as conn:
        after = World(conn, world.company)
        assert after.faults() == []
        assert after.value("select sum(amount_paid_cents) from billing.invoices") == 84_000
        assert after.value("select sum(amount_cents) from billing.check_payment_applications") == 84_000
        assert after.value("select sum(unapplied_cents) from billing.check_balances") == 0


def test_the_same_check_in_two_sessions_pays_once(database_url: str) -> None:
    with psycopg.connect(database_url) as conn:
        world = World.create(conn)
        facility = world.facility()
        world.backfill(facility, "INV-1")
        check = world.check(facility, 6_000)
    assert at_once(database_url, world.company, *[lambda mine: void(mine.allocate(check))] * 4) == []
    with psycopg.connect(database_url) as conn:
        after = World(conn, world.company)
        assert (after.invoice("INV-1")["amount_paid_cents"], after.unapplied(check), after.faults()) == (6_000, 0, [])


def void(_: object) -> None:
    """Nothing: what a session did is looked at in the tables."""


def test_the_same_invoice_in_two_sessions_is_one(database_url: str) -> None:
    with psycopg.connect(database_url) as conn:
        world = World.create(conn)
        facility = world.facility()
    assert at_once(database_url, world.company, *[lambda mine: void(mine.backfill(facility, "INV-7"))] * 4) == []
    with psycopg.connect(database_url) as conn:
        assert World(conn, world.company).value("select count(*) from billing.invoices") == 1


def test_two_payloads_under_one_number_make_one_invoice_and_one_error(database_url: str) -> None:
    with psycopg.connect(database_url) as conn:
        world = World.create(conn)
        facility = world.facility()
    errors = at_once(
        database_url,
        world.company,
        lambda mine: void(mine.backfill(facility, "INV-7", total=100)),
        lambda mine: void(mine.backfill(facility, "INV-7", total=200)),
    )
    assert [getattr(error, "sqlstate", error) for error in errors] == ["BF301"]


def test_backfills_and_issues_at_once_keep_every_number_apart(database_url: str) -> None:
    with psycopg.connect(database_url) as conn:
        world = World.create(conn, next_number=50)
        facilities = [world.facility(f"Facility {number}") for number in range(4)]

    def past(mine: World) -> None:
        for number in (10, 70, 30, 55, 90):
            try:
                mine.backfill(facilities[0], f"INV-{number:04}", week=number)
                mine.conn.commit()
            except psycopg.Error as exc:  # the application was there first
                if exc.sqlstate != "BF302":
                    raise
                mine.conn.rollback()

    def issue(facility: uuid.UUID) -> Callable[[World], None]:
        def work(mine: World) -> None:
            for week in range(200, 210):
                mine.forward(facility, week=week)
                mine.conn.commit()

        return work

    assert at_once(database_url, world.company, past, *map(issue, facilities[1:])) == []
    with psycopg.connect(database_url) as conn:
        after = World(conn, world.company)
        numbers = [
            row["n"] for row in after.rows("select billing.invoice_ordinal(invoice_number) as n from billing.invoices")
        ]
        assert len(numbers) == len(set(numbers)) >= 32
        assert max(numbers) < after.next_number
        assert after.faults() == []


def test_a_check_and_a_reversal_at_once_never_both(database_url: str) -> None:
    for _ in range(5):
        with psycopg.connect(database_url) as conn:
            world = World.create(conn)
            facility = world.facility()
            world.backfill(facility, "INV-1")
            check = world.check(facility, 6_000)
            run = world.value("select run_id from backfill.backfill_log order by completed_at desc limit 1")

        def undo(mine: World, run: uuid.UUID = run) -> None:
            mine.conn.execute("select * from backfill.reverse_run(%s)", [run])

        def pay(mine: World, check: uuid.UUID = check) -> None:
            mine.allocate(check)

        errors = at_once(database_url, world.company, undo, pay)
        assert all(isinstance(error, psycopg.Error) for error in errors), errors
        with psycopg.connect(database_url) as conn:
            after = World(conn, world.company)
            there = after.value("select count(*) from billing.invoices where company_id = %s", world.company)
            paid = after.value(
                "select count(*) from billing.check_payment_applications where company_id = %s", world.company
            )
            assert (there, paid) in ((0, 0), (1, 1)), errors
            assert after.faults() == []
