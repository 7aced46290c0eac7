"""Reversal of rows: all or nothing, byte for byte, a run itself, and refused where somebody was there since."""

from __future__ import annotations

import threading
from uuid import uuid4

import psycopg
import pytest
from psycopg import IsolationLevel

from tests.engine.words import changes, do, done, images, make, refused, reverse, rows, run, value

ITEM = "create table item (id integer primary key, name text, cents bigint not null default 0)"


@pytest.fixture
def item(conn: psycopg.Connection) -> psycopg.Connection:
    """A tracked table of six rows."""
    make(conn, ITEM, "item")
    do(conn, "select backfill.track('item', '{name}', 'cents')")
    do(conn, "insert into item select i, 'n' || i, 100 * i from generate_series(1, 6) as i")
    conn.commit()
    return conn


def refuses(conn: psycopg.Connection, run_id: object) -> str:
    """The reversal is refused with BF005, changes nothing, and leaves the run as it was."""
    tables = [row[0] for row in rows(conn, "select table_name from backfill.tracked where active")]
    before = images(conn, *tables), value(conn, "select count(*) from backfill.change_log")
    with pytest.raises(psycopg.Error) as caught:
        conn.execute("select * from backfill.reverse_run(%s)", [run_id])
    conn.rollback()
    assert caught.value.sqlstate == "BF005"
    assert before == (images(conn, *tables), value(conn, "select count(*) from backfill.change_log"))
    assert value(conn, "select status from backfill.backfill_log where run_id = %s", [run_id]) == "succeeded"
    return refused(caught)


def test_net_effect_of_several_statements(item: psycopg.Connection) -> None:
    before = images(item, "item")
    run_id = done(
        item,
        "insert into item values (7, 'n7', 1), (8, 'n8', 1)",
        "update item set cents = cents + 1 where id in (1, 7)",
        "update item set cents = cents + 1 where id in (1, 7)",
        "delete from item where id in (2, 8)",
        "insert into item values (2, 'another', 0)",
        "update item set cents = 0 where id = 3",
        "delete from item where id = 3",
        "delete from item where id = 4",
        "insert into item values (4, 'n4', 400)",
    )
    found = rows(item, "select business_key, result from backfill.reversal_preview(%s) order by 1", [run_id])
    assert found == [("another", "restored"), ("n1", "restored"), ("n3", "restored"), ("n7", "restored")]
    assert reverse(item, run_id) == {"restored": 4}, "8 came and went, 4 went and came back the same"
    assert images(item, "item") == before


def test_a_key_moved_along_a_chain(item: psycopg.Connection) -> None:
    before = images(item, "item")
    run_id = done(
        item,
        "update item set id = 10 where id = 1",
        "update item set id = 11, cents = 5 where id = 10",
        "update item set id = 12 where id = 11",
        "update item set id = 1 where id = 2",
        "update item set id = id + 1 where id = 12",
    )
    assert reverse(item, run_id) == {"restored": 3}
    assert images(item, "item") == before


def test_already_original_is_said_and_harmless(item: psycopg.Connection) -> None:
    before = images(item, "item")
    run_id = done(
        item,
        "update item set cents = 0 where id <= 2",
        "delete from item where id = 3",
        "insert into item values (9, 'n9', 9)",
    )
    do(
        item,
        "update item set cents = 100 where id = 1",
        "insert into item values (3, 'n3', 300)",
        "delete from item where id = 9",
    )
    assert reverse(item, run_id) == {"already original": 3, "restored": 1}
    assert images(item, "item") == before


@pytest.mark.parametrize(
    ("meanwhile", "told"),
    [
        ("update item set cents = 7 where id = 1", "public.item n1: changed since (cents)"),
        ("update item set cents = 7, name = 'x' where id = 9", "public.item n9: changed since (name, cents)"),
        ("delete from item where id = 1", "public.item n1: missing"),
        ("insert into item values (2, 'n2', 1)", "public.item n2: changed since"),
    ],
)
def test_a_row_that_somebody_changed_makes_it_refuse(item: psycopg.Connection, meanwhile: str, told: str) -> None:
    run_id = done(
        item,
        "update item set cents = 0 where id in (1, 5)",
        "delete from item where id = 2",
        "insert into item values (9, 'n9', 9)",
    )
    do(item, meanwhile)
    item.commit()
    said = refuses(item, run_id)
    assert "1 of 4 rows of public.item are no longer what it left" in said
    assert told in said
    assert "Somebody changed them outside a run" in said
    preview = rows(item, "select result from backfill.reversal_preview(%s)", [run_id])
    assert sorted(result for (result,) in preview)[-3:] == ["restored"] * 3


def test_a_later_run_is_named(item: psycopg.Connection) -> None:
    before = images(item, "item")
    first = done(item, "update item set cents = 0 where id = 1")
    with run(item, "hotfix: n1") as second:
        do(item, "update item set cents = 1 where id = 1")
    said = refuses(item, first)
    assert f"reversed first: {second} (hotfix: n1)" in said
    assert reverse(item, second) == {"restored": 1}
    assert reverse(item, first) == {"restored": 1}
    assert images(item, "item") == before


def test_only_runs_that_wrote_the_rows_in_the_way_are_named(item: psycopg.Connection) -> None:
    before = images(item, "item")
    first = done(item, "update item set cents = 0 where id <= 2", "insert into item values (9, 'n9', 9)")
    with run(item, "elsewhere"):
        do(item, "update item set cents = 1 where id = 5", "delete from item where id = 6")
    with run(item, "moved") as moved:
        do(item, "update item set id = 20 where id = 1")
    with run(item, "undone again") as undone:
        do(item, "update item set cents = 7 where id = 2")
    reverse(item, undone)
    with run(item, "moving day") as joined:
        value(item, "select backfill.ensure_run('n9 is dearer', '{\"why\": \"index\"}')")
        do(item, "update item set cents = 10 where id = 9")
    do(item, "update item set cents = 8 where id = 2")
    item.commit()
    said = refuses(item, first)
    assert f"to be reversed first: {joined} (moving day, n9 is dearer), {moved} (moved). 1 of the rows were" in said
    assert "elsewhere" not in said
    assert "undone again" not in said
    for later in (joined, moved):
        assert reverse(item, later)["restored"] > 0
    assert "Somebody changed them outside a run" in refuses(item, first)
    do(item, "update item set cents = 0 where id = 2")
    assert reverse(item, first) == {"restored": 3}
    do(item, "update item set cents = 500 where id = 5", "insert into item values (6, 'n6', 600)")
    assert images(item, "item") == before


def test_a_later_undo_and_a_later_run_of_the_same_transaction_are_named(item: psycopg.Connection) -> None:
    """Both share the start of their transaction; and an undo of something older is what stands in the way."""
    older = done(item, "update item set cents = 1 where id = 1")
    do(item, "update item set cents = 5 where id = 1")
    item.commit()
    first = value(item, "select backfill.begin_run('first')")
    do(item, "update item set cents = 6 where id in (1, 2)", "select backfill.finish_run()")
    with run(item, "second") as second:
        do(item, "update item set cents = 7 where id = 2")
    do(item, "update item set cents = 1 where id = 1")
    reverse(item, older)
    undo = value(item, "select reversed_by from backfill.backfill_log where run_id = %s", [older])
    assert f"reversed first: {undo} (a correction), {second} (second)" in refuses(item, first)


def test_ten_columns_are_named_and_the_others_counted(conn: psycopg.Connection) -> None:
    names = [f"c{i}" for i in range(13)]
    make(conn, f"create table wide (id integer primary key, {', '.join(f'{n} integer' for n in names)})", "wide")
    run_id = done(conn, "insert into wide values (1)")
    do(conn, "update wide set " + ", ".join(f"{n} = 1" for n in names))
    conn.commit()
    assert f"wide 1: changed since ({', '.join(names[:10])} and 3 more)" in refuses(conn, run_id)


def test_a_reversal_is_a_run(item: psycopg.Connection) -> None:
    run_id = done(item, "update item set cents = 1 where id = 1")
    item.execute("select * from backfill.reverse_run(%s, 'a person')", [run_id])
    item.commit()
    columns = "run_id, mode, actor, status, reverses, digest is not null"
    reversal = rows(item, f"select {columns} from backfill.backfill_log where mode = 'reversal'")
    assert [row[1:] for row in reversal] == [("reversal", "a person (claimed) via postgres", "succeeded", run_id, True)]
    assert changes(item, reversal[0][0], "business_key, amount_before, amount_after") == [("n1", 1, 100)]
    log = rows(item, "select status, reversed_by from backfill.backfill_log where run_id = %s", [run_id])
    assert log == [("reversed", reversal[0][0])]


def test_twice_is_a_no_op(item: psycopg.Connection) -> None:
    run_id = done(item, "update item set cents = 1", "delete from item where id = 1")
    assert reverse(item, run_id) == {"restored": 6}
    state = images(item, "item", "backfill.backfill_log")
    assert reverse(item, run_id) == {}
    assert images(item, "item", "backfill.backfill_log") == state


def test_undoing_the_undo_brings_the_run_back_and_can_be_undone(item: psycopg.Connection) -> None:
    before = images(item, "item")
    run_id = done(item, "update item set cents = 1", "delete from item where id = 1", "insert into item values (9)")
    after = images(item, "item")
    for _ in range(2):
        assert reverse(item, run_id) == {"restored": 7}
        assert images(item, "item") == before
        reversal = value(item, "select reversed_by from backfill.backfill_log where run_id = %s", [run_id])
        assert reverse(item, reversal) == {"restored": 7}
        assert images(item, "item") == after
        log = rows(item, "select status, reversed_by from backfill.backfill_log where run_id = %s", [run_id])
        assert log == [("succeeded", None)]
    assert reverse(item, run_id) == {"restored": 7}
    assert images(item, "item") == before


def test_the_log_says_what_stands_however_often_the_last_undo_is_undone(item: psycopg.Connection) -> None:
    before = images(item, "item")
    runs = [done(item, "update item set cents = 1")]
    after = images(item, "item")
    for depth in range(1, 6):
        assert reverse(item, runs[-1]) == {"restored": 6}
        runs.append(value(item, "select run_id from backfill.backfill_log where reverses = %s", [runs[-1]]))
        assert images(item, "item") == (before if depth % 2 else after)
        log = dict(rows(item, "select run_id, (status, reversed_by) from backfill.backfill_log"))
        for place, run_id in enumerate(runs):
            by = None if (depth - place) % 2 == 0 else str(runs[place + 1])
            assert log[run_id] == ("reversed" if by else "succeeded", by), (depth, place)


def test_an_old_undo_can_be_undone_after_its_run_was_undone_again(item: psycopg.Connection) -> None:
    before = images(item, "item")
    first = done(item, "update item set cents = 1")
    after = images(item, "item")
    reverse(item, first)
    old = value(item, "select reversed_by from backfill.backfill_log where run_id = %s", [first])
    reverse(item, old)
    again = value(item, "select reversed_by from backfill.backfill_log where run_id = %s", [old])
    reverse(item, first)
    assert reverse(item, again) == {}, "what it had brought back is gone already"
    assert images(item, "item") == before
    assert reverse(item, old) == {"restored": 6}
    assert images(item, "item") == after
    assert value(item, "select status from backfill.backfill_log where run_id = %s", [first]) == "succeeded"


def test_trying_an_undo_leaves_nothing(item: psycopg.Connection) -> None:
    run_id = done(item, "update item set cents = 1")
    state = images(item, "item", "backfill.backfill_log")
    assert len(rows(item, "select * from backfill.reverse_run(%s)", [run_id])) == 6
    item.rollback()
    assert images(item, "item", "backfill.backfill_log") == state


def test_unknown_and_open_runs_are_refused(item: psycopg.Connection) -> None:
    for function in ("reverse_run", "reversal_preview", "run_digest"):
        with pytest.raises(psycopg.Error, match="there is no run") as caught:
            value(item, f"select backfill.{function}(%s)", [uuid4()])
        assert caught.value.sqlstate == "BF009"
        item.rollback()
    run_id = value(item, "select backfill.begin_run('open')")
    with pytest.raises(psycopg.Error, match="is still running") as caught:
        value(item, "select backfill.reverse_run(%s)", [run_id])
    assert caught.value.sqlstate == "BF001"


TRIGGERS = {
    "update": ("update item set cents = 1 where id = 1", "new.cents := new.cents + 1; return new"),
    "insert or update": ("delete from item where id = 1", "new.name := upper(new.name); return new"),
    "kept update": ("update item set cents = 1 where id = 1", "return null"),
    "kept insert": ("delete from item where id = 1", "return null"),
    "kept delete": ("insert into item values (9, 'n9', 9)", "return null"),
}


@pytest.mark.parametrize("case", TRIGGERS)
def test_a_trigger_that_keeps_or_alters_a_row_makes_it_refuse(item: psycopg.Connection, case: str) -> None:
    statement, body = TRIGGERS[case]
    run_id = done(item, statement)
    do(
        item,
        f"create function meddle() returns trigger language plpgsql as $$ begin {body}; end $$",
        f"create trigger meddle before {case.removeprefix('kept ')} on item for each row execute function meddle()",
    )
    item.commit()
    said = refuses(item, run_id)
    assert "public.item" in said
    assert "trigger" in said


def test_what_a_trigger_did_to_a_restored_row_is_mended(item: psycopg.Connection) -> None:
    """Only where it does so each time is it refused: what counts is the state at the end."""
    make(item, "create table log (id integer primary key, n integer)", "log")
    before = images(item, "item", "log")
    run_id = done(
        item, "update item set cents = 1 where id = 1", "insert into log values (1, 1)", "update log set n = 2"
    )
    removed = done(item, "delete from item where id = 2")
    do(
        item,
        """create function meddle() returns trigger language plpgsql as $$ begin
            if tg_op = 'INSERT' then new.name := upper(new.name); return new; end if;
            update public.item set name = 'meddled' where id = 1; return null; end $$""",
        "create trigger meddle after delete on log for each row execute function meddle()",
        "create trigger meddle before insert on item for each row execute function meddle()",
    )
    item.commit()
    assert reverse(item, removed) == {"restored": 1}
    assert reverse(item, run_id) == {"restored": 2}
    assert images(item, "item", "log") == before


@pytest.mark.parametrize("level", [IsolationLevel.READ_COMMITTED, IsolationLevel.REPEATABLE_READ])
def test_a_concurrent_update_stops_it(item: psycopg.Connection, database_url: str, level: IsolationLevel) -> None:
    run_id = done(item, "update item set cents = 0")
    outcome: list[psycopg.Error] = []

    def undo() -> None:
        with psycopg.connect(database_url) as other:
            other.isolation_level = level
            try:
                other.execute("select * from backfill.reverse_run(%s)", [run_id])
            except psycopg.Error as error:
                outcome.append(error)
                other.rollback()

    with psycopg.connect(database_url) as writer, psycopg.connect(database_url, autocommit=True) as watcher:
        writer.execute("update item set cents = 77 where id = 4")
        thread = threading.Thread(target=undo)
        thread.start()
        waiting = "select count(*) from pg_locks where not granted and locktype = 'transactionid'"
        while value(watcher, waiting) == 0 and thread.is_alive():
            pass
        writer.commit()
        thread.join()
    assert [error.sqlstate for error in outcome] == ["BF005" if level is IsolationLevel.READ_COMMITTED else "40001"]
    assert value(item, "select string_agg(cents::text, ' ' order by id) from item") == "0 0 0 77 0 0"


def test_columns_added_since_keep_their_values(item: psycopg.Connection) -> None:
    run_id = done(item, "update item set cents = 1 where id = 1", "delete from item where id = 2")
    do(item, "alter table item add column note text default 'later'", "update item set note = 'mine' where id = 1")
    item.commit()
    assert reverse(item, run_id) == {"restored": 2}
    assert rows(item, "select cents, note from item where id in (1, 2) order by id") == [(100, "mine"), (200, "later")]


def test_a_column_dropped_since_makes_it_refuse(item: psycopg.Connection) -> None:
    run_id = done(item, "update item set cents = 1 where id = 1")
    do(item, "select backfill.track('item', '{id}')", "alter table item drop column name")
    item.commit()
    assert "public.item no longer has column name" in refuses(item, run_id)
    do(item, "alter table item add column name text")
    item.commit()
    assert "changed since (name)" in refuses(item, run_id)


def test_another_primary_key_since(item: psycopg.Connection) -> None:
    """One that the images hold serves as well; one that they do not makes it refuse."""
    before = images(item, "item")
    run_id = done(item, "update item set cents = 0 where id = 1", "update item set cents = cents + 1 where id = 1")
    do(item, "alter table item drop constraint item_pkey, add primary key (name)")
    item.commit()
    assert reverse(item, run_id) == {"restored": 1}
    assert images(item, "item") == before
    again = done(item, "update item set cents = 0 where id = 1")
    do(item, "alter table item drop constraint item_pkey, add column uid serial primary key")
    item.commit()
    assert "the primary key of public.item is another one now" in refuses(item, again)


def test_a_table_dropped_since_makes_it_refuse(item: psycopg.Connection) -> None:
    make(item, "create table other (id integer primary key)", "other")
    run_id = done(item, "insert into other values (1)", "update item set cents = 1")
    do(item, "drop table other")
    item.commit()
    with pytest.raises(psycopg.Error, match=r"table public\.other is gone"):
        item.execute("select * from backfill.reverse_run(%s)", [run_id])


@pytest.mark.parametrize("kind", ["bigint", "numeric(12,2)", "text"])
def test_a_column_retyped_since_is_compared_in_its_new_type(item: psycopg.Connection, kind: str) -> None:
    make(item, "create table note (id integer primary key, n integer)", "note")
    do(item, "insert into note values (1, 5), (2, 6), (3, 7)")
    item.commit()
    run_id = done(item, "update note set n = 50 where id = 1", "delete from note where id = 2")
    do(item, f"alter table note alter column n type {kind}")
    item.commit()
    assert reverse(item, run_id) == {"restored": 2}
    assert value(item, "select string_agg(n::numeric::integer::text, ' ' order by id) from note") == "5 6 7"
    assert [row[0]["n"] for row in changes(item, run_id, "before")] == [5, 6] if kind != "text" else ["5", "6"]


@pytest.mark.parametrize("kind", ["integer", "json", "integer[]"])
def test_history_that_does_not_fit_the_new_type_stays_readable(item: psycopg.Connection, kind: str) -> None:
    run_id = done(item, "update item set name = 'x' where id = 1", "update item set name = '{3' where id = 1")
    do(
        item,
        "select backfill.track('item', '{id}')",
        f"alter table item alter column name type {kind} using {'null' if '[]' in kind else 'id'}::text::{kind}",
    )
    item.commit()
    later = done(item, "update item set name = null, cents = 5 where id = 2")
    assert [row[0]["name (was text)"] for row in changes(item, run_id, "before")] == ["n1", "x"]
    assert reverse(item, later) == {"restored": 1}
    assert "no longer has column name (was text)" in refuses(item, run_id)


def test_an_update_that_changed_nothing(item: psycopg.Connection) -> None:
    before = images(item, "item")
    run_id = done(item, "update item set cents = cents")
    assert len(changes(item, run_id)) == 6
    reverse(item, run_id)
    assert images(item, "item") == before


@pytest.mark.parametrize(
    "statement", ["delete from item where id = 1", "update item set name = 'x', cents = 1 where id = 1"]
)
def test_an_image_that_the_column_no_longer_holds_makes_it_refuse(item: psycopg.Connection, statement: str) -> None:
    """A cast to a narrower type would cut the name or round the amount without a word."""
    make(item, "create table rate (id integer primary key, rate numeric(9,4))", "rate")
    do(item, "update item set name = 'a long name' where id = 1", "insert into rate values (1, 0.1234)")
    run_id = done(item, statement)
    rated = done(item, statement.replace("item", "rate").replace("name = 'x', cents = 1", "rate = 0"))
    do(
        item,
        "alter table item alter column name type varchar(5)",
        "alter table rate alter column rate type numeric(9,2)",
    )
    item.commit()
    for changed in (run_id, rated):
        refuses(item, changed)


def test_a_business_key_that_the_run_did_not_know(item: psycopg.Connection) -> None:
    run_id = done(item, "update item set cents = 1 where id = 1")
    do(item, "alter table item add column label text", "select backfill.track('item', '{label}')")
    item.commit()
    assert reverse(item, run_id) == {"restored": 1}


def test_history_is_never_rounded(item: psycopg.Connection) -> None:
    make(item, "create table rate (id integer primary key, rate numeric, at timestamp)", "rate")
    run_id = done(item, "insert into rate values (1, 0.60, '2024-01-01 12:30')")
    do(item, "alter table rate alter column rate type integer, alter column at type date")
    item.commit()
    done(item, "select 1")
    assert changes(item, run_id, "after") == [
        (
            {
                "id": 1,
                "rate (was numeric)": 0.60,
                "at (was timestamp without time zone)": "2024-01-01T12:30:00",
                "rate": None,
                "at": None,
            },
        )
    ]


def test_a_column_added_since_comes_back_when_the_undo_is_undone(item: psycopg.Connection) -> None:
    """The run never knew it: the undo has to keep what the row held there by then."""
    run_id = done(item, "insert into item values (8, 'n8', 8), (9, 'n9', 9)")
    changed = done(item, "update item set cents = 5 where id = 1")
    do(item, "alter table item add column note text", "update item set note = 'mine ' || id")
    item.commit()
    before = images(item, "item")
    for undone, count in ((run_id, 2), (changed, 1)):
        assert reverse(item, undone) == {"restored": count}
        undo = value(item, "select reversed_by from backfill.backfill_log where run_id = %s", [undone])
        assert reverse(item, undo) == {"restored": count}
        assert images(item, "item") == before


def test_an_undo_keeps_the_bytes_that_it_found(conn: psycopg.Connection) -> None:
    """1.00 is the 1.0 that the run left, and the undo of the undo brings 1.00 back."""
    make(conn, "create table rate (id integer primary key, rate numeric, span interval, data jsonb)", "rate")
    do(conn, "insert into rate values (1, 1, '0', '0')")
    inserted = done(conn, "insert into rate values (2, 1.0, '30 days', '{\"a\": 1.0}')")
    updated = done(conn, "update rate set rate = 1.0, span = '30 days', data = '{\"a\": 1.0}' where id = 1")
    do(conn, "update rate set rate = 1.00, span = '1 month', data = '{\"a\": 1.00}'")
    conn.commit()
    before = images(conn, "rate")
    for undone in (inserted, updated):
        assert reverse(conn, undone) == {"restored": 1}
        undo = value(conn, "select reversed_by from backfill.backfill_log where run_id = %s", [undone])
        assert reverse(conn, undo) == {"restored": 1}
        assert images(conn, "rate") == before


def test_another_spelling_is_a_change_whatever_the_collation_says(conn: psycopg.Connection) -> None:
    try:
        do(conn, "create collation either_case (provider = icu, locale = 'und-u-ks-level2', deterministic = false)")
    except psycopg.errors.FeatureNotSupported:
        pytest.skip("this server was built without ICU")
    make(conn, "create table person (id integer primary key, name text collate either_case)", "person")
    run_id = done(conn, "insert into person values (1, 'ada')")
    do(conn, "update person set name = 'Ada'")
    conn.commit()
    assert "public.person 1: changed since (name)" in refuses(conn, run_id)
