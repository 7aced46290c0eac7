"""Whose rights: escalations as the role that tries them, and a set-up with separate owners through every verb."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql as sql_
from psycopg.conninfo import make_conninfo

from tests.story import SAMPLE, SAMPLE_CHARGES, config, run, sql


@pytest.fixture
def roles(empty_database_url: str) -> Iterator[dict[str, str]]:
    """Connections of a superuser, an owner of tables, an operator and a stranger; none of the last three is more."""
    names = {name: f"{name}_{uuid4().hex[:8]}" for name in ("shop", "op", "mallory")}
    with psycopg.connect(empty_database_url, autocommit=True) as conn:
        for name in names.values():
            conn.execute(sql_.SQL("create role {} login").format(sql_.Identifier(name)))
        yield {
            "super": empty_database_url,
            **{name: make_conninfo(empty_database_url, user=role) for name, role in names.items()},
            **{f"{name}_role": role for name, role in names.items()},
        }
        for name in names.values():
            conn.execute(sql_.SQL("drop owned by {0} cascade; drop role {0}").format(sql_.Identifier(name)))


@pytest.fixture
def of_shop(roles: dict[str, str]) -> dict[str, str]:
    """The application of the charges' sample, owned by the shop."""
    shop = roles["shop_role"]
    sql(
        roles["super"],
        SAMPLE.read_text(encoding="utf-8"),
        f"alter schema property owner to {shop}",
        *[f"alter table property.{table} owner to {shop}" for table in ("units", "payments", "charges")],
    )
    return roles


def supers(url: str) -> list[tuple[object, ...]]:
    return sql(url, "select rolname from pg_roles where rolsuper order by 1")


EVIL = """
    create function public.evil() returns trigger language plpgsql as $$ begin
        execute format('alter role %I superuser', '{role}'); return new;
        exception when others then return new; end $$;
    create trigger evil before insert on property.charges for each row execute function public.evil();
"""


def test_code_of_an_owner_whom_nobody_trusts_never_runs(of_shop: dict[str, str], tmp_path: Path) -> None:
    """A superuser's dry run is refused before the first write, and says what has to come first."""
    sql(of_shop["super"], f"grant create on schema public to {of_shop['shop_role']}")
    sql(of_shop["shop"], EVIL.format(role=of_shop["shop_role"]))
    before = supers(of_shop["super"])
    for verb in ("--dry-run", "--yes"):
        refused = run(of_shop["super"], "apply", verb, *config(tmp_path, systems=["charges"]), code=1)
        assert f"property.units: {of_shop['shop_role']} owns it" in refused.text
        assert "First commit the engine alone: systems = [] in runner.toml, and runner apply" in refused.text
        assert f"insert into backfill.trusted_owner (owner) values ('{of_shop['shop_role']}');" in refused.text
    assert supers(of_shop["super"]) == before
    assert sql(of_shop["super"], "select to_regnamespace('backfill') is null") == [(True,)]


def test_separate_owners_go_through_every_verb(of_shop: dict[str, str], tmp_path: Path) -> None:
    """The engine alone, the insert that the refusal prints, the rest; his trigger gets no superuser's rights."""
    shop, super_ = of_shop["shop_role"], of_shop["super"]
    sql(super_, f"grant create on schema public to {shop}")
    sql(of_shop["shop"], EVIL.format(role=shop))
    before = supers(super_)
    run(super_, "apply", "--yes", *config(tmp_path, systems=[]))
    charges = config(tmp_path, systems=["charges"])
    refused = run(super_, "apply", "--dry-run", *charges, code=1)
    assert (
        f"as backfill_owner or a superuser: insert into backfill.trusted_owner (owner) values ('{shop}');"
        in refused.text
    )
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        sql(of_shop["shop"], f"insert into backfill.trusted_owner (owner) values ('{shop}')")
    sql(super_, f"insert into backfill.trusted_owner (owner) values ('{shop}')")
    run(super_, "apply", "--dry-run", *charges)
    run(super_, "apply", "--yes", *charges)
    sql(super_, f"grant backfill_operator to {of_shop['op_role']}")
    op = of_shop["op"]
    assert "Nothing is due" in run(op, "apply", "--yes", *charges).text
    assert "fail" not in run(op, "doctor", *charges).out
    run(op, "status", *charges)
    [(run_id,)] = sql(op, "select run_id::text from backfill.backfill_log where backfill = 'charges'")
    run(op, "log", run_id, *charges)
    run(op, "rollback", run_id, "--dry-run", *charges)
    run(op, "rollback", run_id, "--yes", *charges)
    assert sql(op, "select due_rows from backfill.due()") == [(SAMPLE_CHARGES,)]
    run(op, "apply", "--yes", *charges)
    run(op, "gates", *charges)
    assert supers(super_) == before
    # Trust taken back counts at once, for the undo as well; and it is doctor who says so first.
    sql(super_, "delete from backfill.trusted_owner")
    assert "trusted_owner" in run(super_, "doctor", *charges, code=1).text
    succeeded = "select run_id::text from backfill.backfill_log where status = 'succeeded' and mode = 'apply'"
    [(run_id,)] = sql(super_, succeeded)
    for arguments in (["apply", "--dry-run"], ["rollback", run_id, "--yes"], ["rollback", run_id, "--dry-run"]):
        assert "code of roles that nobody has trusted" in run(super_, *arguments, *charges, code=1).text
    assert supers(super_) == before


def test_all_of_ours_belongs_to_an_owner_without_login(database_url: str) -> None:
    mine = """
        create view backfill.mine_due as select 1 as id, 1::bigint as cents;
        create table backfill.mine (id integer);
        create function backfill.mine(p jsonb) returns jsonb language sql as 'select p'"""
    sql(database_url, mine)  # as an own migration would make it in our schemas
    assert sql(database_url, "select backfill.hand_over() > 0", "select backfill.hand_over()") == [(0,)]
    assert sql(database_url, "select rolcanlogin, rolsuper from pg_roles where rolname = 'backfill_owner'") == [
        (False, False)
    ]
    schemas = "('backfill', 'backfill_audit', 'staging', 'property', 'billing', 'rent', 'lending', 'ledger')"
    owners = f"""
        select distinct r.rolname::text from (
            select nspowner, oid from pg_namespace
            union all select relowner, relnamespace from pg_class
            union all select proowner, pronamespace from pg_proc
            union all select typowner, typnamespace from pg_type) as o (owner, namespace)
        join pg_roles as r on r.oid = o.owner join pg_namespace as n on n.oid = o.namespace
        where n.nspname in {schemas}"""
    assert sql(database_url, owners) == [("backfill_owner",)]
    assert sql(database_url, "select p.oid::regprocedure from pg_proc as p join pg_roles as r on r.oid = p.proowner"
                             " where p.prosecdef and r.rolsuper and p.oid >= 16384") == []  # fmt: skip


def test_a_change_of_owner_after_track_counts_at_the_next_run(database_url: str) -> None:
    name = f"shop_{uuid4().hex[:8]}"
    sql(database_url, "create table thing (id integer primary key)", "select backfill.track('thing')",
        f"create role {name} login in role backfill_operator", f"alter table thing owner to {name}")  # fmt: skip
    try:
        for url in (database_url, make_conninfo(database_url, user=name)):
            with pytest.raises(psycopg.Error, match=f"public.thing: {name} owns it") as refused:
                sql(url, "select backfill.begin_run('harmless')")
            assert refused.value.sqlstate == "BF014"
    finally:
        sql(database_url, f"alter table thing owner to postgres; drop role {name}")


MADE = "create function f{0} returns {1} language sql immutable as 'select {2}'; alter function f{3} owner to other; "
TRIGGER = """create function f() returns trigger language plpgsql as 'begin return new; end';
    alter function f() owner to other; """
TRUE, ONE = (
    MADE.format("(integer)", "boolean", "true", "(integer)"),
    MADE.format("(integer)", "integer", "1", "(integer)"),
)

PAIR, BY = "integer,integer)", ", which it calls"
OPERATOR = MADE.format("(integer, integer)", "boolean", "true", "(integer, integer)") + (
    "create operator === (leftarg = integer, rightarg = integer, function = f); "
)

OTHER = "create role other; grant create on schema public to other; create table thing (id integer primary key)"

FOREIGN = {
    "trigger": (
        TRIGGER + "create trigger f before insert on thing for each row execute function f()",
        "owns function public.f() of its trigger f",
    ),
    "check": (TRUE + "alter table thing add check (f(id))", "owns function public.f(integer), which it calls"),
    "default": (
        MADE.format("()", "integer", "1", "()")
        + "alter table thing add column n integer; alter table thing alter column n set default f()",
        "owns function public.f(), which it calls",
    ),
    "generated column": (
        ONE + "alter table thing add column n integer generated always as (f(id)) stored",
        "owns function public.f(integer), which it calls",
    ),
    "index": (ONE + "create index on thing (f(id))", "owns function public.f(integer), which it calls"),
    "check of a domain": (
        MADE.format("(text)", "boolean", "true", "(text)")
        + "create domain d as text check (f(value)); alter table thing add column t d",
        "owns function public.f(text), which it calls",
    ),
    "enum": (
        "create type e as enum ('a'); alter type e owner to other; alter table thing add column t e",
        "owns type public.e of its column t",
    ),
    "policy": (
        MADE.format("()", "boolean", "true", "()") + "create policy p on thing using (f())",
        "owns function public.f(), which it calls",
    ),
    "condition of a trigger": (
        TRUE + "create function own() returns trigger language plpgsql as 'begin return new; end'; "
        "create trigger t before insert on thing for each row when (f(new.id)) execute function own()",
        "owns function public.f(integer) of its trigger t",
    ),
    "operator of a check": (OPERATOR + "alter table thing add check (id === 1)", "owns function public.f(" + PAIR + BY),
    "operator of a generated column": (
        OPERATOR + "alter table thing add column n boolean generated always as (id === 1) stored",
        "owns function public.f(" + PAIR + BY,
    ),
    "operator of a policy": (
        OPERATOR + "create policy p on thing using (id === 1)",
        "owns function public.f(" + PAIR + BY,
    ),
    "operator of a domain": (
        OPERATOR + "create domain d as integer check (value === 1); alter table thing add column t d",
        "owns function public.f(" + PAIR + BY,
    ),
    "domain in an array of composites": (
        TRUE + "create domain d as integer check (f(value)); create type inner_ as (a integer, b d); "
        "create type outer_ as (a inner_[]); alter table thing add column t outer_[]",
        "owns function public.f(integer), which it calls",
    ),
    "owner of a domain in a composite": (
        """create domain e as integer; alter domain e owner to other;
        create type c as (x e); alter table thing add column t c""",
        "owns type public.e, which it calls",
    ),
    "difference of a range": (
        MADE.format("(date, date)", "double precision", "1", "(date, date)")
        + "create type r as range (subtype = date, subtype_diff = f); alter table thing add column t r",
        "owns function public.f(date,date), which it calls",
    ),
    "multirange": (
        MADE.format("(date, date)", "double precision", "1", "(date, date)")
        + "create type r as range (subtype = date, subtype_diff = f, multirange_type_name = m); "
        "alter table thing add column t m",
        "owns function public.f(date,date), which it calls",
    ),
    "operator class of an index": (
        MADE.format("(integer, integer)", "integer", "0", "(integer, integer)")
        + "create operator class c for type integer using btree as operator 1 <, operator 2 <=, operator 3 =, "
        "operator 4 >=, operator 5 >, function 1 f(integer, integer); create index on thing (id c)",
        "owns function public.f(integer,integer), which it calls",
    ),
    "view that a policy reads": (
        MADE.format("()", "boolean", "true", "()")
        + "create view v as select f() as yes; create policy p on thing using ((select yes from v))",
        "owns function public.f(), which it calls",
    ),
    "aggregate that a policy reads": (
        MADE.format("(integer, integer)", "integer", "0", "(integer, integer)")
        + "create aggregate a (integer) (sfunc = f, stype = integer, initcond = 0); "
        "create policy p on thing using ((select a(1)) = 0)",
        "owns function public.f(integer,integer), which it calls",
    ),
}


@pytest.mark.parametrize("case", FOREIGN)
def test_functions_and_types_of_others_count_as_their_code(conn: psycopg.Connection, case: str) -> None:
    ddl, said = FOREIGN[case]
    conn.execute(
        "create role other; grant create on schema public to other; create table thing (id integer primary key)"
    )
    conn.execute(ddl.encode())
    with pytest.raises(psycopg.Error, match="nobody has trusted") as refused:
        conn.execute("select backfill.track('thing')")
    assert refused.value.sqlstate == "BF014"
    assert f"other {said}".replace("function f", "function public.f").replace("type e", "type public.e") in str(
        refused.value
    )
    conn.rollback()
    conn.execute(
        "create role other; grant create on schema public to other; create table thing (id integer primary key)"
    )
    conn.execute(ddl.encode())
    conn.execute("insert into backfill.trusted_owner (owner) values ('other')")
    conn.execute("select backfill.track('thing')")


def test_a_trusted_owner_tracks_his_own_tables_and_no_others(roles: dict[str, str], database_url: str) -> None:
    shop = roles["shop_role"]
    mine = make_conninfo(database_url, user=shop)
    sql(database_url, f"create schema shop authorization {shop}", "create table public.theirs (id integer primary key)",
        f"insert into backfill.trusted_owner (owner) values ('{shop}')",
        f"grant backfill_operator to {shop}")  # fmt: skip
    try:
        sql(mine, "create table shop.thing (id integer primary key, note text)")
        sql(mine, "select backfill.track('shop.thing')")
        with psycopg.connect(mine) as conn:
            conn.execute("select backfill.begin_run('mine')")
            conn.execute("insert into shop.thing values (1, 'a')")
            conn.execute("select backfill.finish_run()")
        sql(
            mine,
            "select * from backfill.reverse_run((select run_id from backfill.backfill_log where backfill = 'mine'))",
        )
        assert sql(mine, "select count(*) from shop.thing") == [(0,)]
        for call in ("backfill.track('public.theirs')", "backfill.untrack('property.charges')"):
            with pytest.raises(psycopg.Error, match="does not own table") as refused:
                sql(mine, f"select {call}")
            assert refused.value.sqlstate == "BF014"
        # A column more: the next run of somebody who owns nothing takes it over, and needs no right on the table.
        sql(mine, "alter table shop.thing add column more integer")
        sql(database_url, "begin; select backfill.begin_run('later'); insert into shop.thing values (2, 'b', 3);"
                          " select backfill.finish_run(); commit")  # fmt: skip
        sql(mine, "select backfill.untrack('shop.thing')")
    finally:
        sql(database_url, f"drop owned by {shop} cascade")


def test_a_database_owner_without_superuser_owns_all_of_it(empty_database_url: str, tmp_path: Path) -> None:
    """No other role is made for it, and the tables of the application that it owns need no word."""
    name = f"migrator_{uuid4().hex[:8]}"
    [(database,)] = sql(empty_database_url, "select current_database()")
    sql(empty_database_url, f"create role {name} login createrole", f"alter database {database} owner to {name}",
        f"grant backfill_operator, backfill_auditor to {name} with admin option"
        if sql(empty_database_url, "select exists (select from pg_roles where rolname = 'backfill_operator')")[0][0]
        else "select 1")  # fmt: skip
    url = make_conninfo(empty_database_url, user=name)
    try:
        sql(url, SAMPLE.read_text(encoding="utf-8"))
        charges = config(tmp_path, systems=["charges"])
        run(url, "apply", "--dry-run", *charges)
        run(url, "apply", "--yes", *charges)
        assert sql(url, "select backfill.engine_owner()") == [(name,)]
        [(run_id,)] = sql(url, "select run_id::text from backfill.backfill_log where backfill = 'charges'")
        run(url, "rollback", run_id, "--yes", *charges)
        assert "fail" not in run(url, "doctor", *charges).out
    finally:
        sql(empty_database_url, f"reassign owned by {name} to postgres", f"drop owned by {name}", f"drop role {name}")


def test_a_temporary_table_does_not_take_the_place_of_the_applications(
    roles: dict[str, str], database_url: str
) -> None:
    """The second escalation: a trigger that names a table without its schema, and a run that is undone by mallory."""
    name = roles["mallory_role"]
    mallory = make_conninfo(database_url, user=name)
    sql(database_url, """
        create table account (id integer primary key, cents bigint); insert into account values (1, 0);
        create table pay (id integer primary key, account_id integer, cents bigint);
        create function f() returns trigger language plpgsql as $$ begin update account
            set cents = cents + coalesce(new.cents, -old.cents) where id = coalesce(new.account_id, old.account_id);
            return null; end $$;
        create trigger f after insert or delete on pay for each row execute function f()""",
        "select backfill.track('pay')", f"grant backfill_operator to {name}",
        "begin; select backfill.begin_run('a correction'); insert into pay values (1, 1, 50);"
        " select backfill.finish_run(); commit")  # fmt: skip
    before = supers(database_url)
    with psycopg.connect(mallory) as conn:
        conn.execute("create temp table account (id integer, cents bigint)")
        conn.execute("insert into account values (1, 0)")
        conn.execute("""create function pg_temp.evil() returns trigger language plpgsql as
            $$ begin execute 'alter role mallory superuser'; return null; end $$""")
        conn.execute("create trigger evil after update on account for each statement execute function pg_temp.evil()")
        conn.execute("select * from backfill.reverse_run((select run_id from backfill.backfill_log"
                     " where backfill = 'a correction'))")  # fmt: skip
    assert sql(database_url, "select cents from account") == [(0,)]  # the application's: its trigger put it back
    assert supers(database_url) == before


def test_what_somebody_deferred_elsewhere_never_fires_with_the_engines_rights(
    roles: dict[str, str], database_url: str
) -> None:
    """Before PostgreSQL 18 it runs as whoever fires it: the engine's functions fire what is of tracked tables."""
    name = roles["mallory_role"]
    mallory = make_conninfo(database_url, user=name)
    sql(database_url, f"create schema lair authorization {name}; grant backfill_operator to {name}",
        "create table thing (id integer primary key)", "select backfill.track('thing')",
        "begin; select backfill.begin_run('a correction'); insert into thing values (1);"
        " select backfill.finish_run(); commit")  # fmt: skip
    run_id = "(select run_id from backfill.backfill_log where backfill = 'a correction')"
    try:
        sql(
            mallory,
            """
            create table lair.bait (id integer); create table lair.seen (who name);
            create function lair.evil() returns trigger language plpgsql as
                $$ begin insert into lair.seen values (current_user); return null; end $$;
            grant all on lair.seen to public; grant usage on schema lair to public;
            create constraint trigger evil after insert on lair.bait deferrable initially deferred
                for each row execute function lair.evil()""",
        )
        calls = [
            f"select * from backfill.undo_run({run_id}, null)",
            f"select * from backfill.reverse_run({run_id})",
            f"select * from backfill.reverse_since({run_id})",
            f"select * from backfill.prove_undo({run_id})",
            "select backfill.run_in_catalog('charges', '{}', 0, null)",
            "select backfill.run('charges')",
            "select backfill.begin_run('x'); select backfill.close_own_run('{}', '[]', null, true)",
            "select backfill.begin_run('x'); select backfill.finish_run()",
        ]
        for call in calls:
            for first in ("insert into lair.bait values (1); {}", "select 1; {}; insert into lair.bait values (1)"):
                with psycopg.connect(mallory) as conn:
                    conn.execute(first.format(call).encode())
                    conn.execute("set constraints all immediate")
                    assert conn.execute("select distinct who from lair.seen").fetchall() == [(name,)], call
                    conn.rollback()
    finally:
        sql(database_url, "drop schema lair cascade")


def test_a_hidden_row_is_an_error_and_not_a_row_less(empty_database_url: str, tmp_path: Path) -> None:
    """Row security is off where totals are counted and rows undone, whatever the session says."""
    run(empty_database_url, "apply", "--yes", *config(tmp_path, systems=[]))
    sql(empty_database_url, "create table thing (id integer primary key)", "select backfill.track('thing')",
        "alter table thing enable row level security", "alter role backfill_owner nobypassrls")  # fmt: skip
    try:
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="row-level security policy"):
            sql(empty_database_url, "select * from backfill.control_totals()")
    finally:
        sql(empty_database_url, "alter role backfill_owner bypassrls")
