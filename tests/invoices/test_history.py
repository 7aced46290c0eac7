"""History keeps its dates: interest of each day, aging and statements as of any day, whatever is entered later."""

from __future__ import annotations

import datetime as dt
import random
import uuid
from typing import Any

import psycopg
import pytest

from tests.invoices.world import World

AGES = ("current_cents", "days_1_to_30_cents", "days_31_to_60_cents", "days_61_to_90_cents", "days_over_90_cents")


@pytest.fixture
def lending(conn: psycopg.Connection) -> World:
    """A company that takes 10 % a year, with one facility."""
    world = World.create(conn, interest_bps=1_000)
    world.facility()
    return world


def facility(world: World) -> uuid.UUID:
    return world.id("select id from billing.facilities where company_id = %s order by name limit 1", world.company)


def aging(world: World, day: str | dt.date, by: str = "facility") -> list[dict[str, Any]]:
    return world.rows("select * from billing.aging(%s, %s)", day, by)


def refusal(world: World, query: str, *parameters: object) -> str:
    with pytest.raises(psycopg.Error) as caught, world.conn.transaction():
        world.conn.execute(query.encode(), parameters)
    return str(caught.value)


# ---- interest


def accrue(world: World, day: str) -> list[tuple[str, int, int]]:
    rows = world.rows("select * from billing.accrue_overdue_interest(%s)", day)
    return [(str(row["accrued_from"]), row["base_cents"], row["amount_cents"]) for row in rows]


def test_interest_counts_each_day_on_what_was_open_that_day(lending: World) -> None:
    lending.issue(facility(lending), "INV-0014", 10_000)  # due 2024-01-31
    lending.allocate(lending.check(facility(lending), 5_000, on="2024-03-01"))
    assert accrue(lending, "2024-04-30") == [("2024-01-31", 10_000, 164)]
    assert accrue(lending, "2024-04-30") == []


def test_interest_does_not_depend_on_when_it_is_taken(lending: World) -> None:
    lending.issue(facility(lending), "INV-0014", 1_000_000)
    lending.allocate(lending.check(facility(lending), 500_000, on="2024-03-01"))
    parts = [accrue(lending, day)[0][2] for day in ("2024-02-15", "2024-03-01", "2024-04-30")]
    assert parts == [4_110, 4_110, 8_219]  # 15 days and 15 days on all of it, 60 on half


def test_what_was_paid_late_bears_interest_until_then(lending: World) -> None:
    lending.issue(facility(lending), "INV-0014", 10_000)
    lending.allocate(lending.check(facility(lending), 10_000, on="2024-03-01"))
    assert lending.invoice("INV-0014")["status"] == "paid"
    assert accrue(lending, "2024-04-30") == [("2024-01-31", 10_000, 82)]
    assert accrue(lending, "2024-06-30") == []


def test_a_check_that_came_back_leaves_the_days_it_paid(lending: World) -> None:
    lending.issue(facility(lending), "INV-0014", 365_000)
    check = lending.check(facility(lending), 365_000, on="2024-02-10")
    lending.allocate(check)
    lending.conn.execute("select * from billing.return_check(%s, '2024-02-20', 'no funds')", [check])
    assert accrue(lending, "2024-03-01") == [("2024-01-31", 365_000, 2_000)]  # ten days before it, ten after it


# ---- aging


def test_an_invoice_is_open_until_the_day_of_its_money(lending: World) -> None:
    lending.issue(facility(lending), "INV-0001", 10_000, on="2024-04-30")  # due 2024-05-30
    lending.allocate(lending.check(facility(lending), 10_000, on="2024-06-30"))
    assert aging(lending, "2024-04-29") == []
    (row,) = aging(lending, "2024-05-31")
    assert (row["days_1_to_30_cents"], row["open_cents"], row["currency"], row["debtor"]) == (
        10_000, 10_000, "USD", "Hillside",
    )  # fmt: skip
    assert aging(lending, "2024-06-30") == []
    assert lending.rows("select * from billing.aging()") == []


def test_the_edges_of_the_five_ages(lending: World) -> None:
    for number, days in enumerate((-1, 0, 1, 30, 31, 60, 61, 90, 91), 1):
        due = dt.date(2024, 12, 31) - dt.timedelta(days=days)
        lending.issue(facility(lending), f"INV-{number:04}", 2 ** (number - 1), on="2024-01-01", due=str(due))
    (row,) = aging(lending, "2024-12-31")
    assert [row[age] for age in AGES] == [1 + 2, 4 + 8, 16 + 32, 64 + 128, 256]
    assert row["open_cents"] == 511


def test_aging_goes_by_customer_and_currency_too(lending: World) -> None:
    ada = lending.customer()
    lending.issue(facility(lending), "INV-0001", 100, customer=ada)
    lending.issue(facility(lending), "INV-0002", 200, customer=ada, currency="EUR", on="2024-01-08")
    lending.issue(facility(lending), "INV-0003", 400, on="2024-01-15")
    found = [(row["debtor"], row["currency"], row["open_cents"]) for row in aging(lending, "2024-12-31", "customer")]
    assert found == [("Ada", "EUR", 200), ("Ada", "USD", 100), (None, "USD", 400)]
    assert "by facility or customer, not by 'week'" in refusal(lending, "select * from billing.aging(null, 'week')")


def test_what_is_void_was_owed_before(lending: World) -> None:
    made = lending.issue(facility(lending), "INV-0001", 10_000, on="2024-04-30")
    lending.conn.execute("select billing.void_invoice(%s, 'billed twice', p_on => '2024-06-15')", [made])
    assert [len(aging(lending, day)) for day in ("2024-06-14", "2024-06-15")] == [1, 0]
    late = "select billing.void_invoice(%s, 'x', p_on => %s)"
    other = lending.issue(facility(lending), "INV-0002", 10_000, on="2024-05-30")
    assert "before its issue" in refusal(lending, late, other, "2024-05-29")
    assert "still to come" in refusal(lending, late, other, "2999-01-01")


# ---- statements


def test_a_statement_begins_with_what_was_open_and_tells_every_move(lending: World) -> None:
    where = facility(lending)
    lending.issue(where, "INV-0001", 10_000, on="2024-01-10")
    lending.issue(where, "INV-0002", 20_000, on="2024-02-10")
    euros = lending.issue(where, "INV-0003", 700, on="2024-02-11", currency="EUR")
    check = lending.check(where, 15_000, on="2024-03-05")
    lending.allocate(check)
    lending.conn.execute("select * from billing.return_check(%s, '2024-03-09', 'no funds')", [check])
    lending.conn.execute("select billing.write_off(%s, 700, 'bad-debt', 'gone', '2024-03-20')", [euros])
    rows = lending.rows("select * from billing.statement(%s, '2024-02-01', '2024-03-31')", where)
    told = [tuple(row.values()) for row in rows]
    assert [(code, str(day), *rest) for code, day, *rest in told] == [
        ("EUR", "2024-02-01", "opening balance", None, 0, 0),
        ("EUR", "2024-02-11", "invoice", "INV-0003", 700, 700),
        ("EUR", "2024-03-20", "write-off", "INV-0003", -700, 0),
        ("USD", "2024-02-01", "opening balance", None, 10_000, 10_000),
        ("USD", "2024-02-10", "invoice", "INV-0002", 20_000, 30_000),
        ("USD", "2024-03-05", "check", "1 for INV-0001", -10_000, 20_000),
        ("USD", "2024-03-05", "check", "1 for INV-0002", -5_000, 15_000),
        ("USD", "2024-03-09", "check taken back", "1 for INV-0001", 10_000, 25_000),
        ("USD", "2024-03-09", "check taken back", "1 for INV-0002", 5_000, 30_000),
    ]  # fmt: skip
    assert "not from 2024-02-02 to 2024-02-01" in refusal(
        lending, "select * from billing.statement(%s, '2024-02-02', '2024-02-01')", where
    )
    assert "no facility and no customer" in refusal(
        lending, "select * from billing.statement(%s, '2024-02-02', '2024-03-01')", uuid.uuid4()
    )


# ---- whatever comes later


@pytest.mark.parametrize("seed", range(6))
def test_what_is_dated_later_never_changes_an_earlier_day(lending: World, seed: int) -> None:
    dice = random.Random(seed)
    day = dt.date(2024, 6, 30)
    places, ada = [facility(lending), lending.facility("Lakeview")], lending.customer()
    number = iter(range(1, 1_000))

    def dated(first: dt.date) -> str:
        return str(first + dt.timedelta(days=dice.randint(0, 60)))

    def some(query: str) -> Any:
        found = lending.rows(query)
        return dice.choice(found) if found else None

    def step(first: dt.date) -> None:
        """One thing that happens on some day from the first on; what is refused has changed nothing."""
        on = dated(first)
        match dice.randint(0, 7):
            case 0:
                made = f"INV-{next(number):04}"
                currency = dice.choice(["USD", "EUR"])
                lending.issue(dice.choice(places), made, dice.randint(1, 900), customer=ada, on=on, currency=currency)
            case 1:
                lending.allocate(lending.check(dice.choice(places), dice.randint(1, 900), on=on))
            case 2:
                lending.payment(ada, dice.randint(1, 900), f"INV-{dice.randint(1, 20)}", on=on)
                lending.conn.execute("select backfill.run('payment_links')")
            case 3 if row := some("select id from billing.applications where effective_until is null"):
                lending.conn.execute("select billing.unapply(%s, 'why', %s)", [row["id"], on])
            case 4 if row := some("select id from billing.check_payments"):
                lending.conn.execute("select * from billing.return_check(%s, %s, 'why')", [row["id"], on])
            case 5 if row := some("select id from billing.invoices"):
                lending.conn.execute("select billing.write_off(%s, %s, 'bad-debt', 'x', %s)", [row["id"], 5, on])
            case 6 if row := some("select id from billing.invoices"):
                lending.conn.execute("select billing.void_invoice(%s, 'why', p_on => %s)", [row["id"], on])
            case 7:
                lending.conn.execute("select * from billing.allocate_on_account(p_customer => %s)", [ada])

    def happen(first: dt.date, times: int) -> None:
        for _ in range(times):
            try:
                with lending.conn.transaction():
                    step(first)
            except psycopg.Error as exc:
                if exc.sqlstate not in ("BF033", "BF302"):
                    raise

    for place in places * 3:
        lending.issue(place, f"INV-{next(number):04}", 700, customer=ada, on=dated(dt.date(2024, 4, 1)))
    happen(dt.date(2024, 4, 1), 25)
    # What is on account and could pay has paid: to apply it later would be an entry of an earlier day.
    for place in places:
        lending.conn.execute("select * from billing.allocate_on_account(p_facility => %s)", [place])
    lending.conn.execute("select * from billing.allocate_on_account(p_customer => %s)", [ada])
    lending.issue(places[0], f"INV-{next(number):04}", 450, customer=ada, on="2024-06-30")
    told = aging(lending, day), aging(lending, day, "customer")
    assert told[0]
    for _ in range(12):
        happen(day + dt.timedelta(days=1), 2)
        assert (aging(lending, day), aging(lending, day, "customer")) == told
    for at in (dt.date(2024, 5, 1), day, dt.date(2024, 8, 1), dt.date(2025, 1, 1)):
        rows = aging(lending, at)
        assert all(sum(row[age] for age in AGES) == row["open_cents"] for row in rows)
        total = lending.value("select sum(open_cents) from billing.balances_as_of(%s) where issued_on <= %s", at, at)
        assert sum(row["open_cents"] for row in rows) == (total or 0)
        for place in places:
            moves = lending.rows(
                "select * from billing.statement(%s, '2024-05-01', %s)", place, max(at, dt.date(2024, 5, 1))
            )
            last = {row["currency"]: row["balance_cents"] for row in moves}
            owed = {row["currency"]: row["open_cents"] for row in rows if row["debtor_id"] == place}
            assert {code: cents for code, cents in last.items() if cents} == owed
