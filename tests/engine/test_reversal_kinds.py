"""Reversal where keys, types, names and foreign keys are not of the usual kind: right, or refused with what is true."""

from __future__ import annotations

import psycopg
import pytest

from tests.engine.words import changes, do, done, images, make, refused, reverse, rows, value


def fails(conn: psycopg.Connection, run_id: object) -> str:
    """The reversal is refused at once, not at the commit; all that was said."""
    with pytest.raises(psycopg.Error) as caught:
        conn.execute("select * from backfill.reverse_run(%s)", [run_id])
    conn.rollback()
    assert caught.value.sqlstate == "BF005", refused(caught)
    return refused(caught)


@pytest.mark.parametrize("action", ["no action", "set null"])
def test_a_deferred_key_of_somebody_elses_row_is_refused_at_the_undo(conn: psycopg.Connection, action: str) -> None:
    make(
        conn,
        f"""create table p (id integer primary key);
        create table c (id integer primary key,
            p_id integer references p on delete {action} deferrable initially deferred)""",
        "p",
        "c",
    )
    run_id = done(conn, "insert into p values (1), (2)")
    do(conn, "insert into c values (7, 1)")
    conn.commit()
    said = fails(conn, run_id)
    assert "1 rows of public.c refer to rows of public.p that would be removed: 7" in said
    do(conn, "delete from c")
    conn.commit()
    assert reverse(conn, run_id) == {"restored": 2}


def test_a_restored_row_whose_parent_went_is_refused_at_the_undo(conn: psycopg.Connection) -> None:
    make(
        conn,
        """create table p (id integer primary key);
        create table c (id integer primary key, p_id integer references p deferrable initially deferred);
        insert into p values (1);
        insert into c values (7, 1)""",
    )
    make(conn, "", "c")
    run_id = done(conn, "delete from c")
    do(conn, "delete from p")
    conn.commit()
    assert "violates foreign key constraint" in fails(conn, run_id)
    do(conn, "insert into p values (1)")
    assert reverse(conn, run_id) == {"restored": 1}
    do(conn, "insert into c values (8, 9)")
    with pytest.raises(psycopg.errors.ForeignKeyViolation):
        conn.commit()


def test_deferred_keys_wait_again_after_an_undo(conn: psycopg.Connection) -> None:
    """What follows in the same transaction finds them as it left them."""
    make(
        conn,
        """create table p (id integer primary key);
        create table c (id integer primary key, p_id integer references p deferrable initially deferred)""",
        "p",
        "c",
    )
    run_id = done(conn, "insert into c values (1, 1)", "insert into p values (1)")
    conn.execute("select * from backfill.reverse_run(%s)", [run_id])
    do(conn, "insert into c values (2, 2)", "insert into p values (2)")
    conn.commit()
    assert rows(conn, "select * from c") == [(2, 2)]


@pytest.mark.parametrize("kind", ["text", "varchar(9)", "char(4)"])
def test_spellings_under_a_collation_that_takes_them_for_one(conn: psycopg.Connection, kind: str) -> None:
    try:
        do(conn, "create collation either_case (provider = icu, locale = 'und-u-ks-level2', deterministic = false)")
    except psycopg.errors.FeatureNotSupported:
        pytest.skip("this server was built without ICU")
    make(
        conn,
        f"""create table person (id integer primary key, name {kind} collate either_case);
        create table code (code {kind} collate either_case primary key, n integer);
        insert into person values (1, 'ada');
        insert into code values ('abc', 1), ('xyz', 2)""",
        "person",
        "code",
    )
    before = images(conn, "person", "code")
    run_id = done(
        conn,
        "update person set name = 'Ada'",
        "update code set code = 'ABC' where code = 'abc'",
        "update code set n = 3 where code = 'xyz'",
    )
    assert reverse(conn, run_id)["restored"] >= 3
    assert images(conn, "person", "code") == before
    run_id = done(conn, "update person set name = 'eve'")
    do(conn, "update person set name = 'Eve'")
    conn.commit()
    assert "public.person 1: changed since (name)" in fails(conn, run_id)


def test_a_key_that_the_server_generates_always(conn: psycopg.Connection) -> None:
    """Deleted and inserted again: as the primary key, and as a column beside it that got another number."""
    make(
        conn,
        """create table a (id integer generated always as identity primary key, n integer);
        create table b (code text primary key, no integer generated always as identity, n integer);
        create table child (id integer primary key, code text references b);
        insert into a (n) values (1), (2);
        insert into b (code, n) values ('x', 1), ('y', 2);
        insert into child values (1, 'x')""",
        "a",
        "b",
    )
    before = images(conn, "a", "b", "child")
    run_id = done(
        conn,
        "delete from a where id = 1",
        "insert into a overriding system value values (1, 5)",
        "delete from a where id = 2",
        "insert into a (n) values (9)",
        "delete from b where code = 'y'",
        "insert into b (code, n) values ('y', 7)",
        "update b set n = 3 where code = 'x'",
    )
    after = images(conn, "a", "b")
    do(conn, "alter table b add column later text", "update b set later = 'mine'")
    conn.commit()
    assert reverse(conn, run_id) == {"restored": 5}
    assert rows(conn, "select later from b") == [("mine",), ("mine",)]
    do(conn, "alter table b drop column later")
    conn.commit()
    assert images(conn, "a", "b", "child") == before
    again = value(conn, "select reversed_by from backfill.backfill_log where run_id = %s", [run_id])
    do(conn, "alter table child drop constraint child_code_fkey, add foreign key (code) references b on delete cascade")
    conn.commit()
    said = fails(conn, again)
    assert "no longer has column later" in said or "the server alone computes no" in said
    assert after != before


def test_a_number_that_the_server_generates_is_not_put_back_below_a_foreign_key_that_would_act(
    conn: psycopg.Connection,
) -> None:
    make(
        conn,
        """create table b (code text primary key, no integer generated always as identity);
        create table child (id integer primary key, code text references b on delete cascade);
        insert into b (code) values ('y')""",
        "b",
    )
    run_id = done(conn, "delete from b", "insert into b (code) values ('y')")
    do(conn, "insert into child values (1, 'y')")
    conn.commit()
    said = fails(conn, run_id)
    assert "1 rows of public.b did not come back as they were: the server alone computes no" in said
    assert "trigger" not in said
    assert rows(conn, "select * from child") == [(1, "y")]


def test_a_numeric_key_that_changes_its_scale(conn: psycopg.Connection) -> None:
    make(
        conn,
        """create table rate (rate numeric primary key, n integer);
        create table child (id integer primary key, rate numeric references rate on update cascade);
        insert into rate values (1.0, 1), (2, 2);
        insert into child values (1, 1.0)""",
        "rate",
        "child",
    )
    before = images(conn, "rate", "child")
    run_id = done(conn, "update rate set rate = 1.000 where rate = 1", "update rate set rate = 2.0, n = 3 where n = 2")
    assert reverse(conn, run_id)["restored"] >= 2
    assert images(conn, "rate", "child") == before


@pytest.mark.parametrize("statement", ["delete from en", "update en set m = 'good'", "update en set n = 5"])
def test_a_value_of_an_enum_that_was_renamed_since(conn: psycopg.Connection, statement: str) -> None:
    make(
        conn,
        """create type mood as enum ('sad', 'good');
        create domain feeling as mood;
        create table en (id integer primary key, m feeling, n integer, ms mood[]);
        insert into en values (1, 'sad', 0)""",
        "en",
    )
    before = images(conn, "en")
    run_id = done(conn, statement)
    do(conn, "alter type mood rename value 'sad' to 'blue'")
    conn.commit()
    said = fails(conn, run_id)
    assert "m of public.en held 'sad' in it, which is no value of type public.mood any more: it was renamed" in said
    do(conn, "alter type mood rename value 'blue' to 'sad'")
    assert reverse(conn, run_id) == {"restored": 1}
    assert images(conn, "en") == before


def test_an_array_of_an_enum_whose_value_was_renamed_since(conn: psycopg.Connection) -> None:
    make(
        conn,
        """create type mood as enum ('sad', 'good');
        create table en (id integer primary key, ms mood[]);
        insert into en values (1, '{sad}')""",
        "en",
    )
    run_id = done(conn, "delete from en")
    do(conn, "alter type mood rename value 'sad' to 'blue'")
    conn.commit()
    assert "invalid input value for enum" in fails(conn, run_id)


def test_a_foreign_key_dropped_since_had_written_a_row_twice(conn: psycopg.Connection) -> None:
    """Within its own table, a foreign key updates a row a second time in the same statement."""
    make(
        conn,
        """create table node (id integer primary key, up integer references node on update cascade on delete set null);
        insert into node values (1, null), (2, 1), (3, 2)""",
        "node",
    )
    before = images(conn, "node")
    run_id = done(conn, "update node set id = id + 10")
    removed = done(conn, "delete from node where id = 11")
    do(conn, "alter table node drop constraint node_up_fkey")
    conn.commit()
    for undone in (removed, run_id):
        assert reverse(conn, undone)["restored"] > 0
    assert images(conn, "node") == before


def test_json_that_no_jsonb_can_hold(conn: psycopg.Connection) -> None:
    make(conn, """create table ev (id integer primary key, body json); insert into ev values (1, '{"a":  1}')""", "ev")
    before = images(conn, "ev")
    updated = done(conn, r"""update ev set body = '{"note": "a\u0000b"}'""")
    after = images(conn, "ev")
    removed = done(conn, "delete from ev")
    assert reverse(conn, removed) == {"restored": 1}
    assert images(conn, "ev") == after
    assert reverse(conn, updated) == {"restored": 1}
    assert images(conn, "ev") == before


def test_a_generated_column_that_computes_another_value_now(conn: psycopg.Connection) -> None:
    make(conn, "create table g (id integer primary key, n integer, d integer generated always as (n * 2) stored)", "g")
    run_id = done(conn, "insert into g values (1, 5)")
    gone = done(conn, "delete from g")
    do(conn, "alter table g drop column d, add column d integer generated always as (n * 3) stored")
    conn.commit()
    said = fails(conn, gone)
    assert "the server alone computes d, and computes another value now" in said
    assert run_id != gone


def test_a_run_that_died_is_closed_by_name_and_undone(conn: psycopg.Connection) -> None:
    make(conn, "create table item (id integer primary key)", "item")
    run_id = value(conn, "select backfill.begin_run('in batches', p_spans_transactions => true)")
    conn.commit()
    do(conn, f"select backfill.resume_run('{run_id}')", "insert into item values (1), (2)")
    conn.commit()
    with pytest.raises(psycopg.Error, match="is still running") as caught:
        conn.execute("select * from backfill.reverse_run(%s)", [run_id])
    conn.rollback()
    way = f"begin; select * from backfill.abandon_run('{run_id}', 'why'); commit;"
    assert way in refused(caught)
    with pytest.raises(psycopg.Error, match="is abandoned for a reason"):
        conn.execute("select backfill.abandon_run(%s, ' ')", [run_id])
    conn.rollback()
    do(conn, way.removeprefix("begin; ").split(";")[0].replace("why", "killed"))
    conn.commit()
    log = rows(conn, "select status, errors, metrics #> '{tables,public.item,inserted}' from backfill.backfill_log")
    assert log == [("partial", [{"abandoned": "killed", "by": "postgres"}], 2)]
    with pytest.raises(psycopg.Error, match="is partial already"):
        conn.execute("select backfill.abandon_run(%s, 'again')", [run_id])
    conn.rollback()
    assert reverse(conn, run_id) == {"restored": 2}
    assert len(changes(conn, run_id)) == 2


def test_a_percent_sign_in_names(conn: psycopg.Connection) -> None:
    make(
        conn,
        """create table "rate %s" (id integer primary key, code text unique, "vat %1$s" numeric, "100%" text);
        insert into "rate %s" values (1, 'a', 1), (2, 'b', 2), (3, 'c', 3)""",
        '"rate %s"',
    )
    before = images(conn, '"rate %s"')
    run_id = done(
        conn,
        """update "rate %s" set code = 't' where id = 1""",
        """update "rate %s" set code = 'a', "100%" = '%' where id = 2""",
        """update "rate %s" set code = 'b' where id = 1""",
        """delete from "rate %s" where id = 3""",
        """insert into "rate %s" values (4, 'd', 4)""",
    )
    do(conn, """update "rate %s" set "vat %1$s" = 7 where id = 4""")
    conn.commit()
    assert 'public."rate %s" 4: changed since (vat %1$s)' in fails(conn, run_id)
    do(conn, """update "rate %s" set "vat %1$s" = 4 where id = 4""")
    assert reverse(conn, run_id) == {"restored": 4}
    assert images(conn, '"rate %s"') == before
