"""Every column type: captured as it is, shown in change_log, and restored byte for byte."""

from __future__ import annotations

import psycopg
import pytest

from tests.engine.words import changes, do, done, images, make, reverse, rows, value

# What a row of that type holds first, and what a run makes of it.
TYPES: dict[str, tuple[str, str]] = {
    "smallint": ("1", "2"),
    "integer": ("1", "null"),
    "bigint": ("9007199254740993", "9007199254740995"),
    "numeric": ("1.0", "1.00"),
    "numeric(12,2)": ("1.10", "'NaN'"),
    "real": ("0.1", "'-0'"),
    "double precision": ("'NaN'", "0.1::real"),
    "money": ("1234.56", "-0.01"),
    "boolean": ("true", "null"),
    "text": ("''", "'ä€😀'"),
    "varchar(8)": ("'a'", "'a '"),
    "char(8)": ("'abc'", "'abcdefgh'"),
    '"char"': ("'a'", "'b'"),
    "name": ("'a'", "'b'"),
    "bytea": (r"'\x00ff'", r"'\x'"),
    "uuid": ("gen_random_uuid()", "gen_random_uuid()"),
    "date": ("'2024-02-29'", "'infinity'"),
    "time": ("'23:59:59.999999'", "'24:00'"),
    "timetz": ("'12:00+02'", "'11:00+01'"),
    "timestamp": ("'2024-03-31 02:30'", "'-infinity'"),
    "timestamptz": ("'2024-03-31 02:30+01'", "'2024-10-27 02:30+01'"),
    "interval": ("'1 day'", "'24 hours'"),
    "interval hour to minute": ("'01:30'", "'01:31'"),
    "bit(5)": ("B'10101'", "B'01010'"),
    "bit varying": ("B'1'", "B''"),
    "json": ("""'{"a": 1, "a" : 2}'""", """'{"a":1}'"""),
    "jsonb": ("""'{"a": 1.0}'""", """'{"a": 1.00}'"""),
    "point": ("'(1,2)'", "'(0.1,-0)'"),
    "circle": ("'<(1,2),3>'", "'<(1,2),4>'"),
    "inet": ("'10.0.0.1/8'", "'::1'"),
    "cidr": ("'10.0.0.0/8'", "'10.0.0.0/16'"),
    "macaddr": ("'08:00:2b:01:02:03'", "'08:00:2b:01:02:04'"),
    "tsvector": ("'a:1 b:2'", "'a:1'"),
    "int4range": ("'[1,5)'", "'empty'"),
    "tstzrange": ("'[2024-01-01,2024-02-01)'", "'[2024-01-01,)'"),
    "datemultirange": ("'{[2024-01-01,2024-02-01)}'", "'{}'"),
    "regclass": ("'pg_class'", "'pg_type'"),
    "integer[]": ("'{1,null,3}'", "'{}'"),
    "integer[][]": ("'{{1,2},{3,4}}'", "'[0:1]={1,2}'"),
    "text[]": ("""'{"a,b","\\"",null}'""", "null"),
    "timestamptz[]": ("'{2024-01-01 00:00+05}'", "'{infinity}'"),
    "jsonb[]": ("""array['{"a": 1}'::jsonb]""", "'{}'"),
    "bytea[]": (r"array['\x00'::bytea]", "'{null}'"),
    "kind.mood": ("'sad'", "'Happy, \"so\"'"),
    "kind.mood[]": ("'{sad}'", "'{sad,sad}'"),
    "kind.pair": ("row(1.50, 'a,b')", "row(null, '')"),
    "kind.pair[]": ("array[row(1, 'x')::kind.pair]", "'{}'"),
    "kind.cents": ("100", "101"),
    "kind.tags": ("'{a,b}'", "'{b}'"),
    "kind.code": ("'AB'", "'CD'"),
}

KINDS = """
    create schema kind;
    create type kind.mood as enum ('sad', 'Happy, "so"');
    create type kind.pair as (amount numeric, label text);
    create domain kind.cents as bigint check (value >= 0);
    create domain kind.tags as text[] check (cardinality(value) < 9);
    create domain kind.code as char(2);
    create domain kind.inner as kind.cents;
"""


@pytest.fixture
def typed(conn: psycopg.Connection) -> psycopg.Connection:
    """A table with one column of every type, its rows in the first state, and a row that a run is to delete."""
    columns = ", ".join(f"c{i} {name}" for i, name in enumerate(TYPES))
    make(conn, KINDS + f"create table kind.row (id integer primary key, {columns})", "kind.row")
    first = ", ".join(before for before, _ in TYPES.values())
    do(conn, f"insert into kind.row values (1, {first}), (2, {first})", "insert into kind.row (id) values (3)")
    conn.commit()
    return conn


def test_every_type_comes_back_byte_for_byte(typed: psycopg.Connection) -> None:
    before = images(typed, "kind.row")
    second = ", ".join(f"c{i} = {after}" for i, (_, after) in enumerate(TYPES.values()))
    run_id = done(
        typed,
        f"update kind.row set {second} where id = 1",
        "delete from kind.row where id = 2",
        f"insert into kind.row values (4, {', '.join(after for _, after in TYPES.values())})",
    )
    assert images(typed, "kind.row") != before
    assert reverse(typed, run_id) == {"restored": 3}
    assert images(typed, "kind.row") == before


def test_one_changed_column_is_enough(conn: psycopg.Connection) -> None:
    """Also where the old and the new value are equal to PostgreSQL, as 1.0 and 1.00 are."""
    make(conn, KINDS)
    for name, (first, second) in TYPES.items():
        do(conn, f"create table kind.row (id integer primary key, v {name})", "select backfill.track('kind.row')")
        do(conn, f"insert into kind.row values (1, {first})")
        before = images(conn, "kind.row")
        run_id = value(conn, "select backfill.begin_run('change one column')")
        do(conn, f"update kind.row set v = {second}", "select backfill.finish_run()")
        assert images(conn, "kind.row") != before, name
        assert rows(conn, "select result from backfill.reverse_run(%s)", [run_id]) == [("restored",)], name
        assert images(conn, "kind.row") == before, name
        conn.rollback()


def test_change_log_shows_the_row_as_to_jsonb_does(typed: psycopg.Connection) -> None:
    do(typed, "set timezone = 'UTC'")
    as_jsonb = rows(typed, "select to_jsonb(t) from kind.row as t where id in (1, 3) order by id")
    run_id = done(typed, "delete from kind.row where id in (1, 3)")
    logged = [before for _, before, _ in changes(typed, run_id)]
    # What is kept as text and is no built-in type is shown as that text.
    shown_as_text = {f"c{i}" for i, name in enumerate(TYPES) if name.startswith("kind.")}
    for (expected,), found in zip(as_jsonb, logged, strict=True):
        assert {k: v for k, v in found.items() if k not in shown_as_text} == {
            k: v for k, v in expected.items() if k not in shown_as_text
        }


def test_xml_comes_back_where_the_server_knows_it(conn: psycopg.Connection) -> None:
    try:
        value(conn, "select '<a/>'::xml")
    except psycopg.errors.FeatureNotSupported:
        pytest.skip("this server was built without libxml")
    make(conn, "create table page (id integer primary key, body xml)", "page")
    do(conn, "insert into page values (1, '<a>1</a> tail')")
    before = images(conn, "page")
    run_id = done(conn, "update page set body = '<b/>'")
    do(conn, "set xmloption = document")
    assert reverse(conn, run_id) == {"restored": 1}
    assert images(conn, "page") == before


def test_settings_of_the_session_do_not_matter(typed: psycopg.Connection) -> None:
    do(
        typed,
        "set timezone = 'America/Los_Angeles'",
        "set datestyle = 'SQL, DMY'",
        "set intervalstyle = 'iso_8601'",
        "set bytea_output = 'escape'",
        "set extra_float_digits = -3",
    )
    before = images(typed, "kind.row")
    second = ", ".join(f"c{i} = {after}" for i, (_, after) in enumerate(TYPES.values()))
    run_id = done(typed, f"update kind.row set {second} where id = 1", "delete from kind.row where id = 2")
    left = images(typed, "kind.row")
    do(
        typed,
        "set timezone = 'Asia/Kathmandu'",
        "set datestyle = 'German'",
        "set intervalstyle = 'sql_standard'",
        "set bytea_output = 'hex'",
        "set extra_float_digits = 3",
    )
    preview = rows(typed, "select distinct result from backfill.reversal_preview(%s)", [run_id])
    assert preview == [("restored",)]
    assert reverse(typed, run_id) == {"restored": 2}
    assert images(typed, "kind.row") == before
    again = value(typed, "select reversed_by from backfill.backfill_log where run_id = %s", [run_id])
    do(typed, "set timezone = 'UTC'", "set datestyle = 'ISO, MDY'", "set intervalstyle = 'postgres'")
    assert reverse(typed, again) == {"restored": 2}
    assert images(typed, "kind.row") == left


def test_generated_and_identity_columns(conn: psycopg.Connection) -> None:
    make(
        conn,
        """create table bill (
            id bigint generated always as identity primary key,
            net bigint, vat bigint generated always as (net / 5) stored,
            number bigint generated by default as identity, note text default 'none'
        )""",
        "bill",
    )
    do(conn, "insert into bill (net) select 100 * i from generate_series(1, 3) as i")
    before = images(conn, "bill")
    run_id = done(
        conn,
        "insert into bill (net) values (1)",
        "update bill set net = 555, number = 99 where id = 1",
        "delete from bill where id = 2",
    )
    assert [(op, (after or before)["vat"]) for op, before, after in changes(conn, run_id)] == [
        ("INSERT", 0),
        ("UPDATE", 111),
        ("DELETE", 40),
    ]
    assert reverse(conn, run_id) == {"restored": 3}
    assert images(conn, "bill") == before


def test_virtual_generated_columns_are_left_out(conn: psycopg.Connection) -> None:
    if conn.info.server_version < 180000:
        pytest.skip("virtual columns came with PostgreSQL 18")
    make(conn, "create table v (id integer primary key, net bigint, vat bigint generated always as (net / 5))", "v")
    do(conn, "insert into v values (1, 100)")
    before = images(conn, "v")
    run_id = done(conn, "update v set net = 200", "insert into v values (2, 5)")
    assert reverse(conn, run_id) == {"restored": 2}
    assert images(conn, "v") == before


def test_sixty_columns(conn: psycopg.Connection) -> None:
    columns = ", ".join(f"column_{i} numeric(14,2)" for i in range(60))
    make(conn, f"create table wide (id integer primary key, {columns})", "wide")
    do(conn, f"insert into wide select i{', i' * 60} from generate_series(1, 1500) as i")
    before = images(conn, "wide")
    run_id = done(conn, "update wide set column_59 = 0 where id > 3", "delete from wide where id <= 3")
    assert reverse(conn, run_id) == {"restored": 1500}
    assert images(conn, "wide") == before


def test_too_many_columns_are_refused_by_name(conn: psycopg.Connection) -> None:
    do(conn, f"create table vast (id integer primary key, {', '.join(f'c{i} boolean' for i in range(800))})")
    with pytest.raises(psycopg.Error, match=r"public\.vast cannot be tracked: .*columns") as caught:
        do(conn, "select backfill.track('vast')")
    assert caught.value.sqlstate == "BF002"
