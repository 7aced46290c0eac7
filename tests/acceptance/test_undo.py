"""Undoing among an application's triggers, by the commands that a person types: stamps, and a balance kept."""

from __future__ import annotations

import psycopg
import pytest

from tests.engine.words import do, value
from tests.story import run, sql

APPLICATION = """
    create schema shop;
    create table shop.account (
        id integer primary key, cents bigint not null check (cents >= 0),
        updated_at timestamptz not null default '2024-01-01');
    create table shop.pay (
        id integer primary key, account_id integer not null references shop.account, cents bigint not null,
        note text, updated_at timestamptz not null default '2024-01-01');
    create function shop.touch() returns trigger language plpgsql as $$ begin
        new.updated_at := now(); return new; end $$;
    create function shop.keep() returns trigger language plpgsql as $$ begin
        if tg_op <> 'INSERT' then update account set cents = cents - old.cents where id = old.account_id; end if;
        if tg_op <> 'DELETE' then update account set cents = cents + new.cents where id = new.account_id; end if;
        return null; end $$;
    insert into shop.account select i, 0 from generate_series(1, 3) as i;
    create trigger touch before update on shop.account for each row execute function shop.touch();
    create trigger touch before update on shop.pay for each row execute function shop.touch();
    create trigger keep after insert or update of cents or delete on shop.pay for each row execute function shop.keep();
    set search_path = shop, public;
    insert into pay select i, i, 100 * i from generate_series(1, 3) as i;"""

BALANCES = "select string_agg(cents::text, ' ' order by id) from shop.account"


@pytest.fixture
def url(database_url: str) -> str:
    """An application that was there first, its tables tracked by somebody who sees them without their schema."""
    with psycopg.connect(database_url) as conn:
        do(
            conn,
            APPLICATION,
            "select backfill.track('pay', null, 'cents')",
            "select backfill.track('account', null, 'cents')",
        )
    return database_url


def correct(url: str, title: str, *statements: str) -> str:
    """A correction by hand, as the application's own session would make it; the run's id."""
    with psycopg.connect(url) as conn:
        do(conn, "set search_path = shop, public")
        run_id = value(conn, "select backfill.begin_run(%s)", [title])
        do(conn, *statements, "select backfill.finish_run()")
    return str(run_id)


def test_an_update_that_the_application_stamps_can_be_undone_once_it_is_declared(url: str) -> None:
    run_id = correct(url, "notes", "update pay set note = 'seen' where id <= 2")
    refused = run(url, "rollback", run_id, "--yes", code=6)
    call = "select backfill.track('shop.pay', p_stamped => '{updated_at}')"
    assert "Trigger touch sets updated_at anew" in refused.text
    assert call in refused.text
    sql(url, call)
    tried = run(url, "rollback", run_id, "--dry-run")
    assert "shop.pay: updated_at of 2 rows is stamped anew by trigger touch." in tried.text
    done = run(url, "rollback", run_id, "--yes", "--json").json
    assert done["stamped"] == [{"table": "shop.pay", "columns": ["updated_at"], "rows": 2, "triggers": ["touch"]}]
    assert sql(url, "select count(*) from shop.pay where note is not null") == [(0,)]
    shown = run(url, "log", run_id, "--json", "--all").json["changes"]
    assert all(change["row"]["updated_at"] > "2024-01-01" for change in shown)


def test_a_balance_that_a_trigger_keeps_is_undone_once_with_its_payments(url: str) -> None:
    sql(url, "select backfill.track('shop.account', p_stamped => '{updated_at}')")
    assert sql(url, BALANCES) == [("100 200 300",)]
    paid = correct(url, "two payments", "insert into pay values (10, 1, 50), (11, 1, 25)")
    moved = correct(url, "moved", "update account set cents = cents + 7 where id = 2", "delete from pay where id = 10")
    assert sql(url, BALANCES) == [("125 207 300",)]
    assert "account 1: changed since (cents)" in run(url, "rollback", paid, "--yes", code=6).text
    done = run(url, "rollback", "--since", paid, "--yes", "--json").json
    assert [one["run_id"] for one in done["reversals"]] == [moved, paid]
    assert sql(url, BALANCES) == [("100 200 300",)]
    assert sql(url, "select count(*) from shop.pay") == [(3,)]
    # And the undo of an undo brings the payments back, and the balances with them.
    run(url, "rollback", done["reversals"][1]["reversal_id"], "--yes")
    assert sql(url, BALANCES) == [("175 200 300",)]
