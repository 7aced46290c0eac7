"""Names of an application's tables are data: whatever stands in them, nothing of it becomes SQL of the engine."""

from __future__ import annotations

import psycopg
import pytest
from psycopg import sql

from tests.engine.words import do, done, images, make, reverse, rows, run, value

HOSTILE = [
    "x$body$;alter role backfill_auditor superuser;select $body$",
    'values(1);end$$;do $$begin"; --',
    "p%1$s %s %I %L %%",
    "it's \\'; drop table backfill.tracked; --",
    "two\nlines\r\n\tand a tab",
    'at.x, "b" = u.a1) or (true',
    "a, b, pg_temp",
    "pg_temp",
    "new_rows",
    "\N{RIGHT-TO-LEFT OVERRIDE}é\x1b[31m @0;",
]


def named(text: str, **names: str) -> str:
    """SQL with names in the place of :NAME."""
    for key, name in names.items():
        text = text.replace(f":{key}", sql.Identifier(name).as_string())
    return text


TABLES = """
    create schema if not exists :SCHEMA;
    set search_path = :SCHEMA;
    create domain :SCHEMA.:DOMAIN as text constraint :CONSTRAINT check (value <> 'no');
    create type :SCHEMA.:ENUM as enum ('a', 'b');
    create table :SCHEMA.:TABLE (:KEY integer constraint :PRIMARY primary key, :CENTS bigint, :STAMP timestamptz,
        :TEXT :SCHEMA.:DOMAIN, kind :SCHEMA.:ENUM, twice integer generated always as (:KEY * 2) stored,
        constraint :CHECK check (:CENTS > -1000000));
    create table :SCHEMA.:CHILD (id integer primary key, :KEY integer
        constraint :FOREIGN references :SCHEMA.:TABLE (:KEY) deferrable initially deferred);
    create table :SCHEMA.:OTHER (id integer primary key,
        :KEY integer references :SCHEMA.:TABLE (:KEY) on delete cascade);
    create function :SCHEMA.:FUNCTION() returns trigger language plpgsql as $f$ begin
        perform 1 from :TABLE; new.:STAMP = clock_timestamp(); return new; end $f$;
    create trigger :TRIGGER before insert or update on :SCHEMA.:TABLE for each row execute function :SCHEMA.:FUNCTION();
"""


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_is_tracked_changed_and_undone(conn: psycopg.Connection, name: str) -> None:
    """Schema, table, column, key, trigger, function, type and constraint are all called so."""
    schema = name if not name.startswith("pg_") else "public"
    names = dict.fromkeys(("TABLE", "KEY", "TRIGGER", "FUNCTION", "CONSTRAINT", "FOREIGN"), name)
    names |= {"SCHEMA": schema, "CHILD": f"c{name}", "OTHER": f"o{name}", "CENTS": f"¢{name}", "STAMP": f"s{name}"}
    names |= {"TEXT": f"t{name}", "DOMAIN": f"d{name}", "ENUM": f"e{name}", "CHECK": f"k{name}", "PRIMARY": f"p{name}"}

    def say(text: str) -> None:
        do(conn, named(text, **names))

    say(TABLES)
    table = named(":SCHEMA.:TABLE", **names)
    child = named(":SCHEMA.:CHILD", **names)
    conn.execute(
        """select backfill.track(%s, p_business_key => %s, p_money => %s, p_currency => %s, p_stamped => %s,
            p_void => %s)""",
        [table, [names["KEY"], names["CENTS"]], names["CENTS"], names["TEXT"], [names["STAMP"]], ["kind", "b", name]],
    )
    conn.execute("select backfill.track(%s)", [child])
    conn.commit()
    say(
        "insert into :SCHEMA.:TABLE (:KEY, :CENTS, :TEXT, kind)"
        " values (1, 100, 'x', 'a'), (2, 200, 'y', 'b'), (3, 1, 'z', 'a')"
    )
    say("insert into :SCHEMA.:CHILD values (1, 1), (2, 2)")
    conn.commit()
    columns = [named(f"t.:{k}", **names) for k in ("KEY", "CENTS", "TEXT")] + ["t.kind", "t.twice"]
    state = f"select {', '.join(columns)} from {table} as t order by 1"
    before, children = rows(conn, state), images(conn, child)
    with run(conn) as run_id:
        say("update :SCHEMA.:TABLE set :CENTS = :CENTS + 1, :TEXT = 'w'")
        say("update :SCHEMA.:TABLE set kind = 'b' where :KEY = 1")
        say("delete from :SCHEMA.:CHILD where id = 2")
        say("delete from :SCHEMA.:TABLE where :KEY = 2")
        say("insert into :SCHEMA.:TABLE (:KEY, :CENTS) values (4, 400)")
    assert value(conn, "select count(*) from backfill.change_log where run_id = %s", [run_id]) == 7
    assert value(
        conn, "select backfill.run_digest(%s) = digest from backfill.backfill_log where run_id = %s", [run_id] * 2
    )
    assert rows(conn, "select table_name, money from backfill.run_totals(%s) where money is not null", [run_id]) == [
        (
            value(conn, "select table_name from backfill.tracked where relation = %s::regclass", [table]),
            {"X": -100, "Y void": -200, "Z": -1, "W void": 101, "W": 2, "amounts": 400},
        )
    ]
    assert set(reverse(conn, run_id)) == {"restored"}
    assert rows(conn, state) == before
    assert images(conn, child) == children
    # A row of somebody else's is named, not run.
    conn.rollback()
    run_id = done(conn, named("insert into :SCHEMA.:TABLE (:KEY, :CENTS) values (5, 5)", **names))
    say("insert into :SCHEMA.:CHILD values (5, 5)")
    conn.commit()
    with pytest.raises(psycopg.Error, match=r"(?s)refer to rows of .* that would be removed"):
        reverse(conn, run_id)
    conn.rollback()
    say("update :SCHEMA.:TABLE set :CENTS = 6")
    conn.commit()
    with pytest.raises(psycopg.Error, match=r"are no longer what it left"):
        reverse(conn, run_id)
    conn.rollback()
    # Nor does a foreign key carry on unseen.
    say("insert into :SCHEMA.:OTHER values (1, 3)")
    conn.commit()
    with pytest.raises(psycopg.Error, match="a foreign key carries on"):
        done(conn, named("delete from :SCHEMA.:TABLE where :KEY = 3", **names))
    conn.rollback()
    assert not value(conn, "select rolsuper from pg_roles where rolname = 'backfill_auditor'")
    conn.execute("select backfill.untrack(%s)", [child])
    conn.commit()


def test_a_name_of_the_engine_is_not_taken_from_a_trigger_of_the_application(conn: psycopg.Connection) -> None:
    do(
        conn,
        """create table thing (id integer primary key);
        create function theirs() returns trigger language plpgsql as $$ begin return null; end $$;
        create trigger backfill_capture_insert after insert on thing for each statement execute function theirs()""",
    )
    with pytest.raises(psycopg.Error, match="it has a trigger of its own called backfill_capture_insert") as caught:
        do(conn, "select backfill.track('thing')")
    assert caught.value.sqlstate == "BF002"


CASTS = {
    "of an enum": (
        "create type kind as enum ('a', 'b'); create table thing (id integer primary key, kind kind)",
        "create cast (kind as text) with function spoken(kind)",
    ),
    "of a domain's base": (
        """create type kind as enum ('a', 'b'); create domain d as kind;
        create table thing (id integer primary key, kind d)""",
        "create cast (kind as text) with function spoken(kind) as implicit",
    ),
    "of an array": (
        "create type kind as enum ('a', 'b'); create table thing (id integer primary key, kind kind[])",
        """create function spoken(k kind[]) returns text language sql immutable return 'a';
        create cast (kind[] as text) with function spoken(kind[])""",
    ),
    "back from text": (
        "create type kind as enum ('a', 'b'); create table thing (id integer primary key, kind kind)",
        """create function heard(t text) returns kind language sql immutable return 'a'::public.kind;
        create cast (text as kind) with function heard(text)""",
    ),
}


@pytest.mark.parametrize("case", CASTS)
def test_a_cast_that_says_what_it_likes_falsifies_the_audit_and_is_refused(conn: psycopg.Connection, case: str) -> None:
    table, cast = CASTS[case]
    do(conn, table, "create function spoken(k kind) returns text language sql immutable return 'a'")
    do(conn, "select backfill.track('thing')")
    conn.commit()
    done(conn, "insert into thing values (1, null)")  # an ordinary enum is fine
    do(conn, cast)
    conn.commit()
    for call in ("select backfill.track('thing')", "select backfill.begin_run('later')"):
        with pytest.raises(psycopg.Error, match="column kind is of a type with a cast of its own") as caught:
            do(conn, call)
        assert caught.value.sqlstate == "BF002"
        conn.rollback()


def test_a_column_added_since_is_taken_over_with_whatever_its_name_says(conn: psycopg.Connection) -> None:
    """The next run writes the capture anew, as the engine's owner: the name is quoted there as anywhere."""
    do(conn, "create role app_owner; create table thing (id integer primary key)", "select backfill.track('thing')")
    do(conn, "alter table thing owner to postgres")
    do(conn, named("alter table thing add column :C integer", C="x$body$;alter role app_owner superuser;select $body$"))
    conn.commit()
    do(conn, "set check_function_bodies = off")
    with run(conn) as run_id:
        do(conn, "insert into thing values (1, 2)")
    assert rows(conn, "select after from backfill.change_log where run_id = %s", [run_id]) == [
        ({"id": 1, "x$body$;alter role app_owner superuser;select $body$": 2},)
    ]
    assert not value(conn, "select rolsuper from pg_roles where rolname = 'app_owner'")
    do(conn, "drop role app_owner")
    conn.commit()


ALIASES = (
    "x", "r", "u", "p", "s", "t", "e", "o", "c", "k", "n", "i", "l", "m", "b1", "a1", "old", "new", "before", "after",
    "row_no", "operation", "statement", "pack", "run_id", "row_count", "value", "old_rows", "new_rows", "place",
)  # fmt: skip


def test_a_column_may_be_called_as_the_engine_calls_its_own(conn: psycopg.Connection) -> None:
    """Within a query of the engine's a name means what it is there for, and not a column of the table."""
    columns = ", ".join(f'"{name}" bigint' for name in ALIASES)
    make(conn, f"create table odd (id integer, {columns}, primary key (id, x, r))")
    do(conn, "select backfill.track('odd', '{x,t,p}', 'u')")
    listed = ", ".join(f'"{name}"' for name in ALIASES)
    values = ", ".join(f"g * 100 + {place}" for place, _ in enumerate(ALIASES))
    do(conn, f"insert into odd (id, {listed}) select g, {values} from generate_series(1, 3) as g")
    conn.commit()
    was = "select jsonb_object_agg(w.id, to_jsonb(w.*)) from odd as w"
    before = value(conn, was)
    with run(conn) as run_id:
        do(
            conn,
            "update odd set u = u + 1, x = x + 1000 where id = 1",
            "delete from odd where id = 2",
            f"insert into odd (id, {listed}) select 4, {values} from generate_series(4, 4) as g",
        )
    after = value(conn, was)
    found = rows(
        conn,
        "select operation, before, after, business_key from backfill.change_log where run_id = %s order by operation",
        [run_id],
    )
    key = {row: f"{after[row]['x']} / {after[row]['t']} / {after[row]['p']}" for row in after}
    assert [(row[0], row[1], row[2]) for row in found] == [
        ("DELETE", before["2"], None), ("INSERT", None, after["4"]), ("UPDATE", before["1"], after["1"]),
    ]  # fmt: skip
    assert [found[1][3], found[2][3]] == [key["4"], key["1"]]
    assert value(conn, "select backfill.run_digest(run_id) = digest from backfill.backfill_log"
                       " where run_id = %s", [run_id])  # fmt: skip
    assert set(reverse(conn, run_id)) == {"restored"}
    assert value(conn, was) == before
