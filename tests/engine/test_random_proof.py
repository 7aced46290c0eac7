"""Random runs, honest and dishonest: finished, and undone to the byte, exactly where all in them was honest."""

from __future__ import annotations

import random
from contextlib import suppress

import psycopg
import pytest

from tests.engine.words import do, images, make, rows, value

EMPTY = """
    create table ledger (id integer primary key, code text unique, cents bigint not null default 0);
    create table entry (id integer primary key, cents bigint,
        ledger_id integer references ledger deferrable initially deferred);
    create table untracked (id integer primary key, ledger_id integer references ledger on delete cascade,
        other_id integer constraint plain references ledger);
    create function count_up() returns trigger language plpgsql as $$ begin
        update ledger set code = code where id = new.ledger_id; return null; end $$;
    create constraint trigger count_up after insert on entry deferrable initially deferred
        for each row execute function count_up()"""
PLAIN = "alter table untracked add constraint plain foreign key (other_id)"


def write(dice: random.Random) -> str:
    """One statement of the application."""
    number = dice.randint(1, 8)
    return dice.choice(
        [
            f"insert into ledger values ({number}, 'k{dice.randint(1, 8)}', {number})",
            (
                f"insert into ledger select i, null, i from generate_series({number}, {number + 3}) as i"
                " on conflict do nothing"
            ),
            f"insert into entry values ({number}, 1, {dice.randint(1, 8)})",
            f"insert into ledger values ({number}, null, 0) on conflict (id) do update set cents = ledger.cents + 1",
            f"update ledger set cents = cents + 1 where id <= {number}",
            f"update ledger set id = id + 20 where id = {number} and id not in (select ledger_id from entry)",
            f"update entry set cents = {number} where id % 2 = 0",
            f"delete from entry where id = {number}",
            f"delete from ledger where id = {number} and id not in (select ledger_id from entry)",
            f"""merge into ledger as l using (values ({number})) as s (id) on l.id = s.id
            when matched then update set cents = 0 when not matched then insert values (s.id, null, 7)""",
        ]
    )


def disturb(dice: random.Random) -> list[str]:
    """What may happen beside the writing, and changes nothing of the capture."""
    return dice.choice(
        [
            ["analyze ledger"],
            ["set constraints all immediate", "set constraints all deferred"],
            ["select from ledger for update"],
            [
                "set local session_replication_role = replica",
                write(dice),
                "set local session_replication_role = origin",
            ],
            ["update untracked set ledger_id = ledger_id"],
            ["select set_config('backfill.run_id', gen_random_uuid()::text, true)"],
            ["reset all"],
            ["grant select on ledger to public"],
            ["set local track_counts = off", write(dice), "set local track_counts = on"],
            ["alter table untracked drop constraint plain", f"{PLAIN} references ledger"],
            ["create table guest (id integer primary key references untracked)", "drop table guest"],
        ]
    )


def deceive(dice: random.Random) -> list[str]:
    """What leaves, or might leave, a gap in the capture."""
    table = dice.choice(["ledger", "entry"])
    return dice.choice(
        [
            [f"alter table {table} disable trigger all", write(dice), f"alter table {table} enable trigger all"],
            [f"alter table {table} add column note text"],
            [f"alter table {table} rename to gone", f"alter table gone rename to {table}"],
            [f"alter table {table} alter column cents type numeric"],
            ["discard temp", write(dice)],
            [f"drop trigger backfill_capture_update on {table}"],
            [f"create table heir () inherits ({table})", "drop table heir"],
            [
                "alter table untracked drop constraint plain",
                f"{PLAIN} references ledger on update cascade",
                "alter table untracked drop constraint plain",
                f"{PLAIN} references ledger",
            ],
            ["create table guest (id integer references ledger on delete cascade)", "drop table guest"],
            [f"create rule nothing as on insert to backfill_audit.public_{table}_row do instead nothing", write(dice)],
            [
                f"create rule nothing as on insert to backfill_audit.public_{table} do instead nothing",
                write(dice),
                f"drop rule nothing on backfill_audit.public_{table}",
            ],
            [
                "alter table pg_temp.backfill_open_run rename to away",
                f"delete from {table} where id = (select min(id) from {table})",
                "alter table pg_temp.away rename to backfill_open_run",
            ],
        ]
    )


def take_part(conn: psycopg.Connection, dice: random.Random) -> bool:
    """One doing, kept or rolled back, by a savepoint or by a function's exception block; is it honest?"""
    what = dice.random()
    dishonest = what < 0.06
    statements = deceive(dice) if dishonest else disturb(dice) if what < 0.25 else [write(dice)]
    kept = dice.random() < 0.7
    done = False
    refusals = (psycopg.errors.IntegrityError, psycopg.errors.ObjectInUse)
    with suppress(*refusals), conn.transaction(force_rollback=not kept):
        if len(statements) == 1 and dice.random() < 0.5:
            fail = "" if kept else "raise division_by_zero;"
            block = f"begin {statements[0]}; {fail} exception when others then null; end"
            if statements[0].startswith(("insert", "update", "delete", "merge")):
                conn.execute(f"do $do$ begin {block}; end $do$".encode())
                return True
        do(conn, *statements)
        done = True
    return not (dishonest and kept and done)


@pytest.mark.parametrize("seed", range(3))
def test_a_run_is_finished_exactly_where_it_was_honest(conn: psycopg.Connection, seed: int) -> None:
    make(conn, EMPTY, "ledger", "entry")
    dice = random.Random(f"proof {seed}")
    finished = refused = 0
    for _ in range(25):
        with (
            suppress(psycopg.errors.IntegrityError),
            conn.transaction(),
        ):  # of nobody's run, in the same transaction or not
            do(conn, write(dice), "set constraints all immediate")
        if dice.random() < 0.5:
            conn.commit()
        before = images(conn, "ledger", "entry")
        run_id = value(conn, "select backfill.begin_run('random')")
        count = dice.randint(1, 12)
        honest = sum(take_part(conn, dice) for _ in range(count)) == count
        try:
            conn.execute("select backfill.finish_run()")
            conn.commit()
        except psycopg.errors.IntegrityError:
            conn.rollback()
            continue
        except psycopg.Error as error:
            conn.rollback()
            if honest or error.sqlstate != "BF012":
                raise
            refused += 1
            continue
        assert honest
        finished += 1
        results = {row[0] for row in rows(conn, "select result from backfill.reverse_run(%s)", [run_id])}
        assert results <= {"restored", "already original"}
        assert images(conn, "ledger", "entry") == before
        (conn.commit if dice.random() < 0.5 else conn.rollback)()
    assert finished >= 5
    assert refused >= 1
