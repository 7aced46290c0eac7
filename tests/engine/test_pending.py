"""What an application deferred before a run is none of the run: it is fired before, and not undone with it."""

from __future__ import annotations

import psycopg
import pytest

from tests.engine.words import changes, do, make, reverse, rows, value

SHOP = """
    create schema shop;
    create table shop.account (id integer primary key, cents bigint not null, place integer);
    create table shop.pay (id integer primary key, account_id integer, cents bigint not null);
    alter table shop.account add constraint one_a_place unique (place) deferrable initially immediate;
    alter table shop.pay add foreign key (account_id) references shop.account deferrable initially deferred;
    insert into shop.account values (1, 0, 1), (2, 0, 2);
    create table shop.who (name text);
    create function shop.keep() returns trigger language plpgsql as $$ begin
        update account set cents = cents + new.cents where id = new.account_id;
        insert into who values (current_user);
        return null; end $$;
    create constraint trigger keep after insert on shop.pay deferrable initially deferred
        for each row execute function shop.keep()"""
CENTS = "select cents from shop.account order by id"


@pytest.fixture
def shop(conn: psycopg.Connection) -> psycopg.Connection:
    """Accounts whose balance a deferred trigger keeps, that names its tables without a schema."""
    make(conn, SHOP, "shop.account", "shop.pay")
    do(conn, "set search_path = shop, public", "insert into shop.pay values (1, 1, 5)")
    conn.commit()
    return conn


def finish(conn: psycopg.Connection) -> None:
    do(conn, "select backfill.finish_run()")
    conn.commit()


def test_what_waited_before_a_run_is_not_of_it_and_not_undone(shop: psycopg.Connection) -> None:
    do(shop, "insert into shop.pay values (2, 1, 70)")
    run_id = value(shop, "select backfill.begin_run('x')")
    assert rows(shop, CENTS) == [(75,), (0,)]
    # It waits again: what the run inserts is booked at its end, and is of it.
    do(shop, "insert into shop.pay values (3, 2, 8)")
    assert rows(shop, CENTS) == [(75,), (0,)]
    finish(shop)
    assert rows(shop, CENTS) == [(75,), (8,)]
    assert sorted(changes(shop, run_id, "table_name, operation")) == [
        ("shop.account", "UPDATE"),
        ("shop.pay", "INSERT"),
    ]
    do(shop, "alter table shop.pay disable trigger keep")
    assert reverse(shop, run_id) == {"restored": 2}
    assert rows(shop, CENTS) == [(75,), (0,)]


def test_what_waits_before_a_run_goes_on_is_none_of_it_either(shop: psycopg.Connection) -> None:
    run_id = value(shop, "select backfill.begin_run('x', p_spans_transactions => true)")
    shop.commit()
    do(shop, "insert into shop.pay values (2, 1, 70)", f"select backfill.resume_run('{run_id}')")
    finish(shop)
    assert changes(shop, run_id) == []
    assert rows(shop, CENTS) == [(75,), (0,)]


def test_what_waits_before_a_reversal_is_none_of_it_either(shop: psycopg.Connection) -> None:
    run_id = value(shop, "select backfill.begin_run('x')")
    do(shop, "update shop.account set cents = 9 where id = 2")
    finish(shop)
    do(shop, "insert into shop.pay values (2, 1, 70)")
    assert reverse(shop, run_id) == {"restored": 1}
    undo = value(shop, "select run_id from backfill.backfill_log where reverses = %s", [run_id])
    assert changes(shop, undo, "table_name, business_key") == [("shop.account", "2")]
    assert rows(shop, CENTS) == [(75,), (0,)]


def test_a_key_that_somebody_deferred_for_the_run_stays_deferred(shop: psycopg.Connection) -> None:
    """Keys are only checked: they are left to wait, also one that is wrong for now."""
    do(shop, "set constraints shop.one_a_place deferred", "insert into shop.pay values (2, 3, 1)")
    with pytest.raises(psycopg.errors.ForeignKeyViolation):
        do(shop, "select backfill.begin_run('x')", "select backfill.finish_run()")
    shop.rollback()
    do(shop, "set constraints shop.one_a_place deferred")
    run_id = value(shop, "select backfill.begin_run('x')")
    do(shop, "update shop.account set place = 2 where id = 1", "update shop.account set place = 1 where id = 2")
    finish(shop)
    assert reverse(shop, run_id) == {"restored": 2}


def test_what_waited_fires_with_the_rights_of_whoever_begins(shop: psycopg.Connection) -> None:
    """Also on servers where a trigger takes the rights of the function in which it is fired."""
    do(
        shop,
        "create role teller",
        "grant backfill_operator to teller",
        "grant usage on schema shop to teller",
        "grant all on all tables in schema shop to teller",
        "delete from shop.who",
        "set local role teller",
        "insert into shop.pay values (2, 1, 70)",
        "select backfill.begin_run('x')",
        "insert into shop.pay values (3, 1, 70)",
        "select backfill.finish_run()",
        "reset role",
    )
    assert rows(shop, "select * from shop.who") == [("teller",), ("teller",)]
    shop.rollback()


def test_what_fails_when_it_is_fired_begins_no_run(shop: psycopg.Connection) -> None:
    do(shop, "alter table shop.account add check (cents < 100)", "insert into shop.pay values (2, 1, 700)")
    with pytest.raises(psycopg.errors.CheckViolation):
        do(shop, "select backfill.begin_run('x')")
    shop.rollback()
    assert value(shop, "select count(*) from backfill.backfill_log") == 0
