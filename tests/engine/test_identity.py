"""A table stays itself: renamed, moved, exchanged, restored; and what becomes untrackable is named before a run."""

from __future__ import annotations

import subprocess
import threading

import psycopg
import pytest

from runner import embedded
from tests.engine.words import changes, do, done, images, make, refused, reverse, rows, run, value


@pytest.fixture
def thing(conn: psycopg.Connection) -> psycopg.Connection:
    """A tracked table with money and two rows."""
    make(conn, "create table thing (id integer primary key, name text, cents bigint)", "thing")
    do(conn, "select backfill.track('thing', '{name}', 'cents')", "insert into thing values (1, 'a', 10), (2, 'b', 20)")
    conn.commit()
    return conn


RENAMES = {
    "table": (["alter table thing rename to article"], "article", "name", "cents"),
    "schema": (["create schema shop", "alter table thing set schema shop"], "shop.thing", "name", "cents"),
    "its schema": (
        [
            "create schema shop",
            "alter table thing set schema shop",
            "select backfill.refresh_tracked()",
            "alter schema shop rename to store",
        ],
        "store.thing",
        "name",
        "cents",
    ),
    "column": (["alter table thing rename column name to label"], "thing", "label", "cents"),
    "money": (["alter table thing rename column cents to pence"], "thing", "name", "pence"),
    "columns exchanged": (
        [
            "alter table thing rename column name to x",
            "alter table thing rename column cents to name",
            "alter table thing rename column x to cents",
        ],
        "thing",
        "cents",
        "name",
    ),
    "all of it": (
        [
            'create schema "100 % new"',
            'alter table thing set schema "100 % new"',
            'alter table "100 % new".thing rename to "it\'s 1 $body$ %s"',
            'alter table "100 % new"."it\'s 1 $body$ %s" rename column name to "na%me $1"',
        ],
        '"100 % new"."it\'s 1 $body$ %s"',
        '"na%me $1"',
        "cents",
    ),
}


@pytest.mark.parametrize("case", RENAMES)
def test_history_is_read_and_undone_under_the_new_name(thing: psycopg.Connection, case: str) -> None:
    statements, table, name, cents = RENAMES[case]
    before = images(thing, "thing")["thing"]
    first = done(thing, "update thing set name = 'z', cents = 11 where id = 1", "delete from thing where id = 2")
    do(thing, *statements)
    second = done(thing, f"update {table} set {cents} = 12 where id = 1")
    full = table if "." in table else f"public.{table}"
    for run_id, expected in ((second, [("z", 11, 12)]), (first, [("z", 10, 11), ("b", 20, None)])):
        assert changes(thing, run_id, "business_key, amount_before, amount_after") == expected
        assert changes(thing, run_id, "distinct on (statement, pack, row_no) table_name")[0] == (full,)
        assert name.strip('"') in changes(thing, run_id, "before")[0][0]
        assert reverse(thing, run_id) == {"restored": len(expected)}
    assert images(thing, table)[table] == before
    totals = "select row_count, money from backfill.control_totals() where table_name = %s"
    assert rows(thing, totals, [full]) == [(2, {"amounts": 30})]


def test_tables_exchanged_by_rename_keep_their_own_history(thing: psycopg.Connection) -> None:
    """R1, C: the undo touches the run's rows and nobody else's; both are tracked in the end."""
    first = done(thing, "update thing set cents = 99 where id = 1")
    do(thing, "create table thing_new (like thing including all)", "insert into thing_new values (1, 'theirs', 99)")
    do(thing, "alter table thing rename to thing_old", "alter table thing_new rename to thing")
    thing.commit()
    second = done(thing, "insert into thing_old values (7, 'ours', 7)", "insert into thing values (7, 'ours', 7)")
    assert changes(thing, second, "table_name, business_key") == [("public.thing_old", "ours")]
    do(thing, "select backfill.track('thing', '{name}', 'cents')")
    third = done(thing, "delete from thing where id = 7", "update thing_old set cents = 1 where id = 7")
    assert changes(thing, third, "table_name, operation") == [
        ("public.thing", "DELETE"),
        ("public.thing_old", "UPDATE"),
    ]
    for run_id, count in ((third, 2), (second, 1), (first, 1)):
        assert reverse(thing, run_id) == {"restored": count}
    assert rows(thing, "select * from thing_old order by id") == [(1, "a", 10), (2, "b", 20)]
    assert rows(thing, "select * from thing order by id") == [(1, "theirs", 99), (7, "ours", 7)]
    # And back again, all at once.
    do(
        thing,
        "alter table thing rename to x",
        "alter table thing_old rename to thing",
        "alter table x rename to thing_old",
    )
    fourth = done(thing, "update thing set cents = 5 where id = 2")
    assert changes(thing, fourth, "table_name, amount_before") == [("public.thing", 20)]
    assert reverse(thing, fourth) == {"restored": 1}


def test_a_column_that_was_not_there_is_not_one_that_was_null(thing: psycopg.Connection) -> None:
    """Single rows are kept by themselves: they know which columns there were."""
    first = done(thing, "insert into thing values (3, 'c', 30)")
    do(thing, "alter table thing add column note text", "alter table thing drop column name")
    do(thing, "select backfill.track('thing', '{id}')")
    second = done(thing, "insert into thing values (4, 40, null)", "update thing set note = 'x' where id = 3")
    do(thing, "alter table thing add column name text default 'new'")
    third = done(thing, "update thing set cents = 41 where id = 4")
    assert changes(thing, third, "after -> 'name', after -> 'note'") == [("new", None)]
    digest = "select backfill.run_digest(run_id) = digest from backfill.backfill_log where run_id = %s"
    assert [value(thing, digest, [run_id]) for run_id in (first, second, third)] == [True] * 3
    assert reverse(thing, third) == {"restored": 1}
    assert reverse(thing, second) == {"restored": 2}
    assert rows(thing, "select id, cents, note, name from thing order by id") == [
        (1, 10, None, "new"),
        (2, 20, None, "new"),
        (3, 30, None, "new"),
    ]


def test_a_restore_after_a_dropped_column_and_a_rename(
    thing: psycopg.Connection, database_url: str, empty_database_url: str, server: embedded.Server
) -> None:
    """Oids and column numbers are others there, and the table is found by the triggers that it carries."""
    do(thing, "alter table thing add column gone text", "create table child (id integer primary key)")
    first = done(thing, "update thing set cents = 11, gone = 'x' where id = 1")
    do(thing, "alter table thing drop column name", "alter table thing add column last text")
    do(thing, "select backfill.track('thing', '{id}')")
    second = done(thing, "update thing set cents = 12, last = 'y' where id = 1")
    # Renamed, and no run since that would have seen it.
    do(thing, "alter table thing rename to article")
    thing.execute("select backfill.untrack('property.units')")
    thing.commit()
    programs = server.programs
    archive = subprocess.run(
        [str(programs / "pg_dump"), "--format=custom", f"--dbname={database_url}"], capture_output=True, check=True
    ).stdout
    restore = [str(programs / "pg_restore"), "--exit-on-error", f"--dbname={empty_database_url}"]
    subprocess.run(restore, input=archive, check=True)
    with psycopg.connect(empty_database_url) as copy:
        numbers = """select array_agg(attnum order by attname) from pg_attribute
            where attrelid = 'article'::regclass and attnum > 0 and not attisdropped"""
        assert value(copy, numbers) != value(thing, numbers)
        third = done(copy, "update article set cents = 13 where id = 1")
        assert changes(copy, third, "table_name, before ->> 'cents'") == [("public.article", "12")]
        assert [reverse(copy, run_id) for run_id in (third, second)] == [{"restored": 1}] * 2
        with pytest.raises(psycopg.Error, match="no longer has column"):
            reverse(copy, first)
        copy.rollback()
        done(copy, "select 1")


def test_triggers_that_a_restore_of_data_left_are_always_on_again(thing: psycopg.Connection) -> None:
    do(thing, "alter table thing disable trigger all", "alter table thing enable trigger all")
    do(thing, "alter table thing enable trigger backfill_capture_update")
    with run(thing) as run_id:
        do(thing, "set local session_replication_role = replica", "update thing set cents = 0 where id = 1")
    assert len(changes(thing, run_id)) == 1


UNTRACKABLE = {
    "thing": ("create table heir () inherits (thing)", "it takes part in inheritance"),
    "part": (
        """create table whole (id integer primary key) partition by list (id);
        alter table whole attach partition part default""",
        "it is a partition",
    ),
    "quick": ("alter table quick set unlogged", "it is unlogged"),
    "keyless": ("alter table keyless drop constraint keyless_pkey", "it has no primary key"),
    "ruled": ("create rule also as on insert to ruled do also select 1", "it has a rule"),
}


def test_before_a_run_every_table_is_named_that_can_no_longer_be_watched(thing: psycopg.Connection) -> None:
    others = [name for name in UNTRACKABLE if name != "thing"]
    make(thing, "; ".join(f"create table {name} (id integer primary key)" for name in others), *others)
    do(thing, *(ddl for ddl, _ in UNTRACKABLE.values()))
    with pytest.raises(psycopg.Error) as caught:
        do(thing, "select backfill.begin_run('x')")
    assert caught.value.sqlstate == "BF002"
    for name, (_, why) in UNTRACKABLE.items():
        assert f"public.{name}: {why}" in refused(caught)


def test_what_citus_has_distributed_is_refused(thing: psycopg.Connection) -> None:
    """Its catalog alone is imitated: in a database without it nothing of the kind is asked."""
    do(thing, "create table far (id integer primary key)", "set allow_system_table_mods = on")
    do(thing, 'create table pg_catalog.pg_dist_partition (logicalrelid regclass, partmethod "char")')
    done(thing, "select 1")
    do(thing, "insert into pg_catalog.pg_dist_partition values ('far', 'h')")
    thing.commit()
    for table, call in (("far", "select backfill.track('far')"), ("thing", "select backfill.begin_run('x')")):
        do(thing, f"insert into pg_catalog.pg_dist_partition values ('{table}', 'h')")
        with pytest.raises(psycopg.Error, match=rf"{table}.* Citus has distributed it") as caught:
            do(thing, call)
        assert caught.value.sqlstate == "BF002"
        thing.rollback()


@pytest.mark.parametrize("rule", ["also insert into other values (new.id)", "instead nothing"])
def test_a_table_with_a_rule_is_refused(conn: psycopg.Connection, rule: str) -> None:
    do(conn, "create table other (id integer)", "create table ruled (id integer primary key)")
    do(conn, f"create rule r as on insert to ruled do {rule}")
    with pytest.raises(psycopg.Error, match="ruled cannot be tracked: it has a rule") as caught:
        do(conn, "select backfill.track('ruled')")
    assert caught.value.sqlstate == "BF002"


def test_names_with_anything_in_them_simply_work(conn: psycopg.Connection) -> None:
    """G, and of tables that look like the engine's own."""
    tables = ['"discount %"', '"a%1$s"', '"it\'s $1 $body$ $$"', '"x_row"', "x", '"x_images"', '"x_insert"']
    for table in tables:
        make(
            conn,
            f"""create table {table} (id integer primary key, "vat %" numeric, "%I" text, "$$" text, "a'b" text[])""",
            table,
        )
    do(conn, *(f"insert into {table} values (1, 1.0, '%', '$$', '{{x}}')" for table in tables))
    before = images(conn, *tables)
    run_id = done(
        conn,
        *(f"""update {table} set "vat %" = 2, "%I" = '%s' where id = 1""" for table in tables),
        *(f"insert into {table} select i, 1, '%L' from generate_series(2, 5) as i" for table in tables),
    )
    assert len(changes(conn, run_id)) == 5 * len(tables)
    assert changes(conn, run_id, "after -> '%%I', before -> 'a''b'")[0] == ("%s", ["x"])
    assert reverse(conn, run_id) == {"restored": 5 * len(tables)}
    assert images(conn, *tables) == before


@pytest.mark.parametrize("body", [r'{"note": "a\u0000b"}', "[1e400000]", r'"\ud800"', "1" * 140_000])
def test_json_that_jsonb_cannot_hold_stays_readable(conn: psycopg.Connection, body: str) -> None:
    """F: as its text; the rest of the log and the undo do not suffer."""
    make(conn, "create table event (id integer primary key, body json, many json[])", "event")
    do(conn, "insert into event values (1, '{\"a\": 1}'), (2, '[]')")
    before = images(conn, "event")
    with run(conn) as run_id:
        conn.execute("update event set body = %s where id = 1", [body])
        conn.execute("update event set many = array[%s::json]", [body])
    shown = changes(conn, run_id, "before -> 'body', after -> 'body'")
    assert shown[0][0] == {"a": 1}
    assert shown[0][1] == body
    assert reverse(conn, run_id) == {"restored": 2}
    assert images(conn, "event") == before


def test_packs_are_cut_by_bytes_too(conn: psycopg.Connection) -> None:
    """K: a thousand rows of one and a half megabytes would make an array that no server holds."""
    make(conn, "create table document (id integer primary key, body text, n integer)", "document")
    do(conn, "insert into document select i, repeat('x', 1600000), 0 from generate_series(1, 60) as i")
    conn.commit()
    run_id = done(conn, "update document set n = 1")
    longest = "select max(row_count), sum(row_count), count(*) from backfill_audit.public_document where run_id = %s"
    assert rows(conn, longest, [run_id]) == [(20, 60, 3)]
    do(conn, "create table short (id integer primary key, body text, n integer)", "select backfill.track('short')")
    run_id = done(conn, "insert into short select i, repeat('x', 100), 0 from generate_series(1, 2500) as i")
    assert value(conn, "select max(row_count) from backfill_audit.public_short where run_id = %s", [run_id]) == 1000


PATHS = """
    create schema shop; create schema far;
    create table shop.pay (id integer primary key, cents bigint); create table shop.note (what text);
    create table far.note (what text);
    create function shop.to_note() returns trigger language plpgsql as $$ begin
        insert into note values (tg_op); return null; end $$;
    create trigger to_note after insert or update or delete on shop.pay for each row execute function shop.to_note()"""


def test_triggers_find_what_they_name_without_a_schema(conn: psycopg.Connection) -> None:
    """I: as the application's own session has it, in a run, a backfill and an undo, and not what lies in pg_temp."""
    do(conn, *PATHS.split(";\n    create function", 1)[0].split(";"))
    conn.execute(("create function" + PATHS.split("create function", 1)[1]).encode())
    do(
        conn,
        "set search_path = shop, public",
        "select backfill.track('pay', '{id}', 'cents')",
        "reset search_path",
        "create view public.pay_due as select 1::bigint as cents where not exists (select 1 from shop.pay)",
        """create function public.fill_pay(jsonb) returns jsonb language plpgsql
        set search_path = pg_catalog, pg_temp as $$ begin insert into shop.pay values (1, 5); return '{}'; end $$""",
        "select backfill.register('pay', 'own', 'Pay', 5000, 'public.pay_due', 'public.fill_pay', '{shop.pay}')",
        "create temporary table note (what text)",
    )
    conn.commit()
    assert (
        value(conn, "select search_path from backfill.tracked where table_name = 'shop.pay'") == "shop, public, pg_temp"
    )
    run_id = value(conn, "select run_id from backfill.run('pay')")
    conn.commit()
    assert reverse(conn, run_id) == {"restored": 1}
    do(conn, "set search_path = shop, public, pg_temp")
    done(conn, "insert into shop.pay values (2, 5)")
    do(conn, "set search_path = far, public")
    done(conn, "insert into shop.pay values (3, 5)")
    assert rows(conn, "select what from shop.note") == [("INSERT",), ("DELETE",), ("INSERT",)]
    assert rows(conn, "select count(*) from pg_temp.note") == [(1,)], "whose path does not name pg_temp finds it first"


def test_two_workers_of_one_run_do_not_collide(thing: psycopg.Connection, database_url: str) -> None:
    run_id = value(thing, "select backfill.begin_run('together', p_spans_transactions => true)")
    thing.commit()
    failed: list[BaseException] = []

    def work(first: int) -> None:
        try:
            with psycopg.connect(database_url) as conn:
                for step in range(3):
                    conn.execute("select backfill.resume_run(%s, true)", [run_id])
                    for i in range(20):
                        conn.execute("insert into thing values (%s, 'w', 1)", [first + 100 * step + i])
                    conn.execute(
                        "insert into thing select %s + i, 'w', 1 from generate_series(50, 60) as i",
                        [first + 100 * step],
                    )
                    conn.commit()
        except BaseException as error:
            failed.append(error)

    workers = [threading.Thread(target=work, args=(first,)) for first in (1000, 2000)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not failed, failed
    thing.execute("select backfill.resume_run(%s)", [run_id])
    do(thing, "select backfill.finish_run()")
    thing.commit()
    assert rows(
        thing,
        "select count(*), count(distinct statement), count(distinct (statement, pack, row_no))"
        " from backfill.change_log where run_id = %s",
        [run_id],
    ) == [(186, 126, 186)]
    assert value(thing, "select count(*) from backfill.run_transaction") == 0
    # What the digest is made of adds up: here of the whole, as one session would have written it.
    parts = "select parts from backfill.backfill_log where run_id = %s"
    together = value(thing, parts, [run_id])
    assert reverse(thing, run_id) == {"restored": 186}
    halves = []
    for first in (1000, 2000):
        ids = (
            f"{first} + 100 * step + i from generate_series(0, 2) as step, generate_series(0, 60) as i"
            " where i < 20 or i >= 50"
        )
        halves.append(
            value(thing, parts, [done(thing, f"insert into thing select x, 'w', 1 from (select {ids}) as y (x)")])
        )
    assert together[0]["rows"] == sum(half[0]["rows"] for half in halves)
    assert int(together[0]["sum"]) == sum(int(half[0]["sum"]) for half in halves)


def test_undo_of_single_rows_is_as_that_of_many(thing: psycopg.Connection) -> None:
    before = images(thing, "thing")
    with run(thing) as run_id:
        for i in range(10, 40):
            do(thing, f"insert into thing values ({i}, 'n', {i})")
            do(thing, f"update thing set cents = null where id = {i}", f"update thing set name = null where id = {i}")
        do(thing, "delete from thing where id = 1", "delete from thing where id % 2 = 0")
    assert rows(thing, "select * from backfill.run_totals(%s)", [run_id]) == [
        ("public.thing", 30, 60, 17, {"amounts": -30}, 0)
    ]
    assert reverse(thing, run_id)["restored"] == 17
    assert images(thing, "thing") == before
