"""The helpers that migrations of every system call: unique indexes, tables that only grow, kept grants, positions."""

from __future__ import annotations

import psycopg
import pytest

from tests.engine.words import do, rows, value

CHARGES = """
    create table public.charges (tenant text, unit integer, period text, type text);
    create table public.mortgages (number text primary key, schedule bigint);
    create table public.invoices (company text not null, number text not null, note text);
"""


def refusal(conn: psycopg.Connection, call: str) -> tuple[str | None, str | None, list[str], str | None]:
    """SQLSTATE, message, lines of the detail and hint of a call that is refused."""
    with pytest.raises(psycopg.Error) as caught, conn.transaction():
        do(conn, call)
    told = caught.value.diag
    return caught.value.sqlstate, told.message_primary, (told.message_detail or "").splitlines(), told.message_hint


def index(conn: psycopg.Connection, name: str) -> str | None:
    """How PostgreSQL shows the index; None where there is none."""
    found: str | None = value(conn, "select pg_get_indexdef(to_regclass(%s))", [name])
    return found


def test_duplicates_are_named_in_the_words_of_the_caller(conn: psycopg.Connection) -> None:
    do(
        conn,
        CHARGES,
        """insert into charges select 't' || lpad(g::text, 2, '0'), 7, '2024-01', 'rent'
            from generate_series(1, 12) as g, generate_series(1, 3)""",
    )
    call = """select backfill.create_unique_index('charges_one_rent', 'public.charges', '{tenant,unit,period}',
        p_where => 'type = ''rent''', p_found => 'count(*) || '' rent charges''',
        p_message => 'public.charges has more than one rent charge for %s tenants, units and periods')"""
    state, message, listed, hint = refusal(conn, call)
    assert (state, message) == (
        "BF007",
        "public.charges has more than one rent charge for 12 tenants, units and periods",
    )
    assert listed == [f"t{n:02} / 7 / 2024-01: 3 rent charges" for n in range(1, 11)]
    assert hint == "Decide which row stands, remove the others, and apply again."
    assert index(conn, "public.charges_one_rent") is None
    do(conn, "update charges set type = 'fee'", call)
    shown = index(conn, "public.charges_one_rent")
    assert shown is not None
    assert "UNIQUE" in shown
    assert shown.endswith("(tenant, unit, period) WHERE (type = 'rent'::text)")


def test_what_is_found_may_name_the_rows_themselves(conn: psycopg.Connection) -> None:
    do(conn, CHARGES, "insert into mortgages values ('M-2', 5), ('M-1', 5), ('M-3', 6), ('M-4', null), ('M-5', null)")
    assert refusal(
        conn,
        """select backfill.create_unique_index('one', 'public.mortgages', '{schedule}', p_hint => 'Mend it.',
            p_found => $$'mortgages ' || string_agg(number, ', ' order by number)$$)""",
    ) == ("BF007", "public.mortgages holds 1 keys (schedule) more than once", ["5: mortgages M-1, M-2"], "Mend it.")


def test_where_a_column_is_null_there_is_no_duplicate(conn: psycopg.Connection) -> None:
    do(
        conn,
        CHARGES,
        "insert into charges values ('t', null, '2024-01', 'rent'), ('t', null, '2024-01', 'rent')",
        "select backfill.create_unique_index('one', 'public.charges', '{tenant,unit,period}')",
    )
    assert index(conn, "public.one") is not None


@pytest.mark.parametrize(
    ("there", "will_do"),
    [
        ("alter table invoices add unique (number, company)", True),
        ("create unique index on invoices (company, number)", True),
        ("create unique index on invoices (company) include (number)", False),
        ("create unique index on invoices (company, number, note)", False),
        ("create unique index on invoices (company, lower(number))", False),
        ("create unique index on invoices (company, number) where note is null", False),
        ("create index on invoices (company, number)", False),
    ],
)
def test_another_unique_index_on_these_columns_will_do(conn: psycopg.Connection, there: str, will_do: bool) -> None:
    call = "select backfill.create_unique_index('one', 'public.invoices', '{company,number}', p_unless_there => true)"
    do(conn, CHARGES, there, call)
    assert (index(conn, "public.one") is None) == will_do


def test_a_table_that_only_grows(conn: psycopg.Connection) -> None:
    do(
        conn,
        "create table kept (id integer)",
        "insert into kept values (1)",
        "select backfill.append_only('kept')",
        "select backfill.append_only('kept')",
        "insert into kept values (2)",
    )
    for statement in ("update kept set id = 3", "delete from kept", "truncate kept"):
        assert refusal(conn, statement)[0] == "BF008"
    assert value(conn, "select array_agg(id order by id) from kept") == [1, 2]


ROLE = "backfill_helpers_test"


@pytest.fixture
def granted(conn: psycopg.Connection) -> psycopg.Connection:
    """A schema of a table and two functions, and a role that is not committed."""
    do(
        conn,
        f"create role {ROLE}",
        "create schema app",
        "create table app.one (id integer, name text)",
        "create function app.f(integer, text) returns integer language sql return 1",
        "create function app.g() returns integer language sql return 1",
        "revoke execute on all functions in schema app from public",
    )
    return conn


def kept(conn: psycopg.Connection) -> list[str]:
    """What is kept for the role."""
    query = 'select privileges from backfill.privilege where role = %s order by privileges collate "C"'
    return [row[0] for row in rows(conn, query, [ROLE])]


def grant(conn: psycopg.Connection, privileges: str, role: str = ROLE) -> None:
    conn.execute("select backfill.grant_to(%s, %s)", [role, privileges])


def test_a_grant_is_kept_one_object_a_row(granted: psycopg.Connection) -> None:
    do(granted, "create table app.two (id integer)")
    for _ in range(2):
        grant(granted, "usage on schema app")
        grant(granted, "select, insert (id) on app.one, app.two")
        grant(granted, "execute on function app.f(integer, text), app.g()")
    assert kept(granted) == [
        "execute on function app.f(integer, text)",
        "execute on function app.g()",
        "select, insert (id) on app.one",
        "select, insert (id) on app.two",
        "usage on schema app",
    ]
    assert value(granted, f"select has_function_privilege('{ROLE}', 'app.f(integer, text)', 'execute')")
    assert value(granted, f"select has_column_privilege('{ROLE}', 'app.two', 'id', 'insert')")


def test_all_in_a_schema_is_what_was_there(granted: psycopg.Connection) -> None:
    grant(granted, "select on all tables in schema app")
    grant(granted, "execute on all functions in schema app")
    do(granted, "create table app.later (id integer)", "create function app.h() returns integer language sql return 1")
    do(granted, "revoke execute on function app.h() from public", "select backfill.regrant()")
    assert kept(granted) == [
        "execute on function app.f(integer,text)",
        "execute on function app.g()",
        "select on app.one",
    ]
    assert not value(granted, f"select has_table_privilege('{ROLE}', 'app.later', 'select')")
    assert not value(granted, f"select has_function_privilege('{ROLE}', 'app.h()', 'execute')")


def test_a_role_that_comes_later_is_granted_what_was_kept(granted: psycopg.Connection) -> None:
    notices: list[str | None] = []
    granted.add_notice_handler(lambda told: notices.append(told.message_primary))
    for role in ("backfill_late_test", "backfill_never_test"):
        grant(granted, "select on app.one", role)
        grant(granted, "execute on function app.g()", role)
    waiting = "select count(*) from backfill.privilege where role = 'backfill_late_test' and granted_at is null"
    assert value(granted, waiting) == 2
    do(granted, "create role backfill_late_test")
    before = value(granted, "select count(*) from backfill.privilege")
    assert value(granted, "select backfill.regrant()") == before - 2
    assert value(granted, waiting) == 0
    assert value(granted, "select has_table_privilege('backfill_late_test', 'app.one', 'select')")
    assert notices == ["role backfill_never_test is not there: 2 privileges wait for it"]


def test_what_is_gone_is_forgotten_and_stops_nobody(granted: psycopg.Connection) -> None:
    do(granted, "create schema gone", "create table gone.t (id integer)", "create type app.kind as (id integer)")
    do(granted, "create function app.of_kind(app.kind) returns integer language sql return 1")
    grant(granted, "usage on schema gone")
    grant(granted, "select on gone.t, app.one")
    grant(granted, "update (name) on app.one")
    grant(granted, "execute on function app.f(integer, text), app.of_kind(app.kind)")
    do(granted, "drop schema gone cascade", "drop function app.f(integer, text)", "drop type app.kind cascade")
    do(granted, "alter table app.one drop column name")
    told: list[str | None] = []
    granted.add_notice_handler(lambda notice: told.append(notice.message_primary))
    do(granted, "select backfill.regrant()")
    assert kept(granted) == ["select on app.one"]
    assert len([line for line in told if line and "kept no longer" in line]) == 5


def test_a_privilege_that_is_taken_back_is_kept_no_longer(granted: psycopg.Connection) -> None:
    grant(granted, "select on all tables in schema app")
    grant(granted, "usage on schema app")
    grant(granted, "execute on function app.f(integer, text), app.g()")
    do(granted, "drop function app.f(integer, text)")
    for privileges in (
        "select on app.one",
        "usage on schema app",
        "execute on function app.f(integer, text), app.g()",
        "select on app.never",
    ):
        granted.execute("select backfill.revoke_from(%s, %s)", [ROLE, privileges])
    granted.execute("select backfill.revoke_from('backfill_never_test', 'usage on schema app')")
    assert kept(granted) == []
    assert not value(granted, f"select has_schema_privilege('{ROLE}', 'app', 'usage')")
    assert not value(granted, f"select has_table_privilege('{ROLE}', 'app.one', 'select')")


def test_what_auditors_may_see_of_a_pack_goes_with_it(conn: psycopg.Connection) -> None:
    packs = "select count(*) from backfill.privilege where privileges = 'select on backfill_audit.public_mine'"
    do(conn, "create table mine (id integer primary key)", "select backfill.track('mine')")
    assert value(conn, packs) == 1
    do(conn, "select backfill.untrack('mine')")
    assert value(conn, packs) == 0


@pytest.mark.parametrize("role", ["backfill_operator", "backfill_auditor"])
def test_only_the_owner_grants(conn: psycopg.Connection, role: str) -> None:
    do(conn, f"set role {role}")
    for call in ("regrant()", "grant_to('x', 'select on y')", "revoke_from('x', 'select on y')"):
        assert refusal(conn, f"select backfill.{call}")[0] == "42501"
    assert refusal(conn, "insert into backfill.privilege values ('x', 'all on y', null)")[0] == "42501"


def register(name: str, position: int) -> str:
    return f"""select backfill.register('{name}', 'test', 'd', {position}, 'public.due', 'public.fill',
        '{{public.target}}')"""


def test_a_position_that_is_taken_is_refused_with_its_holder(conn: psycopg.Connection) -> None:
    do(
        conn,
        "create table target (id integer primary key, cents bigint)",
        "create view due as select 1 as id, 1::bigint as cents where false",
        "create function fill(jsonb) returns jsonb language sql return '{}'::jsonb",
        "create function checked() returns table (passed boolean, finding text, way_out text)"
        " language sql return (true, null, null)",
        "select backfill.track('target', '{id}', 'cents')",
    )
    do(conn, register("first", 1000), register("first", 1000))
    state, message, _, hint = refusal(conn, register("second", 1000))
    assert (state, message) == (
        "BF009",
        "backfill second (test) cannot be registered: position 1000 is that of first (test)",
    )
    assert hint is not None
    assert "own ones begin at 1000" in hint
    do(conn, register("second", 1001), register("first", 1002), register("second", 1000))

    assert refusal(conn, "select backfill.register_check('mine', 'test', 410, 'public.checked')")[:2] == (
        "BF009",
        "check mine (test) cannot be registered: position 410 is that of constraints (reconciliation)",
    )
    do(conn, "select backfill.register_check('mine', 'test', 1000, 'public.checked')")
