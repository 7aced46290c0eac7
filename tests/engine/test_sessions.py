"""Several sessions at once: applications that write, people who run, undo and undo undos; nobody's change is lost."""

from __future__ import annotations

import random
import threading
from collections import Counter

import psycopg
import pytest
from psycopg import IsolationLevel

from tests.engine.words import make, rows, value

ROWS = 100
ADD = "update item set n = n + %s where id between %s and %s"
LATEST = "select run_id from backfill.backfill_log order by started_at desc limit 6"
LOST = (psycopg.errors.SerializationFailure, psycopg.errors.DeadlockDetected)


def application(url: str, dice: random.Random, stop: threading.Event, added: Counter[int]) -> None:
    """Adds small amounts to a few rows at a time, outside of any run, and keeps account of them.

    A reversal takes up to a second where the machine is slow: more often, and none would ever find its rows at rest.
    """
    with psycopg.connect(url, autocommit=True) as conn:
        while not stop.wait(0.2):
            ids = dice.sample(range(1, ROWS + 1), 2)
            try:
                conn.execute("update item set n = n + 1 where id = any (%s)", [ids])
            except LOST:
                continue
            added.update(ids)


def seldom(done: Counter[str]) -> int:
    """How often that has happened which has happened least, of what is to be seen at all."""
    return min(done["run"], done["reversal"], done["BF005"])


def person(url: str, dice: random.Random, level: IsolationLevel, count: int, done: Counter[str]) -> None:
    """Runs that add an amount of their own each, and reversals of any run there is, also of a reversal.

    Where the machine is busy most of them conflict: then it goes on, until everything has happened a few times.
    """
    with psycopg.connect(url) as conn:
        conn.isolation_level = level
        for tried in range(20 * count):
            if tried >= count and seldom(done) >= 5:
                break
            try:
                if dice.random() < 0.4:
                    conn.execute("select backfill.begin_run('add')")
                    for _ in range(dice.choice([1, 1, 2])):
                        amount, first = dice.randrange(10**6, 10**12), dice.randint(1, ROWS)
                        conn.execute(ADD, [amount, first, first + 1])
                    conn.execute("select backfill.finish_run()")
                    conn.commit()
                    done["run"] += 1
                elif runs := rows(conn, LATEST):
                    conn.rollback()
                    undone = rows(conn, "select * from backfill.reverse_run(%s)", dice.choice(runs))
                    conn.commit()
                    done["reversal"] += bool(undone)
            except psycopg.Error as error:
                conn.rollback()
                if error.sqlstate not in ("BF005", "40001", "40P01"):
                    raise
                done[str(error.sqlstate)] += 1


@pytest.mark.parametrize("level", [IsolationLevel.READ_COMMITTED, IsolationLevel.REPEATABLE_READ])
def test_every_amount_is_there_that_was_added_and_not_undone(
    conn: psycopg.Connection, database_url: str, level: IsolationLevel
) -> None:
    make(conn, "create table item (id integer primary key, n bigint not null)", "item")
    conn.execute("insert into item select i, 0 from generate_series(1, %s) as i", [ROWS])
    conn.commit()
    stop, added, done = threading.Event(), Counter[int](), Counter[str]()
    failed: list[BaseException] = []

    def started(work: threading.Thread) -> threading.Thread:
        work.start()
        return work

    def person_or_fail(seed: int) -> None:
        try:
            person(database_url, random.Random(seed), level, 40, done)
        except BaseException as error:  # told below, in the test's own thread
            failed.append(error)

    writer = started(threading.Thread(target=application, args=(database_url, random.Random(0), stop, added)))
    for people in [started(threading.Thread(target=person_or_fail, args=(seed,))) for seed in (1, 2, 3)]:
        people.join()
    stop.set()
    writer.join()
    assert not failed, failed
    assert seldom(done) >= 5, done
    standing = """
        select (c.after ->> 'id')::integer, sum((c.after ->> 'n')::bigint - (c.before ->> 'n')::bigint)::bigint
        from backfill.change_log as c join backfill.backfill_log as l using (run_id)
        where l.mode = 'manual' and l.status <> 'reversed' group by 1"""
    expected = {i: added[i] for i in range(1, ROWS + 1)}
    for i, amount in rows(conn, standing):
        expected[i] += amount
    assert dict(rows(conn, "select id, n from item")) == expected
    assert value(conn, "select count(*) from backfill.backfill_log where status = 'running'") == 0
