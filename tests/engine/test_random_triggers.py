"""Random runs and reversals among triggers that keep a balance and stamp rows: as before but for stamps, or refused."""

from __future__ import annotations

import random
from contextlib import suppress
from typing import Any

import psycopg
import pytest

from tests.engine.words import do, images, make, rows, value

SHOP = """
    create schema shop;
    create table shop.account (id integer primary key, cents bigint not null default 0, touched timestamptz);
    create table shop.item (
        id integer primary key, account_id integer references shop.account, cents bigint not null, note text,
        touched timestamptz);
    create function shop.touch() returns trigger language plpgsql as $$ begin
        new.touched := clock_timestamp(); return new; end $$;
    create function shop.keep() returns trigger language plpgsql as $$ begin
        if tg_op <> 'INSERT' then update account set cents = cents - old.cents where id = old.account_id; end if;
        if tg_op <> 'DELETE' then update account set cents = cents + new.cents where id = new.account_id; end if;
        return null; end $$;
    create trigger touch before update on shop.account for each row execute function shop.touch();
    create trigger touch before insert or update on shop.item for each row execute function shop.touch()"""
KEEP = """trigger keep after insert or update of cents, account_id or delete on shop.item {}
    for each row execute function shop.keep()"""

STORIES = 4

State = dict[tuple[str, int], tuple[Any, ...]]


def state(conn: psycopg.Connection) -> State:
    """Every row by its key, its stamp left out."""
    found = rows(conn, "select 'a', id, cents, null, null from shop.account")
    found += rows(conn, "select 'i', id, cents, account_id, note from shop.item")
    return {(row[0], row[1]): row[2:] for row in found}


def statement(dice: random.Random) -> str:
    """One statement on few rows, so that statements meet."""
    one, other = dice.randint(1, 4), dice.randint(1, 4)
    return dice.choice(
        [
            f"insert into shop.account values ({one})",
            f"insert into shop.item values ({one}, {other}, {dice.randint(1, 9)})",
            f"insert into shop.item select i, {one}, i from generate_series(5, {4 + other}) as i",
            f"insert into shop.item values ({one}, {other}, 1) on conflict (id) do update set cents = item.cents + 1",
            f"update shop.item set cents = cents + {one} where id % 4 = {other % 4}",
            f"update shop.item set account_id = {one} where id = {other}",
            f"update shop.item set note = 'n{one}' where id <= {other}",
            f"update shop.account set cents = cents + {one} where id = {other}",
            f"delete from shop.item where id % 4 = {one % 4}",
            f"delete from shop.account where id = {one}",
        ]
    )


def write(conn: psycopg.Connection, dice: random.Random, count: int) -> None:
    """Random statements, each as the application would make it; one that a key refuses is left out."""
    for _ in range(count):
        with suppress(psycopg.errors.IntegrityError), conn.transaction():
            conn.execute(statement(dice).encode())


def may_be_undone(before: State, after: State, now: State) -> bool:
    """Is every row that the run changed what it left, or what it was?"""
    changed = [key for key in before.keys() | after.keys() if before.get(key) != after.get(key)]
    return all(now.get(key) in (before.get(key), after.get(key)) for key in changed)


@pytest.mark.parametrize("kind", ["", "deferrable initially deferred"])
def test_balances_and_stamps_in_any_order(conn: psycopg.Connection, kind: str) -> None:
    make(conn, f"{SHOP}; create {'constraint ' if kind else ''}{KEEP.format(kind)}")
    do(conn, "set search_path = shop, public")
    make(conn, "")
    for table in ("account", "item"):
        do(conn, f"select backfill.track('{table}', p_stamped => '{{touched}}')")
    conn.commit()
    undone = refused = 0
    for story in range(STORIES):
        dice = random.Random(f"{story} {kind}")
        do(conn, "delete from shop.item", "delete from shop.account")
        conn.commit()
        write(conn, dice, 8)
        conn.commit()
        done: list[tuple[Any, State, State]] = []
        for _ in range(16):
            if dice.random() < 0.5:
                before = state(conn)
                run_id = value(conn, "select backfill.begin_run('random')")
                write(conn, dice, dice.choice([1, 2, 5]))
                conn.execute("select backfill.finish_run()")
                conn.commit()
                done.append((run_id, before, state(conn)))
            elif dice.random() < 0.4:
                write(conn, dice, 1)
                conn.commit()
            elif done:
                run_id, before, after = done.pop() if dice.random() < 0.6 else done.pop(dice.randrange(len(done)))
                now, bytes_now = state(conn), images(conn, "shop.account", "shop.item", "backfill.backfill_log")
                try:
                    found = {row[2] for row in rows(conn, "select * from backfill.reverse_run(%s)", [run_id])}
                    conn.commit()
                except psycopg.Error as error:
                    conn.rollback()
                    if error.sqlstate != "BF005" or now == after:  # nobody was there since
                        raise
                    assert bytes_now == images(conn, "shop.account", "shop.item", "backfill.backfill_log")
                    refused += 1
                    continue
                undone += 1
                assert found <= {"restored", "already original"}
                assert may_be_undone(before, after, now), "rows that were changed since were overwritten"
                touched = {key for key in before.keys() | after.keys() if before.get(key) != after.get(key)}
                left = state(conn)
                assert {key: left.get(key) for key in touched} == {key: before.get(key) for key in touched}
                for key in left.keys() | now.keys():
                    assert key in touched or left.get(key) == now.get(key), "a row that the run never touched"
    assert undone > 5
    assert refused > 0
