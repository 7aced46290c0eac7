"""Random runs, reversals and changes by others, against a model: each row byte for byte as before, or a refusal."""

from __future__ import annotations

import random
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import psycopg
import pytest

from tests.engine.words import do, images, make, rows, value

TABLES = {"a": 1, "b": 2, "c": 1}  # how many of the columns, the first ones, are the key
KEYS = [
    ("b", "b_a", "foreign key (a_id) references a"),
    ("b", "b_code", "foreign key (note) references a (code)"),
    ("c", "c_b", "foreign key (tenant, b_id) references b"),
    ("c", "c_c", "foreign key (up) references c"),
]
ACTIONS = ["no action", "cascade", "set null", "set default", "restrict"]
EMPTY = """
    create table a (id integer primary key, code text unique, n numeric);
    create table b (tenant integer, id integer, a_id integer, note text, n numeric, primary key (tenant, id));
    create table c (id integer primary key, tenant integer, b_id integer, up integer, n numeric,
        doubled numeric generated always as (n * 2) stored)"""

Row = tuple[Any, ...]
State = dict[tuple[str, Row], tuple[Row, str]]


@dataclass
class Done:
    """A run with what was there before and after it."""

    run_id: UUID
    before: State
    after: State


def state(conn: psycopg.Connection) -> State:
    """Every row by its key: its values and its bytes."""
    return {
        (table, row[1 : 1 + key]): (row[1:], row[0])
        for table, key in TABLES.items()
        for row in rows(conn, f"select encode(record_send(t), 'hex'), t.* from {table} as t")
    }


def same(one: tuple[Row, str] | None, other: tuple[Row, str] | None) -> bool:
    """Equal as PostgreSQL compares: 1.0 is 1.00."""
    return (one and one[0]) == (other and other[0])


def statement(dice: random.Random) -> str:
    """One statement on few rows, so that statements meet."""

    def number() -> str:
        return str(dice.randint(1, 5))

    def maybe() -> str:
        return dice.choice(["null", number(), number(), number()])

    def amount() -> str:
        return dice.choice(["0", "1", "1.0", "1.00", "n + 1", "null"])

    def code() -> str:
        return dice.choice(["null", f"'k{number()}'"])

    def where() -> str:
        return dice.choice([f"id = {number()}", f"id <= {number()}", f"id % 2 = {dice.randint(0, 1)}"])

    return dice.choice(
        [
            f"insert into a values ({number()}, {code()}, 1)",
            f"insert into a values ({number()}, {code()}, 1) on conflict (id) do update set n = a.n + 1",
            f"insert into b values ({dice.randint(1, 2)}, {number()}, {maybe()}, {code()}, 1)",
            f"insert into c values ({number()}, {dice.randint(1, 2)}, {maybe()}, {maybe()}, 1.0)",
            f"with x as (insert into a values ({number()}) returning id) insert into b select 1, id, id from x",
            f"with x as (delete from c where {where()} returning *) update b set n = 7 where {where()}",
            f"update a set n = {amount()} where {where()}",
            f"update b set n = {amount()}, note = {code()} where {where()}",
            f"update c set n = {amount()} where {where()}",
            f"update a set code = {code()} where {where()}",
            f"update a set id = id + {dice.choice(['1', '10', '-1', '-10'])} where {where()}",
            f"update b set id = {number()}, tenant = {dice.randint(1, 2)} where {where()}",
            f"update c set id = id + {dice.choice(['1', '10', '-10'])} where {where()}",
            f"update b set a_id = {maybe()} where {where()}",
            f"update c set b_id = {maybe()}, up = {maybe()} where {where()}",
            f"delete from a where {where()}",
            f"delete from b where {where()}",
            f"delete from c where {where()}",
        ]
    )


def write(conn: psycopg.Connection, dice: random.Random, count: int) -> None:
    """Random statements; one that a constraint refuses is left out, and all of them where a deferred one does."""
    deferred = value(
        conn, "select string_agg(conname, ', ') from pg_constraint where condeferred and conname ~ '^[bc]_'"
    )
    with suppress(psycopg.errors.IntegrityError), conn.transaction():
        for _ in range(count):
            with suppress(psycopg.errors.IntegrityError), conn.transaction():
                conn.execute(statement(dice).encode())
        if deferred:
            conn.execute(f"set constraints {deferred} immediate")


def connect_tables(conn: psycopg.Connection, dice: random.Random) -> bool:
    """Empties the tables and ties them by foreign keys with random actions; returns whether all of them do nothing."""
    conn.execute("delete from c")
    conn.execute("delete from b")
    conn.execute("delete from a")
    conn.commit()
    plain = dice.random() < 0.4
    for table, name, key in KEYS:
        on_delete, on_update = ("no action", "no action") if plain else (dice.choice(ACTIONS), dice.choice(ACTIONS))
        later = dice.choice(["", "", "deferrable initially deferred"])
        do(
            conn,
            f"alter table {table} drop constraint if exists {name}",
            f"alter table {table} add constraint {name} {key} on delete {on_delete} on update {on_update} {later}",
        )
    conn.commit()
    return plain


def expected(done: Done, now: State) -> State | None:
    """What reversing the run must leave; None: it must refuse."""
    wanted = dict(now)
    for key in done.before.keys() | done.after.keys():
        before, after, found = done.before.get(key), done.after.get(key), now.get(key)
        if before == after or (found == before):
            continue
        if same(found, after):
            wanted.pop(key, None)
            if before is not None:
                wanted[key] = before
        elif not same(found, before):
            return None
    return wanted


def undo(conn: psycopg.Connection, dones: list[Done], at: int) -> str | None:
    """Reverses one run and compares all there is with the model; returns why it refused, if it did."""
    now = state(conn), images(conn, "backfill.backfill_log")
    done = dones[at]
    wanted = expected(done, now[0])
    try:
        results = {row[2] for row in conn.execute("select * from backfill.reverse_run(%s)", [done.run_id])}
        conn.commit()
    except psycopg.Error as error:
        conn.rollback()
        if error.sqlstate != "BF005":
            raise
        assert now == (state(conn), images(conn, "backfill.backfill_log"))
        return error.diag.message_primary
    assert results <= {"restored", "already original"}
    left = state(conn)
    known = [d.run_id for d in dones]
    found = rows(
        conn,
        "select run_id from backfill.backfill_log where reverses = %s and run_id <> all (%s)",
        [done.run_id, known],
    )
    if not found:  # it had been reversed before
        assert now == (left, images(conn, "backfill.backfill_log"))
        return None
    assert wanted is not None, "rows that were changed since were overwritten"
    assert left == wanted
    dones.append(Done(found[0][0], now[0], left))
    return None


def check_log(conn: psycopg.Connection) -> None:
    """Whoever is reversed was reversed by a run that stands; a reversal that stands has its run reversed."""
    wrong = rows(
        conn,
        """select l.run_id, l.status, l.reversed_by, r.status from backfill.backfill_log as l
        left join backfill.backfill_log as r on r.run_id = l.reversed_by
        where (l.status = 'reversed' and r.status = 'reversed')
            or (l.status <> 'reversed' and exists (
                select from backfill.backfill_log as x where x.reverses = l.run_id and x.status <> 'reversed'))""",
    )
    assert not wrong


@pytest.mark.parametrize("seed", range(2))
def test_whatever_was_done_is_undone_to_the_byte_or_refused(conn: psycopg.Connection, seed: int) -> None:
    make(conn, EMPTY, "a", "b", "c")
    for story in range(6):
        tell(conn, random.Random(f"{seed} {story}"))


def tell(conn: psycopg.Connection, dice: random.Random) -> None:
    """One story of some runs, their reversals in any order, and others in between."""
    plain = connect_tables(conn, dice)
    write(conn, dice, 25)
    conn.commit()
    dones: list[Done] = []
    for _ in range(25):
        what = dice.random()
        if what < 0.4:
            before = state(conn)
            run_id = value(conn, "select backfill.begin_run('random')")
            write(conn, dice, dice.choice([1, 1, 2, 6, 12]))
            conn.execute("select backfill.finish_run()")
            conn.commit()
            dones.append(Done(run_id, before, state(conn)))
        elif what < 0.5:
            write(conn, dice, 1)
            conn.commit()
        elif dones:
            at = len(dones) - 1 if dice.random() < 0.5 else dice.randrange(len(dones))
            untouched = state(conn) == dones[at].after
            refusal = undo(conn, dones, at)
            # What is as the run left it can be undone, but where undoing would make a foreign key act.
            assert not (refusal and untouched and plain), refusal
            check_log(conn)
