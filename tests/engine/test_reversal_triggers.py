"""Reversal among an application's triggers: stamps, balances that triggers keep, names without a schema, journals."""

from __future__ import annotations

import psycopg
import pytest

from tests.engine.words import do, done, images, make, refused, reverse, rows, run, value

STAMP = """
    create table item (
        id integer primary key, name text, cents bigint, updated_at timestamptz not null default '2024-01-01');
    create function touch() returns trigger language plpgsql as $$ begin
        -- new.cents is compared, never set
        if new.cents = old.cents then new.name := new.name; end if;
        new.updated_at := clock_timestamp(); return new; end $$;
    create trigger touch before update on item for each row execute function touch()"""

BALANCE = """
    create schema shop;
    create table shop.account (id integer primary key, cents bigint not null check (cents >= 0));
    create table shop.pay (
        id integer primary key, account_id integer not null references shop.account, cents bigint not null);
    insert into shop.account values (1, 10), (2, 0);
    create function shop.keep() returns trigger language plpgsql as $$ begin
        if tg_op <> 'INSERT' then update account set cents = cents - old.cents where id = old.account_id; end if;
        if tg_op <> 'DELETE' then update account set cents = cents + new.cents where id = new.account_id; end if;
        return null; end $$;"""
AFTER = "create trigger keep after insert or update or delete on shop.pay for each row execute function shop.keep()"
DEFERRED = AFTER.replace("create trigger", "create constraint trigger").replace(
    " for each row", " deferrable initially deferred for each row"
)


@pytest.fixture
def stamped(conn: psycopg.Connection) -> psycopg.Connection:
    """A tracked table whose updates a trigger stamps, and that nobody declared as stamped yet."""
    make(conn, STAMP, "item")
    do(conn, "insert into item select i, 'n' || i, 100 * i from generate_series(1, 3) as i")
    conn.commit()
    return conn


def fails(conn: psycopg.Connection, run_id: object, code: str = "BF005") -> str:
    """The reversal is refused with this code; all that was said."""
    with pytest.raises(psycopg.Error) as caught:
        conn.execute("select * from backfill.reverse_run(%s)", [run_id])
    conn.rollback()
    assert caught.value.sqlstate == code, refused(caught)
    return refused(caught)


def test_a_stamp_that_nobody_declared_is_named_with_its_trigger_and_the_call(stamped: psycopg.Connection) -> None:
    run_id = done(stamped, "update item set cents = 0 where id <= 2")
    said = fails(stamped, run_id)
    call = "select backfill.track('public.item', p_stamped => '{updated_at}')"
    assert "2 rows of public.item did not come back as they were: a trigger sets updated_at" in said
    assert "1 (updated_at)" in said
    assert f"Trigger touch sets updated_at anew. Where it may: {call}" in said
    told = rows(stamped, "select * from backfill.stamping_triggers()")
    assert told == [("public.item", "touch", ["updated_at"], call + ";")]
    do(stamped, told[0][3])
    stamped.commit()
    assert rows(stamped, "select * from backfill.stamping_triggers()") == []
    notices: list[str] = []
    stamped.add_notice_handler(lambda notice: notices.append(notice.message_primary or ""))
    assert reverse(stamped, run_id) == {"restored": 2}
    assert rows(stamped, "select id, cents from item order by id") == [(1, 100), (2, 200), (3, 300)]
    assert notices == ["2 rows of public.item did not get back updated_at: stamped anew by trigger touch"]
    log = value(stamped, "select metrics -> 'stamped_anew' from backfill.backfill_log where mode = 'reversal'")
    assert log == [{"table": "public.item", "columns": ["updated_at"], "rows": 2, "triggers": ["touch"]}]


def test_a_stamped_row_may_have_been_stamped_since_but_not_changed(stamped: psycopg.Connection) -> None:
    run_id = done(stamped, "update item set cents = 0 where id <= 2", "delete from item where id = 3")
    do(stamped, "update item set name = name where id = 1")
    stamped.commit()
    said = fails(stamped, run_id)
    assert "public.item 1: changed since (updated_at)" in said
    assert "p_stamped => '{updated_at}'" in said
    do(stamped, "select backfill.track('item', p_stamped => '{updated_at}')")
    stamped.commit()
    assert rows(stamped, "select * from backfill.prove_undo(%s)", [run_id]) == [(True, 3, None)]
    assert reverse(stamped, run_id) == {"restored": 3}
    assert rows(stamped, "select id, name, cents, updated_at = '2024-01-01' from item order by id") == [
        (1, "n1", 100, False), (2, "n2", 200, False), (3, "n3", 300, True),
    ]  # fmt: skip
    again = done(stamped, "update item set cents = 0 where id = 1")
    do(stamped, "update item set name = 'theirs' where id = 1")
    stamped.commit()
    said = fails(stamped, again)
    assert "public.item 1: changed since (name)" in said
    assert "p_stamped" not in said


def test_a_stamp_is_shown_but_is_no_part_of_the_digest(stamped: psycopg.Connection) -> None:
    before = done(stamped, "update item set cents = 1 where id = 1")
    digest = value(stamped, "select digest from backfill.backfill_log where run_id = %s", [before])
    do(stamped, "select backfill.track('item', p_stamped => '{updated_at}')")
    stamped.commit()
    assert value(stamped, "select backfill.run_digest(%s)", [before]) == digest, "it was not declared then"
    digests = set()
    for _ in range(2):
        run_id = value(stamped, "select backfill.begin_run('twice the same')")
        do(stamped, "update item set cents = 2 where id = 1")
        digests.add(value(stamped, "select digest from backfill.finish_run()"))
        shown = value(stamped, "select after ->> 'updated_at' from backfill.change_log where run_id = %s", [run_id])
        assert shown > "2025"
        stamped.rollback()
    assert len(digests) == 1
    # It is known afterwards which column that was, whatever table and column are called.
    run_id = done(stamped, "update item set cents = 2 where id = 1")
    do(stamped, "alter table item rename column updated_at to changed_at", "alter table item rename to thing")
    done(stamped, "delete from thing where id = 3")
    sums = (
        "jsonb_path_query_array(backfill.digest_parts(run_id), '$[*].sum') = jsonb_path_query_array(parts, '$[*].sum')"
    )
    assert value(stamped, f"select {sums} from backfill.backfill_log where run_id = %s", [run_id])


def test_only_columns_that_a_trigger_sets_to_something_else_each_time_are_stamps(conn: psycopg.Connection) -> None:
    make(
        conn,
        """create table t (id integer primary key, a text, b text, c timestamptz, d integer, e text);
        create function f() returns trigger language plpgsql as $$ begin
            /* new.a := now(); */
            new.b := lower(new.b); -- new.a := now();
            new.d = old.d + 1;
            select now() into strict NEW.c;
            new.e := case when new.a = '' then current_user else '' end;
            return new; end $$;
        create trigger f before update on t for each row execute function f();
        create trigger g before update on t for each row execute function f();
        alter table t disable trigger g""",
        "t",
    )
    assert rows(conn, "select * from backfill.setting_triggers('t')") == [("f", list("bcde"), list("cde"))]
    with pytest.raises(psycopg.Error, match="its stamped column id is of the primary key") as caught:
        do(conn, "select backfill.track('t', p_stamped => '{id}')")
    assert caught.value.sqlstate == "BF002"
    conn.rollback()
    with pytest.raises(psycopg.Error, match="it has no stamped column x"):
        do(conn, "select backfill.track('t', p_stamped => '{x}')")


@pytest.mark.parametrize(("trigger", "fire"), [(AFTER, "select 1"), (DEFERRED, "set constraints shop.keep immediate")])
def test_a_balance_that_a_trigger_keeps_is_put_back_once(conn: psycopg.Connection, trigger: str, fire: str) -> None:
    """The trigger's balance may never fall below zero, and names its table without a schema, as the application may."""
    make(conn, BALANCE + trigger)
    do(conn, "set search_path = shop, public")
    make(conn, "insert into pay values (1, 1, 5)")
    make(conn, "", "pay", "account")
    tables = ("shop.account", "shop.pay")
    before = images(conn, *tables)
    stories = [
        ["insert into pay values (2, 1, 50), (3, 2, 7)"],
        ["update pay set cents = 1 where id = 1", "insert into pay values (2, 2, 3)"],
        ["delete from pay"],
        ["update account set cents = cents + 100 where id = 1", "insert into pay values (2, 1, 50)"],
        ["insert into pay values (2, 1, 50)", fire, "update account set cents = 70 where id = 1"],
        ["insert into account values (3, 0)", "insert into pay values (2, 3, 50)"],
        ["insert into pay values (2, 1, 4)", "delete from pay where id = 2"],
    ]  # fmt: skip
    for story in stories:
        with run(conn) as run_id:
            do(conn, *story, fire)
        after = images(conn, *tables)
        do(conn, "reset search_path")
        assert rows(conn, "select proved, refusal from backfill.prove_undo(%s)", [run_id]) == [(True, None)], story
        assert images(conn, *tables) == after
        reverse(conn, run_id)
        assert images(conn, *tables) == before, story
        reversal = value(conn, "select reversed_by from backfill.backfill_log where run_id = %s", [run_id])
        if reversal:
            reverse(conn, reversal)
            assert images(conn, *tables) == after, story
            reverse(conn, run_id)
        do(conn, "set search_path = shop, public")


def test_another_payment_since_is_a_conflict_unless_the_balance_is_the_triggers(conn: psycopg.Connection) -> None:
    make(conn, BALANCE + AFTER)
    do(conn, "set search_path = shop, public")
    make(conn, "", "pay", "account")
    run_id = done(conn, "insert into pay values (1, 1, 50)")
    do(conn, "insert into pay values (2, 1, 30)")
    conn.commit()
    assert "shop.account 1: changed since (cents)" in fails(conn, run_id)
    do(conn, "select backfill.track('account', p_stamped => '{cents}')")
    conn.commit()
    reverse(conn, run_id)
    assert rows(conn, "select id, cents from account order by id") == [(1, 40), (2, 0)]


def test_a_temporary_table_never_takes_the_place_of_the_applications(conn: psycopg.Connection) -> None:
    make(conn, BALANCE + AFTER)
    do(conn, "set search_path = pg_temp, shop, public", "select backfill.track('shop.pay')")
    kept = value(conn, "select search_path from backfill.tracked where table_name = 'shop.pay'")
    assert kept == "shop, public, pg_temp"
    do(conn, "set search_path = shop, public")
    conn.commit()
    run_id = done(conn, "insert into pay values (1, 1, 50)")
    do(conn, "reset search_path", "create temporary table account (id integer, cents bigint)")
    do(conn, "insert into pg_temp.account values (1, 0)")
    reverse(conn, run_id)
    assert rows(conn, "select cents from pg_temp.account") == [(0,)]
    assert rows(conn, "select cents from shop.account where id = 1") == [(10,)]


def test_operators_of_the_application_have_no_part_in_an_undo(conn: psycopg.Connection) -> None:
    """Its schemas are searched by its triggers, not by the engine's own statement."""
    make(conn, BALANCE + AFTER)
    do(
        conn,
        """create function shop.never(varchar, text) returns boolean language plpgsql as $$ begin
            raise 'the application''s operator was called'; end $$""",
        "create operator shop.= (leftarg = varchar, rightarg = text, function = shop.never)",
        "create table shop.note (code varchar(9) primary key, what varchar(9))",
        "create function shop.nothing() returns trigger language plpgsql as 'begin return null; end'",
        "create trigger nothing after update on shop.note for each row execute function shop.nothing()",
        "insert into shop.note values ('a', 'x')",
        "set search_path = shop, public",
        "select backfill.track('note')",
    )
    conn.commit()
    run_id = done(conn, "update note set what = 'y'")
    assert reverse(conn, run_id) == {"restored": 1}
    assert rows(conn, "select what from note") == [("x",)]


def test_a_tracked_journal_that_the_undo_itself_would_write_is_refused(conn: psycopg.Connection) -> None:
    make(
        conn,
        """create table item (id integer primary key, cents bigint);
        create table journal (id integer generated always as identity primary key, what text);
        insert into item values (1, 100);
        create function to_journal() returns trigger language plpgsql as $$ begin
            insert into journal (what) values (tg_op); return null; end $$;
        create trigger to_journal after insert or update or delete on item
            for each row execute function to_journal()""",
        "item",
        "journal",
    )
    before = images(conn, "item", "journal")
    run_id = done(conn, "update item set cents = 1")
    said = fails(conn, run_id)
    assert "a trigger would change 1 rows of public.journal that the run did not" in said
    assert "to_journal of public.item" in said
    do(conn, "alter table item disable trigger to_journal")
    assert {row[2] for row in rows(conn, "select * from backfill.reverse_run(%s)", [run_id])} == {"restored"}
    do(conn, "alter table item enable trigger to_journal")
    conn.commit()
    assert images(conn, "item", "journal") == before


def test_what_a_trigger_forbids_is_a_refusal_in_its_words(conn: psycopg.Connection) -> None:
    make(
        conn,
        """create table item (id integer primary key, cents bigint);
        create function forbid() returns trigger language plpgsql as $$ begin raise 'items are never removed'; end $$;
        create trigger forbid before delete on item for each row execute function forbid()""",
        "item",
    )
    run_id = done(conn, "insert into item values (1, 100)")
    assert f"run {run_id} cannot be reversed: items are never removed" in fails(conn, run_id)
