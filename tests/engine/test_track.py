"""track() and untrack(): what is refused and why, doing it twice, and leaving nothing behind."""

from __future__ import annotations

from collections.abc import Callable

import psycopg
import pytest

from tests.engine.words import changes, do, done, images, make, reverse, rows, run, value

REFUSED = {
    "no primary key": ("create table x (id integer unique not null)", "x", "it has no primary key"),
    "view": ("create view x as select 1 as id", "x", "it is a view: track the tables below it"),
    "materialized view": ("create materialized view x as select 1 as id", "x", "it is a view"),
    "partitioned": (
        "create table x (id integer primary key) partition by range (id)",
        "x",
        "it is partitioned: writes to a partition would not be seen",
    ),
    "partition": (
        """create table p (id integer primary key) partition by range (id);
        create table x partition of p for values from (1) to (2)""",
        "x",
        "it is a partition: writes through its parent would not be seen",
    ),
    "heir": (
        "create table p (id integer primary key); create table x (primary key (id)) inherits (p)",
        "x",
        "it takes part in inheritance",
    ),
    "parent": (
        "create table x (id integer primary key); create table c () inherits (x)",
        "x",
        "it takes part in inheritance",
    ),
    "unlogged": ("create unlogged table x (id integer primary key)", "x", "it is unlogged"),
    "temporary": ("create temporary table x (id integer primary key)", "pg_temp.x", "it (is temporary|belongs to)"),
    "sequence": ("create sequence x", "x", "it is no table"),
    "foreign": (
        """create foreign data wrapper w; create server s foreign data wrapper w;
        create foreign table x (id integer) server s""",
        "x",
        "it is a foreign table",
    ),
    "audit": ("select 1", "backfill.backfill_log", "it belongs to the audit or to the system"),
    "packs": ("select 1", "backfill_audit.property_units", "it belongs to the audit or to the system"),
    "catalog": ("select 1", "pg_catalog.pg_class", "it belongs to the audit or to the system"),
    "too wide": (
        f"create table x (id integer primary key, {', '.join(f'c{i} boolean' for i in range(160))})",
        "x",
        "it has more than 160 columns",
    ),
    "money that is not exact": (
        "create table x (id integer primary key, euros double precision)",
        "x', null, 'euros",
        "its money column euros is of type double precision, which is not exact: name a generated column",
    ),
    "unknown money": ("create table x (id integer primary key)", "x', null, 'cents", "it has no money column cents"),
    "unknown key": ("create table x (id integer primary key)", "x', '{id,no}", "it has no business key column no"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_watched_is_refused_by_name(conn: psycopg.Connection, case: str) -> None:
    ddl, arguments, reason = REFUSED[case]
    do(conn, ddl)
    with pytest.raises(psycopg.Error, match=rf"table \S+ cannot be tracked: {reason}") as caught:
        do(conn, f"select backfill.track('{arguments}')")
    assert caught.value.sqlstate == "BF002"


@pytest.mark.parametrize(("kind", "first"), [("boolean", "true"), ("numeric", "1.5"), ("json", "'{}'")])
def test_the_widest_table_that_is_taken_can_be_changed_in_every_column(
    conn: psycopg.Connection, kind: str, first: str
) -> None:
    names = [f"c{i}" for i in range(159)]
    make(conn, f"create table wide (id integer primary key, {', '.join(f'{n} {kind}' for n in names)})", "wide")
    do(conn, f"insert into wide select i, {', '.join([first] * 159)} from generate_series(1, 2) as i")
    conn.commit()
    before = images(conn, "wide")
    for rows_of in ("id = 1", "true"):
        run_id = done(conn, f"update wide set {', '.join(f'{n} = null' for n in names)} where {rows_of}")
        reverse(conn, run_id)
        assert images(conn, "wide") == before
    reverse(conn, done(conn, "delete from wide"))
    assert images(conn, "wide") == before


def test_track_and_untrack_leave_no_trace(
    conn: psycopg.Connection, database_url: str, dump: Callable[..., str]
) -> None:
    do(conn, "create table thing (id integer primary key, cents bigint, kind json)")
    conn.commit()
    before = dump(database_url)
    make(conn, "select 1", "thing")
    assert dump(database_url) != before
    do(conn, "select backfill.untrack('thing')")
    conn.commit()
    assert dump(database_url) == before
    assert rows(conn, "select from backfill.tracked where table_name like '%thing'") == []


def test_tracking_twice_changes_nothing(conn: psycopg.Connection, database_url: str, dump: Callable[..., str]) -> None:
    make(conn, "create table thing (id integer primary key, cents bigint)", "thing")
    do(conn, "select backfill.track('thing', '{cents}', 'cents')")
    conn.commit()
    before = dump(database_url), rows(conn, "select * from backfill.tracked order by table_name")
    make(conn, "select 1", "thing")
    assert (dump(database_url), rows(conn, "select * from backfill.tracked order by table_name")) == before


def test_untracking_twice_and_of_an_untracked_table_is_harmless(conn: psycopg.Connection) -> None:
    make(conn, "create table thing (id integer primary key)", "thing")
    do(
        conn,
        "select backfill.untrack('thing')",
        "select backfill.untrack('thing')",
        "select backfill.untrack('pg_class')",
    )
    do(conn, "select backfill.untrack(null)")
    with run(conn) as run_id:
        do(conn, "insert into thing values (1)", "truncate thing")
    assert changes(conn, run_id) == []


def test_history_stays_after_untrack_and_goes_on_after_track(conn: psycopg.Connection) -> None:
    make(conn, "create table thing (id integer primary key, name text)", "thing")
    first = done(conn, "insert into thing values (1, 'a')")
    do(conn, "select backfill.untrack('thing')")
    conn.commit()
    second = done(conn, "insert into thing values (2, 'b')")
    assert changes(conn, first, "after") == [({"id": 1, "name": "a"},)]
    assert changes(conn, second) == []
    assert rows(conn, "select table_name from backfill.control_totals() where table_name = 'public.thing'") == []
    make(conn, "select 1", "thing")
    third = done(conn, "insert into thing values (3, 'c')")
    assert changes(conn, third, "after") == [({"id": 3, "name": "c"},)]
    assert reverse(conn, third) == {"restored": 1}
    assert reverse(conn, first) == {"restored": 1}
    assert rows(conn, "select id from thing") == [(2,)]


def test_a_reversal_that_would_not_be_captured_is_refused(conn: psycopg.Connection) -> None:
    make(conn, "create table thing (id integer primary key, name text)", "thing")
    first = done(conn, "insert into thing values (1, 'a')")
    do(conn, "select backfill.untrack('thing')")
    conn.commit()
    with pytest.raises(psycopg.Error, match=r"public\.thing is no longer tracked") as caught:
        reverse(conn, first)
    assert caught.value.sqlstate == "BF005"


def test_a_dropped_table_does_not_get_in_the_way(conn: psycopg.Connection) -> None:
    make(
        conn,
        "create table lost (id integer primary key); create table thing (id integer primary key)",
        "lost",
        "thing",
    )
    first = done(conn, "insert into lost values (1)")
    do(conn, "drop table lost", "select backfill.untrack('thing')")
    conn.commit()
    assert changes(conn, first, "business_key") == [("1",)]
    assert "public.lost" not in [row[0] for row in rows(conn, "select table_name from backfill.control_totals()")]
    assert len(value(conn, "select backfill.run_digest(%s)", [first])) == 64
    done(conn, "select 1")


def test_a_renamed_key_is_taken_over(conn: psycopg.Connection) -> None:
    make(conn, "create table thing (id integer primary key, name text)", "thing")
    do(conn, "alter table thing drop constraint thing_pkey, add primary key (name)")
    run_id = done(conn, "insert into thing values (1, 'a')")
    assert reverse(conn, run_id) == {"restored": 1}
    assert value(conn, "select key_columns from backfill.tracked where table_name = 'public.thing'") == ["name"]
    do(conn, "alter table thing rename column name to label")
    run_id = done(conn, "insert into thing values (1, 'a')")
    assert reverse(conn, run_id) == {"restored": 1}


def test_a_primary_key_that_carries_other_columns(conn: psycopg.Connection) -> None:
    make(conn, "create table thing (id integer, note text, name text, primary key (name, id) include (note))", "thing")
    assert value(conn, "select key_columns from backfill.tracked where table_name = 'public.thing'") == ["name", "id"]
    do(conn, "insert into thing values (1, null, 'a'), (2, 'x', 'a')")
    run_id = done(conn, "update thing set note = 'y'")
    assert changes(conn, run_id, "business_key") == [("a / 1",), ("a / 2",)]
    assert reverse(conn, run_id) == {"restored": 2}
    assert rows(conn, "select id, note from thing order by id") == [(1, None), (2, "x")]
