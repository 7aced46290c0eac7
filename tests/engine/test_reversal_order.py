"""The order of a reversal: foreign keys in any combination, unique keys that changed hands, others' children."""

from __future__ import annotations

import threading

import psycopg
import pytest

from tests.engine.words import do, done, images, make, refused, reverse, value

ACTIONS = ["no action", "restrict", "cascade", "set null", "set default"]


def family(conn: psycopg.Connection, action: str = "no action") -> None:
    """A parent and a child table, each with one row, tracked; the child's name sorts before the parent's."""
    make(
        conn,
        f"""create table parent (id integer primary key, code text unique, kids integer default 0);
        create table a_child (
            id integer primary key, parent_id integer references parent on delete {action}, code text)""",
        "parent",
        "a_child",
    )
    do(conn, "insert into parent values (1, 'one')", "insert into a_child values (1, 1)")
    conn.commit()


@pytest.mark.parametrize("action", ACTIONS)
def test_parent_and_child_of_one_statement(conn: psycopg.Connection, action: str) -> None:
    family(conn, action)
    before = images(conn, "parent", "a_child")
    run_id = done(
        conn,
        "with p as (insert into parent values (2), (3) returning id) insert into a_child select id, id from p",
        "insert into a_child values (9, 2)",
        "insert into parent values (4)",
        "update a_child set parent_id = 4 where id in (1, 9)",
    )
    after = images(conn, "parent", "a_child")
    assert reverse(conn, run_id) == {"restored": 7}
    assert images(conn, "parent", "a_child") == before
    reversal = value(conn, "select reversed_by from backfill.backfill_log where run_id = %s", [run_id])
    assert reverse(conn, reversal) == {"restored": 7}
    assert images(conn, "parent", "a_child") == after


@pytest.mark.parametrize("action", ACTIONS)
def test_the_child_table_was_written_before_the_parent_table(conn: psycopg.Connection, action: str) -> None:
    """The parents would go first, and have to wait; RESTRICT has a SQLSTATE of its own from PostgreSQL 18 on."""
    family(conn, action)
    before = images(conn, "parent", "a_child")
    run_id = done(
        conn,
        "insert into a_child values (2, 1)",
        "insert into parent values (2, 'two')",
        "insert into a_child values (3, 2)",
    )
    assert reverse(conn, run_id) == {"restored": 3}
    assert images(conn, "parent", "a_child") == before


def test_a_rule_made_since_that_the_old_rows_break_makes_it_refuse(conn: psycopg.Connection) -> None:
    family(conn)
    run_id = done(conn, "update parent set kids = 3", "delete from a_child")
    do(
        conn,
        "alter table parent add constraint has_kids check (kids > 0)",
        "alter table a_child alter column code set not null",
    )
    conn.commit()
    before = images(conn, "parent", "a_child", "backfill.backfill_log")
    with pytest.raises(psycopg.Error) as caught:
        reverse(conn, run_id)
    conn.rollback()
    assert caught.value.sqlstate == "BF005"
    assert "has_kids" in refused(caught)
    assert images(conn, "parent", "a_child", "backfill.backfill_log") == before
    do(conn, "alter table parent drop constraint has_kids")
    with pytest.raises(psycopg.Error, match='null value in column "code"') as caught:
        reverse(conn, run_id)
    assert caught.value.sqlstate == "BF005"


@pytest.mark.parametrize("action", ["cascade", "set null", "no action"])
def test_a_key_that_others_refer_to_by_now_is_not_turned_back_below_them(conn: psycopg.Connection, action: str) -> None:
    """By another column than the primary key: a foreign key that acts would change rows of somebody else."""
    make(
        conn,
        f"""create table parent (id integer primary key, code text unique);
        create table child (id integer primary key, code text references parent (code) on update {action})""",
        "parent",
        "child",
    )
    do(conn, "insert into parent values (1, 'old'), (2, 'two')", "insert into child values (1, 'two')")
    conn.commit()
    before = images(conn, "parent", "child")
    run_id = done(conn, "update parent set code = 'new' where id = 1", "update child set code = 'new'")
    do(conn, "insert into child values (2, 'new')")
    conn.commit()
    meanwhile = images(conn, "parent", "child", "backfill.backfill_log")
    with pytest.raises(psycopg.Error) as caught:
        reverse(conn, run_id)
    conn.rollback()
    assert caught.value.sqlstate == "BF005"
    named = "1 rows of public.child refer to rows of public.parent that would be removed or given another key: 2"
    assert ("(code)=(new) is still referenced" if action == "no action" else named) in refused(caught)
    assert images(conn, "parent", "child", "backfill.backfill_log") == meanwhile
    do(conn, "delete from child where id = 2")
    assert reverse(conn, run_id) == {"restored": 2}
    assert images(conn, "parent", "child") == before


def test_a_key_that_goes_back_to_its_first_owner_keeps_its_children(conn: psycopg.Connection) -> None:
    make(
        conn,
        """create table parent (id integer primary key, code text unique);
        create table child (id integer primary key, code text references parent (code) initially deferred)""",
        "parent",
    )
    do(conn, "insert into parent values (1, 'old'), (2, null)", "insert into child values (1, 'old')")
    conn.commit()
    before = images(conn, "parent", "child")
    run_id = done(conn, "update parent set code = null where id = 1", "update parent set code = 'old' where id = 2")
    assert reverse(conn, run_id) == {"restored": 2}
    assert images(conn, "parent", "child") == before


@pytest.mark.parametrize("action", ACTIONS)
def test_child_and_parent_deleted(conn: psycopg.Connection, action: str) -> None:
    family(conn, action)
    before = images(conn, "parent", "a_child")
    run_id = done(conn, "delete from a_child", "delete from parent")
    assert reverse(conn, run_id) == {"restored": 2}
    assert images(conn, "parent", "a_child") == before


@pytest.mark.parametrize("action", ACTIONS)
def test_a_child_of_somebody_else_is_a_conflict_not_a_cascade(conn: psycopg.Connection, action: str) -> None:
    family(conn, action)
    run_id = done(conn, "insert into parent values (7, 'seven'), (8, 'eight')", "insert into a_child values (70, 7)")
    do(conn, "insert into a_child values (71, 7), (72, 8)")
    conn.commit()
    before = images(conn, "parent", "a_child", "backfill.backfill_log")
    with pytest.raises(psycopg.Error) as caught:
        conn.execute("select * from backfill.reverse_run(%s)", [run_id])
    conn.rollback()
    assert caught.value.sqlstate == "BF005"
    assert "2 rows of public.a_child refer to rows of public.parent that would be removed: 71, 72" in refused(caught)
    assert images(conn, "parent", "a_child", "backfill.backfill_log") == before


def test_a_child_that_arrives_during_the_reversal_waits(conn: psycopg.Connection, database_url: str) -> None:
    family(conn, "cascade")
    run_id = done(conn, "insert into parent values (7, 'seven')")
    conn.execute("select * from backfill.reverse_run(%s)", [run_id])
    failed: list[str | None] = []

    def insert() -> None:
        with psycopg.connect(database_url) as other:
            try:
                other.execute("insert into a_child values (71, 7)")
            except psycopg.Error as error:
                failed.append(error.sqlstate)

    thread = threading.Thread(target=insert)
    thread.start()
    with psycopg.connect(database_url, autocommit=True) as watcher:
        while value(watcher, "select count(*) from pg_locks where not granted") == 0 and thread.is_alive():
            pass
    conn.commit()
    thread.join()
    assert failed == ["23503"]
    assert value(conn, "select count(*) from a_child where id = 71") == 0


def test_self_reference(conn: psycopg.Connection) -> None:
    make(conn, "create table node (id integer primary key, parent integer references node, label text)", "node")
    do(conn, "insert into node values (1, null), (2, 1)")
    before = images(conn, "node")
    run_id = done(
        conn,
        "insert into node values (11, 10), (10, 11), (12, 12), (13, 1)",
        "update node set parent = 13 where id = 2",
        "insert into node values (14, 13)",
    )
    assert reverse(conn, run_id) == {"restored": 6}
    assert images(conn, "node") == before
    removed = done(conn, "delete from node")
    assert reverse(conn, removed) == {"restored": 2}
    assert images(conn, "node") == before
    grown = done(conn, "insert into node values (20, 1)")
    do(conn, "insert into node values (21, 20)")
    conn.commit()
    with pytest.raises(psycopg.Error, match="would be removed: 21"):
        reverse(conn, grown)


@pytest.mark.parametrize("kind", ["", "deferrable initially deferred"])
def test_two_tables_that_refer_to_each_other(conn: psycopg.Connection, kind: str) -> None:
    make(
        conn,
        f"""create table a (id integer primary key, b_id integer, note text);
        create table b (id integer primary key, a_id integer not null references a {kind});
        alter table a add foreign key (b_id) references b {kind}""",
        "a",
        "b",
    )
    do(conn, "insert into a values (1, null)", "insert into b values (1, 1)", "update a set b_id = 1")
    conn.commit()
    before = images(conn, "a", "b")
    run_id = done(
        conn,
        "insert into a values (2, null), (3, null)",
        "insert into b values (2, 2)",
        "update a set b_id = 2 where id = 2",
        "update a set b_id = 2 where id = 1",
        "with x as (delete from a where id = 3) update a set note = 'x' where id = 1",
    )
    assert reverse(conn, run_id) == {"restored": 3}
    assert images(conn, "a", "b") == before
    removed = done(conn, "with x as (delete from a) delete from b")
    assert reverse(conn, removed) == {"restored": 2}
    assert images(conn, "a", "b") == before


@pytest.mark.parametrize("action", ["cascade", "set null", "no action deferrable initially deferred"])
def test_a_parents_key_moved_with_its_children(conn: psycopg.Connection, action: str) -> None:
    """The old parent and the new one share a unique code, and the children have to follow at once."""
    make(
        conn,
        f"""create table parent (id integer primary key, code text unique);
        create table child (id integer primary key, parent_id integer references parent on update {action})""",
        "parent",
        "child",
    )
    do(conn, "insert into parent values (1, 'one'), (2, 'two')", "insert into child values (1, 1), (2, 1), (3, 2)")
    conn.commit()
    before = images(conn, "parent", "child")
    run_id = done(conn, "update parent set id = 10 where id = 1", "update child set parent_id = 10 where id < 3")
    moved = images(conn, "parent", "child")
    assert reverse(conn, run_id) == {"restored": 4}
    assert images(conn, "parent", "child") == before
    reversal = value(conn, "select reversed_by from backfill.backfill_log where run_id = %s", [run_id])
    assert reverse(conn, reversal) == {"restored": 4}
    assert images(conn, "parent", "child") == moved


def test_a_unique_key_handed_over(conn: psycopg.Connection) -> None:
    family(conn)
    do(conn, "insert into parent select i, 'c' || i from generate_series(2, 6) as i")
    before = images(conn, "parent")
    run_id = done(
        conn,
        "delete from parent where id = 6",
        "insert into parent values (7, 'c6')",
        "update parent set code = null where id = 2",
        "update parent set code = 'c2' where id = 3",
        "update parent set code = 'c3' where id = 4",
    )
    after = images(conn, "parent")
    assert reverse(conn, run_id) == {"restored": 5}
    assert images(conn, "parent") == before
    reversal = value(conn, "select reversed_by from backfill.backfill_log where run_id = %s", [run_id])
    assert reverse(conn, reversal) == {"restored": 5}
    assert images(conn, "parent") == after


def test_unique_keys_exchanged(conn: psycopg.Connection) -> None:
    """Also a column added since comes through, which the run's images do not know."""
    family(conn)
    do(conn, "insert into parent values (2, 'two'), (3, 'three')")
    before = images(conn, "parent", "a_child")
    run_id = done(
        conn,
        "update parent set code = null where id = 1",
        "update parent set code = 'one', kids = 4 where id = 2",
        "update parent set code = 'two' where id = 1",
    )
    do(conn, "alter table parent add column note text", "update parent set note = 'mine ' || id")
    conn.commit()
    assert reverse(conn, run_id) == {"restored": 2}
    assert value(conn, "select string_agg(note, ',' order by id) from parent") == "mine 1,mine 2,mine 3"
    do(conn, "alter table parent drop column note")
    assert {len(v) for v in images(conn, "parent", "a_child").values()} == {1, 3}
    assert value(conn, "select string_agg(code || kids, ',' order by id) from parent") == "one0,two0,three0"
    assert images(conn, "a_child")["a_child"] == before["a_child"]


def test_exchanged_keys_below_a_cascading_foreign_key_are_refused(conn: psycopg.Connection) -> None:
    """Taking the rows out and putting them back would make the foreign key act."""
    family(conn, "cascade")
    do(conn, "insert into parent values (2, 'two')")
    run_id = done(
        conn,
        "update parent set code = null where id = 1",
        "update parent set code = 'one' where id = 2",
        "update parent set code = 'two' where id = 1",
    )
    before = images(conn, "parent", "a_child")
    with pytest.raises(psycopg.Error, match="parent_code_key") as caught:
        reverse(conn, run_id)
    conn.rollback()
    assert caught.value.sqlstate == "BF005"
    assert images(conn, "parent", "a_child") == before


def test_a_restored_parent_whose_code_was_taken_since_is_refused(conn: psycopg.Connection) -> None:
    family(conn)
    run_id = done(
        conn, "insert into parent values (2, 'two')", "delete from parent where id = 2", "delete from a_child"
    )
    assert reverse(conn, run_id) == {"restored": 1}
    gone = done(conn, "update a_child set parent_id = null", "delete from parent where id = 1")
    do(conn, "insert into parent values (5, 'one')")
    conn.commit()
    before = images(conn, "parent", "a_child")
    with pytest.raises(psycopg.Error, match="parent_code_key") as caught:
        reverse(conn, gone)
    conn.rollback()
    assert caught.value.sqlstate == "BF005"
    assert "(code)=(one)" in refused(caught)
    assert images(conn, "parent", "a_child") == before


def test_many_generations(conn: psycopg.Connection) -> None:
    """Ten tables in a chain, written in any order by statements of their own, over composite keys."""
    for i in range(10):
        reference = f", foreign key (tenant, up) references g{i - 1}" if i else ""
        make(conn, f"create table g{i} (tenant text, id int, up int, primary key (tenant, id){reference})", f"g{i}")
    tables = [f"g{i}" for i in range(10)]
    before = images(conn, *tables)
    ctes = ", ".join(
        f"x{i} as (insert into g{i} select 't', n, n from generate_series(1, 50) as n)" for i in range(9, -1, -1)
    )
    run_id = done(conn, f"with {ctes} select 1", *(f"delete from g{i} where id > 40" for i in range(9, -1, -1)))
    assert reverse(conn, run_id) == {"restored": 400}
    assert images(conn, *tables) == before
