"""Several runs undone at once: a run and all after it, the newest first, all of them or none."""

from __future__ import annotations

from uuid import UUID

import psycopg
import pytest

from tests.engine.words import changes, do, done, images, make, refused, reverse, rows, run, value

SINCE = "select * from backfill.reverse_since(%s, 'maria')"


@pytest.fixture
def item(conn: psycopg.Connection) -> psycopg.Connection:
    """A tracked table of three rows."""
    make(conn, "create table item (id integer primary key, cents bigint)", "item")
    do(conn, "insert into item values (1, 100), (2, 200), (3, 300)")
    conn.commit()
    return conn


def undo_of(conn: psycopg.Connection, run_id: UUID) -> UUID:
    """The newest reversal of a run."""
    by: UUID = value(
        conn,
        "select run_id from backfill.backfill_log where reverses = %s order by completed_at desc limit 1",
        [run_id],
    )
    return by


def test_a_run_and_all_after_it_newest_first(item: psycopg.Connection) -> None:
    earlier = done(item, "update item set cents = 5 where id = 3")
    before = images(item, "item")
    first = done(item, "update item set cents = cents + 1")
    second = done(item, "update item set cents = cents * 2 where id = 1", "insert into item values (4, 0)")
    third = done(item, "delete from item where id = 1")
    assert [r for (r,) in rows(item, "select backfill.runs_since(%s)", [first])] == [third, second, first]
    found = rows(item, SINCE, [first])
    item.commit()
    assert list(dict.fromkeys(row[0] for row in found)) == [third, second, first]
    assert sorted((row[0], row[4], row[5]) for row in found) == sorted([
        (third, "1", "restored"), (second, "1", "restored"), (second, "4", "restored"),
        (first, "1", "restored"), (first, "2", "restored"), (first, "3", "restored"),
    ])  # fmt: skip
    assert images(item, "item") == before
    log = rows(
        item,
        "select reverses, actor, status from backfill.backfill_log where reverses is not null order by completed_at",
    )
    assert log == [(undone, "maria (claimed) via postgres", "succeeded") for undone in (third, second, first)]
    assert {row[1] for row in found} == {undo_of(item, undone) for undone in (first, second, third)}
    assert value(item, "select status from backfill.backfill_log where run_id = %s", [earlier]) == "succeeded"
    assert rows(item, SINCE, [first]) == [], "twice is a no-op"


def test_all_or_nothing(item: psycopg.Connection) -> None:
    first = done(item, "update item set cents = cents + 1")
    with run(item, "a second one") as second:
        do(item, "update item set cents = cents * 2 where id = 1")
    do(item, "update item set cents = 0 where id = 3")
    item.commit()
    before = images(item, "item", "backfill.backfill_log")
    with pytest.raises(psycopg.Error) as caught:
        rows(item, SINCE, [first])
    item.rollback()
    assert caught.value.sqlstate == "BF005"
    assert f"run {first} cannot be reversed" in refused(caught)
    assert str(second) not in refused(caught)
    assert images(item, "item", "backfill.backfill_log") == before


def test_undos_in_between_are_what_they_are(item: psycopg.Connection) -> None:
    """What was undone stays so; an undo of something older is itself undone; an undo of an undo counts as its run."""
    old = done(item, "update item set cents = 1 where id = 1")
    before = images(item, "item")
    first = done(item, "update item set cents = 2 where id = 2")
    gone = done(item, "update item set cents = 3 where id = 3")
    reverse(item, gone)
    reverse(item, old)
    back = done(item, "insert into item values (9, 9)")
    reverse(item, back)
    again = undo_of(item, back)
    reverse(item, again)
    expected = [undo_of(item, again), undo_of(item, old), first]
    assert [r for (r,) in rows(item, "select backfill.runs_since(%s)", [first])] == expected
    rows(item, SINCE, [first])
    item.commit()
    assert images(item, "item") == before
    stands = rows(
        item, "select run_id, status from backfill.backfill_log where run_id = any (%s)", [[old, first, gone, back]]
    )
    assert dict(stands) == {old: "succeeded", first: "reversed", gone: "reversed", back: "reversed"}


def test_a_load_that_captured_nothing_stays(item: psycopg.Connection) -> None:
    first = done(item, "update item set cents = 2 where id = 2")
    loaded = value(item, "select backfill.begin_run('a file', p_mode => 'load')")
    do(item, "select backfill.finish_run()")
    item.commit()
    assert {row[0] for row in rows(item, SINCE, [first])} == {first}
    assert value(item, "select status from backfill.backfill_log where run_id = %s", [loaded]) == "succeeded"


def test_a_run_that_still_runs_stands_in_the_way(item: psycopg.Connection) -> None:
    first = done(item, "update item set cents = 2 where id = 2")
    running = value(item, "select backfill.begin_run('in batches', p_spans_transactions => true)")
    item.commit()
    with pytest.raises(psycopg.Error) as caught:
        rows(item, SINCE, [first])
    item.rollback()
    assert f"run {running} (in batches) is still running" in refused(caught)
    assert f"backfill.abandon_run('{running}'" in refused(caught)
    do(item, f"select backfill.abandon_run('{running}', 'killed')")
    item.commit()
    assert len(rows(item, SINCE, [first])) == 1
    assert changes(item, running) == []


def test_an_unknown_run(item: psycopg.Connection) -> None:
    with pytest.raises(psycopg.Error, match="there is no run") as caught:
        rows(item, SINCE, [UUID(int=1)])
    assert caught.value.sqlstate == "BF009"
