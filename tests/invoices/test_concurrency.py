"""Real sessions at once: numbers, backfills, checks and a reversal, each with its own connection."""

from __future__ import annotations

import random
import threading
import uuid
from collections import Counter
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from tests.invoices.world import World


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


def test_a_payment_that_two_people_apply_is_spent_once(database_url: str) -> None:
    with psycopg.connect(database_url) as conn:
        world = World.create(conn)
        facility, customer = world.facility(), world.customer()
        invoices = [world.issue(facility, f"INV-{n}", 10_000, customer=customer, on=f"2024-0{n}-01") for n in (1, 2, 3)]
        paid = world.payment(customer, 10_000)

    def apply(invoice: uuid.UUID) -> Callable[[World], None]:
        return lambda mine: void(mine.apply(paid, invoice, 10_000))

    errors = at_once(database_url, world.company, *map(apply, invoices))
    assert [getattr(error, "sqlstate", error) for error in errors] == ["BF033", "BF033"]
    with psycopg.connect(database_url) as conn:
        after = World(conn, world.company)
        assert (after.left(paid), after.faults()) == (0, [])
        assert after.value("select sum(amount_paid_cents) from billing.invoices") == 10_000


def test_checks_links_and_people_at_once_pay_no_invoice_twice(database_url: str) -> None:
    with psycopg.connect(database_url) as conn:
        world = World.create(conn)
        facilities, customer = [world.facility(name) for name in ("Hillside", "Lakeview", "Seaside")], world.customer()
        for number in range(30):
            world.issue(
                facilities[number % 3], f"INV-{number:04}", 10_000, customer=customer,
                on=f"2024-01-{number // 3 + 1:02}",
            )  # fmt: skip
            world.payment(customer, 6_000, f"INV-{number}")
        checks = [world.check(facilities[number % 3], 9_000, f"INV-{number}") for number in range(24)]

    def allocate(mine: World) -> None:
        for check in checks:
            mine.allocate(check)
            mine.conn.commit()

    def link(mine: World) -> None:
        for _ in range(3):
            mine.conn.execute("select backfill.run('payment_links', '{}', 1000)")
            mine.conn.commit()

    def use_up(mine: World) -> None:
        for facility in facilities:
            mine.conn.execute("select * from billing.allocate_on_account(p_facility => %s)", [facility])
            mine.conn.commit()

    assert at_once(database_url, world.company, allocate, link, use_up, allocate) == []
    with psycopg.connect(database_url) as conn:
        after = World(conn, world.company)
        assert after.faults() == []
        sums = after.row(
            "select min(open_cents) as least, sum(applied_cents) as applied, sum(opening_cents) as opening"
            " from billing.invoice_balances"
        )
        assert (sums["least"] >= 0, sums["opening"]) == (True, 0)
        assert sums["applied"] == after.value("select sum(applied_cents) from billing.source_balances")
        assert after.value("select min(amount_cents - applied_cents) from billing.source_balances") >= 0


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


def test_an_undo_waits_for_the_invoice_that_is_being_issued_and_sees_it(database_url: str) -> None:
    with psycopg.connect(database_url) as conn:
        world = World.create(conn)
        facility = world.facility()
        past = world.backfill(facility, "INV-1", week=1)
        world.conn.execute("select billing.void_invoice(%s, 'issued twice')", [past["id"]])
        run = world.value("select run_id from backfill.backfill_log where backfill = 'void INV-1'")
    with psycopg.connect(database_url) as first, psycopg.connect(database_url) as second:
        World(first, world.company).forward(facility, week=1)
        ended: list[str | None] = []

        def undo() -> None:
            with pytest.raises(psycopg.Error) as caught:
                second.execute("select * from backfill.reverse_run(%s)", [run])
            ended.append(caught.value.sqlstate)

        waiting = threading.Thread(target=undo)
        waiting.start()
        with psycopg.connect(database_url, autocommit=True) as watcher:
            blocked = "select count(*) from pg_stat_activity where pid = %s and wait_event_type = 'Lock'"
            while watcher.execute(blocked, [second.info.backend_pid]).fetchone() != (1,):
                assert waiting.is_alive(), "it did not wait"
        first.commit()
        waiting.join()
        assert ended == ["BF005"]
    with psycopg.connect(database_url) as conn:
        assert World(conn, world.company).faults() == []


REFUSALS = ("BF301", "BF302", "BF005", "BF009")
"""What an operation may be refused with, when another session was there first; anything else is a fault of ours."""


def some_operation(chance: random.Random, mine: World, facilities: list[uuid.UUID]) -> tuple[str, Callable[[], Any]]:
    """One of all that people and programs do with invoices, on whatever is there now."""
    invoice = mine.rows(
        "select id from billing.invoices where company_id = %s order by amount_paid_cents = 0 desc, random() limit 1",
        mine.company,
    )
    check = mine.rows(
        "select id from billing.check_payments where company_id = %s order by random() limit 1", mine.company
    )
    run = mine.rows(
        "select run_id from (select run_id from backfill.backfill_log where status = 'succeeded'"
        " order by started_at desc limit 4) as latest order by random() limit 1"
    )
    facility, number = chance.choice(facilities), f"INV-{chance.randint(1, 90):04}"
    week, total = chance.randint(1, 15), chance.randint(1, 900)
    works: dict[str, Callable[[], Any]] = {
        "backfill": lambda: mine.backfill(facility, number, week=week, total=total),
        "issue": lambda: mine.send(mine.forward(facility, week=week, total=total)),
        "receive": lambda: mine.allocate(mine.check(facility, chance.randint(1, 1_500), number)),
        "interest": lambda: mine.rows("select * from billing.accrue_overdue_interest('2026-01-01')"),
    }
    if invoice:
        one = invoice[0]["id"]
        works |= {
            "void": lambda: mine.value("select billing.void_invoice(%s, 'why')", one),
            "delete": lambda: mine.value("select billing.delete_invoice(%s, 'why')", one),
            "renumber": lambda: mine.value(
                "select billing.correct_invoice(%s, jsonb_build_object('invoice_number', %s::text), 'why')", one, number
            ),
        }
    if check:
        works["unapply"] = lambda: mine.unapply(check[0]["id"])
        works["allocate"] = lambda: mine.allocate(check[0]["id"])
    if run:
        works["reverse"] = lambda: mine.rows("select * from backfill.reverse_run(%s)", run[0]["run_id"])
    name = chance.choice(sorted(works))
    return name, works[name]


@pytest.mark.parametrize("seed", range(3))
def test_any_operations_of_sessions_at_once_keep_every_invariant(database_url: str, seed: int) -> None:
    with psycopg.connect(database_url) as conn:
        world = World.create(conn, next_number=5, interest_bps=1_200)
        facilities = [world.facility("Hillside"), world.facility("Lakeview")]
    done: Counter[str] = Counter()

    def session(number: int) -> Callable[[World], None]:
        chance = random.Random(seed * 100 + number)

        def work(mine: World) -> None:
            watermark = 0
            for _ in range(40):
                try:
                    name, operation = some_operation(chance, mine, facilities)
                    operation()
                    assert mine.next_number >= watermark
                    watermark = mine.next_number
                    mine.conn.commit()
                    done[name] += 1
                except psycopg.Error as exc:
                    mine.conn.rollback()
                    if exc.sqlstate not in REFUSALS:
                        raise

        return work

    assert at_once(database_url, world.company, *map(session, range(4))) == []
    assert len(done) >= 7, done
    assert done.total() >= 60, done
    with psycopg.connect(database_url) as conn:
        after = World(conn, world.company)
        assert after.faults() == []
        sums = after.row(
            """
            select (select count(*) from backfill.backfill_log where status = 'running') as unfinished,
                (select coalesce(sum(amount_paid_cents), 0) from billing.invoices)
                    - (select coalesce(sum(amount_cents), 0) from billing.check_payment_applications) as unexplained,
                (select count(*) from billing.check_balances where unapplied_cents < 0) as overdrawn,
                (select count(*) from billing.interest_accruals as a join billing.invoices as i on i.id = a.invoice_id
                    where i.origin = 'backfill') as retroactive,
                (select count(*) from billing.invoices as i join billing.settings as s on s.company_id = i.company_id
                    where billing.invoice_ordinal(i.invoice_number) >= s.next_invoice_number) as above_the_watermark
            """
        )
        assert set(sums.values()) == {0}, sums
