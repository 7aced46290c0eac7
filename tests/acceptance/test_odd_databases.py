"""Databases and roles that are set up otherwise than ours: each works, or is refused in words."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql as names
from psycopg.conninfo import make_conninfo

from runner import embedded, history
from tests.story import SAMPLE_CHARGES, adopt, charges, config, last_run, run, sql


@contextmanager
def database(server: embedded.Server, encoding: str) -> Iterator[str]:
    """A database of its own in another encoding."""
    name = f"odd_{uuid4().hex[:8]}"
    with psycopg.connect(server.url(), autocommit=True) as conn:
        made = names.SQL("create database {} encoding {} template template0 lc_collate 'C' lc_ctype 'C'")
        conn.execute(made.format(names.Identifier(name), names.Literal(encoding)))
        try:
            yield server.url(name)
        finally:
            conn.execute(names.SQL("drop database {} with (force)").format(names.Identifier(name)))


@contextmanager
def role(url: str, *settings: str, attributes: str = "superuser") -> Iterator[str]:
    """The connection of a role with settings of its own."""
    name = f"odd_{uuid4().hex[:8]}"
    sql(url, f"create role {name} login {attributes}", *(f"alter role {name} set {setting}" for setting in settings))
    try:
        yield make_conninfo(url, user=name)
    finally:
        sql(url, f"reassign owned by {name} to postgres", f"drop owned by {name}", f"drop role {name}")


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
def test_another_encoding_is_applied_to_and_undone(server: embedded.Server, encoding: str, tmp_path: Path) -> None:
    with database(server, encoding) as url:
        adopt(make_conninfo(url, client_encoding="UTF8"))
        options = config(tmp_path, systems=["charges"])
        sql(make_conninfo(url, client_encoding="UTF8"), "update property.payments set tenant_user_id = tenant_user_id")
        done = run(url, "apply", "--yes", *options)
        assert "Applied and committed" in done.out
        assert sql(url, "select count(*) from property.charges where created_by is null") == [(SAMPLE_CHARGES,)]
        utf8 = make_conninfo(url, client_encoding="UTF8")
        found = {item["subject"]: item for item in run(url, "doctor", "--json", *options, code=None).json["findings"]}
        assert encoding in found["encoding"]["message"]
        run(url, "log", last_run(utf8), "--all", *options)
        run(url, "rollback", last_run(utf8), "--yes", *options)
        assert sql(url, "select count(*) from property.charges where created_by is null") == [(0,)]


def test_what_an_encoding_cannot_write_is_refused_by_name(server: embedded.Server, tmp_path: Path) -> None:
    with database(server, "LATIN1") as url:
        adopt(url)
        own = tmp_path / "migrations"
        own.mkdir()
        (own / "1000_property_names.sql").write_text("-- depends: 0001_backfill_schema\nselect 'Łukasz';\n")
        done = run(url, "apply", "--yes", *config(tmp_path, systems=["charges"]), code=1)
        assert "1000_property_names" in done.err
        assert "LATIN1" in done.err


def test_settings_of_the_role_change_no_answer(empty_database_url: str, tmp_path: Path) -> None:
    """German dates, another interval style, quoted identifiers, a short statement_timeout, another role."""
    url = adopt(empty_database_url)
    options = config(tmp_path, systems=["charges"])
    settings = (
        "datestyle = 'German, DMY'", "intervalstyle = 'sql_standard'", "quote_all_identifiers = on",
        "statement_timeout = '20s'", "transform_null_equals = on", "bytea_output = 'escape'",
        "extra_float_digits = 0", "client_encoding = 'LATIN1'",
        "standard_conforming_strings = off", "default_transaction_isolation = 'serializable'",
    )  # fmt: skip
    with role(url, *settings) as odd:
        rehearsed = run(odd, "apply", "--dry-run", "--json", *options).json
        run(odd, "apply", "--yes", *options)
        assert len(charges(url)) == SAMPLE_CHARGES
        plain = run(url, "log", last_run(url), "--json", *options).json
        assert plain["run"]["digest"] == rehearsed["attempt"]["backfills"][0]["digest"]
        assert run(odd, "log", last_run(url), "--json", *options).json == plain
        for words in (("status",), ("log",), ("doctor",), ("gates",)):
            run(odd, *words, *options, code=None)
        run(odd, "rollback", last_run(url), "--yes", *options)
        assert charges(url) == []


def test_a_role_that_becomes_another_is_that_one(empty_database_url: str, tmp_path: Path) -> None:
    url = adopt(empty_database_url)
    options = config(tmp_path, systems=["charges"])
    with role(url, "role = 'postgres'") as odd:
        run(odd, "apply", "--yes", *options)
        run(odd, "rollback", last_run(url), "--yes", *options)
    assert charges(url) == []


def test_a_role_that_reads_only_is_told_so(database_url: str) -> None:
    url = adopt(database_url)
    with role(url, "default_transaction_read_only = on") as odd:
        done = run(odd, "apply", "charges", "--yes", code=1)
        assert "read-only here" in done.err
        assert "default_transaction_read_only" in done.err
        for words in (("status",), ("log",)):
            run(odd, *words)
        found = {item["subject"]: item for item in run(odd, "doctor", "--json", code=1).json["findings"]}
        assert "default_transaction_read_only is on" in found["primary"]["message"]


SHADOWS = """
    create schema evil;
    create table evil.called (what text);
    create function evil.hashtextextended(text, integer) returns bigint language sql as $$
        insert into evil.called values ('hashtextextended'); select 1::bigint $$;
    create function evil.pg_try_advisory_xact_lock(bigint) returns boolean language sql as $$
        insert into evil.called values ('lock'); select true $$;
    create function evil.set_config(text, text, boolean) returns text language sql as $$
        insert into evil.called values ('set_config'); select '' $$;
    create function evil.to_regclass(text) returns regclass language sql as $$
        insert into evil.called values ('to_regclass'); select null::regclass $$;
    create function evil.count(text) returns bigint language sql as $$ select 7::bigint $$;
    create function evil.now() returns timestamptz language sql as $$ select '-infinity'::timestamptz $$;
    create function evil.current_setting(text) returns text language sql as $$ select 'on'::text $$;
    create function evil.pg_backend_pid() returns integer language sql as $$ select 1 $$;
    create function evil.same(text, text) returns boolean language sql as $$ select true $$;
    create function evil.format(text, text) returns text language sql as $$
        insert into evil.called values ('format'); select 'format'::text $$;
    create operator evil.= (leftarg = text, rightarg = text, function = evil.same);
    create view evil.pg_class as select * from pg_catalog.pg_class where false;
    create view evil.pg_locks as select * from pg_catalog.pg_locks where false;
    create view evil.pg_settings as select * from pg_catalog.pg_settings where false;
    grant usage on schema evil to public;
    grant all on evil.called to public;
"""


@pytest.mark.parametrize("path", ["evil, pg_catalog, public", "evil, public"])
def test_a_hostile_schema_in_front_is_not_asked(path: str, empty_database_url: str, tmp_path: Path) -> None:
    url = adopt(empty_database_url)
    options = config(tmp_path, systems=["charges"])
    sql(url, SHADOWS)
    with role(url, f"search_path = {path}") as odd:
        run(odd, "apply", "--dry-run", *options)
        run(odd, "apply", "--yes", *options)
        assert len(charges(url)) == SAMPLE_CHARGES
        run(odd, "status", *options)
        run(odd, "doctor", *options, code=None)
        run(odd, "log", last_run(url), *options)
        run(odd, "rollback", last_run(url), "--yes", *options)
    assert sql(url, "select * from evil.called") == []
    assert sql(url, "select count(*) from pg_class where relnamespace = 'evil'::regnamespace and relkind = 'r'") == [
        (1,)
    ]


PRICES = "-- depends: 0001_backfill_schema\ncreate table prices (id int primary key);\n"


def test_what_the_user_wrote_finds_names_as_the_role_does(empty_database_url: str, tmp_path: Path) -> None:
    """An own migration, a deferred trigger and an own gate name tables without a schema, as they always could."""
    url = adopt(empty_database_url)
    own = tmp_path / "migrations"
    own.mkdir()
    (own / "1000_app_prices.sql").write_text(PRICES)
    sql(
        url,
        "create schema app",
        "create table app.seen (n int)",
        "create function app.see() returns trigger language plpgsql as"
        " $$ begin insert into seen values (1); return null; end $$",
        "create constraint trigger see after insert on property.charges deferrable initially deferred"
        " for each row execute function app.see()",
    )
    with role(url, "search_path = app, property") as odd:
        run(odd, "apply", "--yes", *config(tmp_path, systems=["charges"]))
    assert sql(url, "select to_regclass('app.prices') is not null, count(*) from app.seen") == [(True, SAMPLE_CHARGES)]


def where(url: str) -> list[tuple[str]]:
    return sql(
        url, "select relnamespace::regnamespace::text from pg_class where relname = '_yoyo_migration' order by 1"
    )


def test_two_roles_have_one_history(empty_database_url: str, tmp_path: Path) -> None:
    url = adopt(empty_database_url)
    options = config(tmp_path, systems=["charges"])
    sql(url, "create schema app", "create schema billing_app")
    with role(url, "search_path = app") as one, role(url, "search_path = billing_app, public") as two:
        run(one, "apply", "--yes", *options)
        assert "No migration is pending" in run(two, "status", *options).out
        run(two, "rollback", last_run(url), "--yes", *options)
        run(two, "apply", "--yes", *options)
        assert "No migration is pending" in run(one, "status", *options).out
        assert where(url) == [("public",)]


def test_a_history_in_another_schema_is_taken_over(empty_database_url: str, tmp_path: Path) -> None:
    """As an older runner left it: in the first schema of whoever came first."""
    url = adopt(empty_database_url)
    options = config(tmp_path, systems=["charges"])
    run(url, "apply", "--yes", *options)
    tables = ("_yoyo_migration", "_yoyo_log", "_yoyo_version")
    sql(url, "create schema app", *(f"alter table if exists {table} set schema app" for table in tables))
    assert "No migration is pending" in run(url, "status", *options).out
    run(url, "apply", "--yes", *config(tmp_path, systems=["charges", "rent"]))
    assert where(url) == [("app",)]
    # Split by two roles: each applied what the other's history did not hold.
    sql(
        url, *(f"create table public.{table} (like app.{table} including all)" for table in tables),
        "insert into public._yoyo_version select * from app._yoyo_version",
        "insert into public._yoyo_migration select * from app._yoyo_migration where migration_id < '0100'",
        "delete from app._yoyo_migration where migration_id between '0010' and '0099'",
    )  # fmt: skip
    assert "No migration is pending" in run(url, "status", *config(tmp_path, systems=["charges", "rent"])).out
    run(url, "apply", "--yes", *config(tmp_path, systems=["charges", "rent", "invoices"]))
    assert sql(url, "select count(*) from app._yoyo_migration where migration_id < '1000'") == [(0,)]
    assert sql(url, "select count(*) > 40, count(distinct migration_id) = count(*) from public._yoyo_migration") == [
        (True, True)
    ]


def test_a_history_that_somebody_else_made_up_is_none(empty_database_url: str, tmp_path: Path) -> None:
    url = adopt(empty_database_url)
    options = config(tmp_path, systems=["charges"])
    with role(url, attributes="nosuperuser") as other:
        sql(url, f"create schema theirs authorization {psycopg.conninfo.conninfo_to_dict(other)['user']}")
        sql(
            other,
            "create table theirs._yoyo_migration (migration_hash text, migration_id text, applied_at_utc timestamp)",
            f"insert into theirs._yoyo_migration values ('x', '{history.FIRST}', now())",
        )
        run(make_conninfo(url, options="-csearch_path=theirs,public"), "apply", "--yes", *options)
    assert sql(url, f"select count(*) from public._yoyo_migration where migration_id = '{history.FIRST}'") == [(1,)]


def test_publications_and_slots_get_in_nobodys_way(
    empty_database_url: str, tmp_path: Path, server: embedded.Server
) -> None:
    """A publication of all tables refuses updates and deletes of what has no key to name a row by: a run makes none."""
    url = adopt(empty_database_url)
    options = config(tmp_path)
    sql(url, "create publication everything for all tables")
    run(url, "apply", "--yes", *options)
    run(url, "waive", "charges", "--until", "2026-12-31", "--reason", "y", *options)
    run(url, "rollback", last_run(url), "--yes", *options)
    slot = f"odd_{uuid4().hex[:8]}"
    sql(url, f"select pg_create_physical_replication_slot('{slot}', true)")
    try:
        found = {item["subject"]: item for item in run(url, "doctor", "--json", *options).json["findings"]}
        assert "inactive replication slots" in found["replication"]["message"]
    finally:
        sql(url, f"select pg_drop_replication_slot('{slot}')")
