"""The backfill "charges": which rent is due, what is rejected, what is never made twice."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import psycopg
import pytest

from runner import migrations
from runner.database import connect, locked_transaction
from runner.settings import Settings
from runner.systems import SYSTEMS
from tests.engine.words import Connection, do, refusal, refused, reverse, rows, value
from tests.place import EVERYTHING

UNIT = "00000000-0000-0000-0000-00000000000"

# A database that had the application's tables before, with cents as integer and timestamps without a zone.
APPLICATION = """
    create schema property;
    create table property.units (id uuid primary key default gen_random_uuid(), rent_amount_cents integer);
    create table property.payments (
        id uuid primary key default gen_random_uuid(), tenant_user_id text, unit_id uuid, amount_cents integer,
        payment_method text, status text, billing_period text, paid_at timestamp
    );
    create table property.charges (
        id uuid primary key default gen_random_uuid(), tenant_user_id text not null, unit_id uuid not null,
        type text not null, description text not null, amount_cents integer not null, billing_period text,
        created_by text,
        created_at timestamp not null default now(), note text not null default ''
    );
"""


def unit(conn: Connection, number: int, rent: int | None) -> str:
    conn.execute("insert into property.units (id, rent_amount_cents) values (%s, %s)", [f"{UNIT}{number}", rent])
    return f"{UNIT}{number}"


def pay(conn: Connection, unit_id: str | None, period: str | None, cents: int | None, **more: str | None) -> None:
    tenant, status = more.get("tenant", "tom"), more.get("status", "succeeded")
    conn.execute(
        """insert into property.payments (tenant_user_id, unit_id, amount_cents, payment_method, status, billing_period)
        values (%s, %s, %s, 'card', %s, %s)""",
        [tenant, unit_id, cents, status, period],
    )


def charge(
    conn: Connection, unit_id: str, period: str | None, cents: int, kind: str = "rent", tenant: str = "tom"
) -> None:
    conn.execute(
        """insert into property.charges
            (tenant_user_id, unit_id, type, description, amount_cents, billing_period, created_by)
        values (%s, %s, %s, 'by the app', %s, %s, 'app')""",
        [tenant, unit_id, kind, cents, period],
    )


def charges(conn: Connection) -> list[tuple[str, str, int]]:
    """What the backfill wrote: tenant, period, cents."""
    return rows(
        conn,
        """select tenant_user_id, billing_period, amount_cents from property.charges
        where created_by is null order by 1, 2, 3""",
    )


def apply(url: str) -> None:
    settings = Settings(conninfo=url, systems=SYSTEMS)
    with connect(settings) as conn, locked_transaction(conn, settings):
        migrations.apply(conn, EVERYTHING)


@pytest.fixture(params=["our tables", "the application's tables"])
def house(request: pytest.FixtureRequest) -> Iterator[psycopg.Connection]:
    """A migrated database whose tables are the baseline's own, or the application's."""
    if request.param == "our tables":
        yield request.getfixturevalue("conn")
        return
    url: str = request.getfixturevalue("empty_database_url")
    with psycopg.connect(url) as empty:
        do(empty, APPLICATION)
    apply(url)
    with psycopg.connect(url) as theirs:
        yield theirs
        theirs.rollback()


def test_one_charge_for_each_tenant_unit_and_period(house: psycopg.Connection) -> None:
    one, none = unit(house, 1, 90000), unit(house, 2, None)
    for cents in (90000, 100, 50):
        pay(house, one, "2024-01", cents)
        pay(house, none, "2024-01", cents)
    pay(house, none, "2024-02", 70, status="pending")
    pay(house, one, "2024-03", 1, status="failed")
    pay(house, one, "2024-01", 90000, tenant="ann")
    run_id = value(house, "select run_id from backfill.run('charges')")
    assert charges(house) == [
        ("ann", "2024-01", 90000),
        ("tom", "2024-01", 90000),
        ("tom", "2024-01", 90000),
        ("tom", "2024-02", 70),
    ]
    columns = "type, description, created_by, created_at = now()"
    assert rows(house, f"select {columns} from property.charges where billing_period = '2024-02'") == [
        ("rent", "Rent for 2024-02", None, True)
    ]
    assert rows(house, "select status, metrics -> 'tables' from backfill.run('charges')") == [("succeeded", {})]
    house.commit()
    ids = "select array_agg(id order by id) from property.charges"
    first = value(house, ids)
    assert reverse(house, run_id) == {"restored": 4}
    assert charges(house) == []
    house.execute("select backfill.run('charges')")
    assert value(house, ids) == first, "the same charge has the same id"


def test_rent_decides(house: psycopg.Connection) -> None:
    for number, (rent, expected) in enumerate([(0, 0), (1, 1), (2147483647, 2147483647), (None, 5)]):
        pay(house, unit(house, number, rent), f"2024-0{number + 1}", 5)
        assert rows(
            house, "select cents from backfill.charges_due where billing_period = %s", [f"2024-0{number + 1}"]
        ) == [(expected,)]
    house.execute("select backfill.run('charges')")
    assert [cents for _, _, cents in charges(house)] == [0, 1, 2147483647, 5]


def test_what_the_application_charged_is_not_charged_again(house: psycopg.Connection) -> None:
    one = unit(house, 1, 500)
    for month in ("01", "02", "03", "04"):
        pay(house, one, f"2024-{month}", 500)
    charge(house, one, "2024-01", 499)
    charge(house, one, "2024-02", 30, "late_fee")
    charge(house, one, "2024-03", 500, tenant="ann")
    charge(house, one, None, 500)
    charge(house, one, None, 500)
    house.execute("select backfill.run('charges')")
    assert charges(house) == [("tom", "2024-02", 500), ("tom", "2024-03", 500), ("tom", "2024-04", 500)]


PERIODS = [
    "2024-13",
    "2024-00",
    "2024-1",
    "",
    "2024-01 ",
    " 2024-01",
    "2024-01\n",
    "202401",
    "2024-01-01",
    "２０２４-01",
    "Jan 2024",
]


def test_rejects_name_the_value(house: psycopg.Connection) -> None:
    one, negative = unit(house, 1, 500), unit(house, 2, -1)
    for period in PERIODS:
        pay(house, one, period, 5)
    pay(house, one, "2024-05", 0)
    pay(house, one, "2024-05", -5)
    pay(house, one, "2024-06", -5, status="failed")
    pay(house, negative, "2024-06", 5)
    found = rows(house, "select reason, cents, payload ->> 'period' from backfill.charges_rejects")
    expected = [(f"billing_period is not YYYY-MM: '{period}'", 5, period) for period in PERIODS]
    expected += [(f"amount is not positive: {cents} cents", cents, "2024-05") for cents in (0, -5)]
    expected += [(f"rent of unit {negative} is negative: -1 cents", 5, "2024-06")]
    assert sorted(found) == sorted(expected)
    with pytest.raises(psycopg.Error, match="charges: 14 source rows cannot be taken, 0 allowed") as caught:
        house.execute("select backfill.run('charges')")
    assert "is not YYYY-MM" in refused(caught)


def test_a_bad_payment_beside_a_good_one(house: psycopg.Connection) -> None:
    """The good one is charged; the bad one is a reject that has to be allowed, once."""
    none = unit(house, 1, None)
    for cents in (-900, 0, 300, 200):
        pay(house, none, "2024-05", cents)
    with pytest.raises(psycopg.Error, match="2 source rows"):
        house.execute("savepoint a; select backfill.run('charges', p_allow_rejects => 1)")
    house.execute("rollback to a; select backfill.run('charges', p_allow_rejects => 2)")
    assert charges(house) == [("tom", "2024-05", 300)]
    assert rows(house, "select due_rows, rejects from backfill.due('{charges}')") == [(0, 0)]


def test_every_payment_ends_in_one_bucket(house: psycopg.Connection) -> None:
    """Also what the application's tables allow and ours do not: payments without tenant, unit, amount or period."""
    one = unit(house, 1, 500)
    pay(house, one, "2024-01", 5)
    pay(house, one, "2024-02", 0)
    told = {"amount is not positive: 0 cents"}
    nullable = "select not attnotnull from pg_attribute where attrelid = 'property.payments'::regclass and attname = %s"
    if value(house, nullable, ["unit_id"]):
        pay(house, one, None, 5)
        pay(house, one, "2024-03", None)
        pay(house, None, "2024-03", 5)
        pay(house, f"{UNIT}9", "2024-03", 5)
        pay(house, one, "2024-03", 5, tenant=None)
        told |= {
            "billing_period is not YYYY-MM: NULL",
            "amount is not positive: null cents",
            "there is no unit null",
            f"there is no unit {UNIT}9",
            "payment has no tenant",
        }
    rejects = rows(house, "select reason from backfill.charges_rejects")
    assert {reason for (reason,) in rejects} == told
    payments = value(house, "select count(*) from property.payments where status <> 'failed'")
    assert payments == len(rejects) + value(house, "select sum(payments) from backfill.charges_due")


def test_the_balance_counts_credits_and_shows_what_is_pending(house: psycopg.Connection) -> None:
    one = unit(house, 1, 500)
    charge(house, one, "2024-01", 500)
    charge(house, one, "2024-01", -120, "credit")
    charge(house, one, None, 30, "late_fee")
    pay(house, one, "2024-01", 300)
    pay(house, one, "2024-01", 50, status="pending")
    pay(house, one, "2024-01", 999, status="failed")
    pay(house, one, "2024-01", 40, tenant="ann")
    charge(house, one, "2024-01", 7, "adjustment", tenant="bob")
    assert rows(house, "select * from property.tenant_balance order by tenant_user_id") == [
        ("ann", 0, 40, 0, -40),
        ("bob", 7, 0, 0, 7),
        ("tom", 410, 300, 50, 110),
    ]


def test_a_changed_charge_of_an_earlier_run_is_named_not_made_twice(house: psycopg.Connection) -> None:
    pay(house, unit(house, 1, 500), "2024-01", 5)
    house.execute("select backfill.run('charges')")
    do(house, "update property.charges set billing_period = '2024-02'")
    with pytest.raises(psycopg.Error, match="no longer the rent of their tenant") as caught:
        house.execute("select backfill.run('charges')")
    assert caught.value.sqlstate == "BF007"
    assert f"tom / {UNIT}1 / 2024-01" in refused(caught)


def test_an_application_that_charges_meanwhile_meets_no_error(conn: psycopg.Connection, database_url: str) -> None:
    one = unit(conn, 1, 500)
    for month in range(1, 10):
        pay(conn, one, f"2024-0{month}", 500)
    conn.commit()
    outcome: list[object] = []

    def backfill() -> None:
        with psycopg.connect(database_url) as other:
            outcome.append(
                value(other, "select metrics -> 'tables' -> 'property.charges' from backfill.run('charges')")
            )

    with psycopg.connect(database_url) as application, psycopg.connect(database_url, autocommit=True) as watcher:
        charge(application, one, "2024-05", 500)
        thread = threading.Thread(target=backfill)
        thread.start()
        while value(watcher, "select count(*) from pg_locks where not granted") == 0 and thread.is_alive():
            pass
        assert thread.is_alive(), "the run waits for the application"
        application.commit()
        thread.join()
    assert outcome == [{"inserted": 8, "updated": 0, "deleted": 0, "money": {"amounts": 4000}, "finer": 0}]
    periods = rows(conn, "select billing_period, count(*), min(created_by) from property.charges group by 1 order by 1")
    assert [(count, by) for _, count, by in periods] == [(1, "app" if m == 5 else None) for m in range(1, 10)]


def test_existing_duplicates_are_listed_before_the_index_is_built(
    empty_database_url: str, dump: Callable[..., str]
) -> None:
    with psycopg.connect(empty_database_url) as application:
        do(application, APPLICATION)
        one = unit(application, 1, 500)
        for period in ("2024-01", "2024-01", "2024-01", "2024-02", "2024-02", "2024-03"):
            charge(application, one, period, 500)
        for _ in range(2):
            charge(application, one, None, 500)
            charge(application, one, "2024-04", 5, "late_fee")
    before = dump(empty_database_url)
    with refusal("BF007", match="more than one rent charge for 2 tenants, units and periods") as caught:
        apply(empty_database_url)
    assert f"tom / {UNIT}1 / 2024-01: 3 rent charges" in str(caught.value)
    assert dump(empty_database_url) == before
