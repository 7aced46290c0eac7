"""The baseline: what is there is checked and left alone, what is missing is made and, if empty, taken away again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql

from runner import migrations
from runner.database import connect, locked_transaction
from runner.settings import Settings
from runner.systems import SYSTEMS
from tests.engine.words import do, done, refusal, rows, value
from tests.place import EVERYTHING

TABLES = {
    "units": "id uuid primary key, rent_amount_cents bigint, label text",
    "payments": """id uuid primary key, tenant_user_id text, unit_id uuid, amount_cents bigint, status text,
        billing_period text""",
    "charges": """id uuid primary key, tenant_user_id text not null, unit_id uuid, type text, description text,
        amount_cents bigint, billing_period text, created_by text, created_at timestamptz not null""",
}


def apply(url: str) -> None:
    settings = Settings(conninfo=url, systems=SYSTEMS)
    with connect(settings) as conn, locked_transaction(conn, settings):
        migrations.apply(conn, EVERYTHING)


def rollback(url: str) -> None:
    settings = Settings(conninfo=url, systems=SYSTEMS)
    with connect(settings) as conn, locked_transaction(conn, settings):
        migrations.rollback(conn, EVERYTHING)


def create(url: str, **changed: str) -> None:
    with psycopg.connect(url) as application:
        do(application, "create schema property")
        for table, columns in (TABLES | changed).items():
            do(application, f"create table property.{table} ({columns})")


def relations(url: str) -> set[str]:
    with psycopg.connect(url) as conn:
        return {
            row[0]
            for row in rows(
                conn,
                """select format('%I.%I', schemaname, tablename) from pg_tables
                where schemaname not in ('pg_catalog', 'information_schema')""",
            )
        }


@pytest.mark.parametrize(
    ("table", "columns", "told"),
    [
        (
            "units",
            "id bigint primary key, rent_amount_cents numeric(12,2)",
            ["column id is bigint (wanted: uuid)", "column rent_amount_cents is numeric (wanted: integer|bigint)"],
        ),
        (
            "payments",
            "id uuid primary key, unit_id uuid, amount_cents bigint, status varchar(9), billing_period text",
            ["column tenant_user_id is missing (wanted: text)", "column status is character varying (wanted: text)"],
        ),
        (
            "charges",
            TABLES["charges"] + ", cost_center text not null, room text not null default ''",
            ["column cost_center is NOT NULL without a default"],
        ),
        ("charges", TABLES["charges"].replace(" primary key", ""), ["no primary key"]),
    ],
)
def test_a_table_that_does_not_fit_is_refused_before_any_write(
    empty_database_url: str, dump: Callable[..., str], table: str, columns: str, told: list[str]
) -> None:
    create(empty_database_url, **{table: columns})
    before = dump(empty_database_url)
    with pytest.raises(Exception, match=f"property.{table}") as caught:
        apply(empty_database_url)
    assert all(part in str(caught.value) for part in told)
    assert "room" not in str(caught.value)
    if "primary key" not in told[0]:
        assert getattr(caught.value, "sqlstate", None) == "BF006"
    assert dump(empty_database_url) == before


def test_existing_tables_keep_everything_but_the_capture(empty_database_url: str, dump: Callable[..., str]) -> None:
    create(empty_database_url)
    with psycopg.connect(empty_database_url) as application:
        do(application, "insert into property.units values (gen_random_uuid(), 5, 'x')")
    before = dump(empty_database_url, "--schema=property")
    apply(empty_database_url)
    lines = set(dump(empty_database_url, "--schema=property").splitlines()) - set(before.splitlines())
    changed = [
        line
        for line in lines
        if line.startswith(("CREATE", "ALTER", "GRANT", "DROP"))
        and "OWNER TO" not in line
        and "ENABLE ALWAYS TRIGGER backfill_" not in line
    ]
    statements = {line.split(" ")[1] for line in changed}
    assert statements <= {"TRIGGER", "UNIQUE", "VIEW", "SELECT", "USAGE"}
    rollback(empty_database_url)
    assert dump(empty_database_url, "--schema=property") == before
    assert "COPY property.units" in dump(empty_database_url, "--data-only", "--table=property.units")


def test_missing_tables_are_made_and_taken_away(empty_database_url: str) -> None:
    with psycopg.connect(empty_database_url) as application:
        do(application, "create schema property", f"create table property.units ({TABLES['units']})")
    apply(empty_database_url)
    assert {"property.units", "property.payments", "property.charges"} <= relations(empty_database_url)
    rollback(empty_database_url)
    left = {name for name in relations(empty_database_url) if "yoyo" not in name}
    assert left == {"property.units"}


def test_a_rollback_keeps_what_holds_rows(empty_database_url: str) -> None:
    apply(empty_database_url)
    with psycopg.connect(empty_database_url) as application:
        do(application, "insert into property.units (rent_amount_cents) values (1)")
    rollback(empty_database_url)
    assert {name for name in relations(empty_database_url) if "yoyo" not in name} == {"property.units"}
    apply(empty_database_url)
    rollback(empty_database_url)
    assert "property.units" in relations(empty_database_url)


def test_a_rollback_that_would_destroy_the_audit_is_refused(database_url: str, dump: Callable[..., str]) -> None:
    with psycopg.connect(database_url) as conn:
        done(conn, "insert into property.units default values")
    before = dump(database_url)
    with refusal("BF010", match="the rollback would destroy the audit"):
        rollback(database_url)
    assert dump(database_url) == before


def test_tables_tracked_by_hand_do_not_stop_a_rollback(database_url: str) -> None:
    with psycopg.connect(database_url) as conn:
        do(conn, "create table mine (id integer primary key)", "create table lost (id integer primary key)")
        do(conn, "select backfill.track('mine')", "select backfill.track('lost')", "drop table lost")
    rollback(database_url)
    with psycopg.connect(database_url) as conn:
        assert value(conn, "select count(*) from pg_trigger where tgrelid = 'mine'::regclass") == 0
        assert value(conn, "select count(*) from pg_namespace where nspname like 'backfill%'") == 0


@pytest.fixture
def owner(empty_database_url: str) -> Iterator[str]:
    """Connection string of a role that owns the database and may create no roles, on a server without ours."""
    name = sql.Identifier(f"owner_{uuid4().hex[:8]}")
    ours = ("backfill_operator", "backfill_auditor", "backfill_approver", "backfill_owner")
    with psycopg.connect(empty_database_url, autocommit=True) as conn:
        database = sql.Identifier(conn.info.dbname)
        conn.execute(sql.SQL("create role {} login").format(name))
        conn.execute(sql.SQL("alter database {} owner to {}").format(database, name))
        there = [row[0] for row in rows(conn, "select rolname from pg_roles where rolname = any(%s)", [list(ours)])]
        do(conn, *(f"alter role {role} rename to hidden_{role}" for role in there))
        yield f"{empty_database_url} user={name.as_string(conn).strip(chr(34))}"
        do(conn, *(f"drop role if exists {role}" for role in ours))
        do(conn, *(f"alter role hidden_{role} rename to {role}" for role in there))
        conn.execute(sql.SQL("alter database {} owner to postgres").format(database))
        conn.execute(sql.SQL("drop owned by {0}; drop role {0}").format(name))


def test_without_the_right_to_create_roles_it_goes_on(owner: str) -> None:
    apply(owner)
    with psycopg.connect(owner) as conn:
        assert value(conn, "select count(*) from pg_roles where rolname like 'backfill%'") == 0
        do(
            conn,
            "insert into property.units (id, rent_amount_cents) values ('00000000-0000-0000-0000-000000000001', 100)",
            """insert into property.payments
                (tenant_user_id, unit_id, amount_cents, payment_method, status, billing_period)
            select 't', id, 5, 'card', 'succeeded', '2024-01' from property.units""",
        )
        run_id = value(conn, "select run_id from backfill.run('charges')")
        conn.commit()
        assert rows(conn, "select result from backfill.reverse_run(%s)", [run_id]) == [("restored",)]
        conn.rollback()


# What each of our roles may do: on relations, columns, functions and schemas.
GRANTED = """
    select format('%s %s to %s', x.privilege_type, o.object, regexp_replace(r.rolname, '^hidden_', ''))
    from (
        select oid::regclass::text as object, relacl as acl from pg_class
        union all select format('%s.%I', attrelid::regclass, attname), attacl from pg_attribute
        union all select oid::regprocedure::text, proacl from pg_proc
        union all select nspname, nspacl from pg_namespace
    ) as o
    cross join lateral aclexplode(o.acl) as x
    inner join pg_roles as r on r.oid = x.grantee
    where r.rolname ~ '^(hidden_)?backfill_(operator|auditor|approver)$'"""


def test_roles_that_come_later_may_what_they_would_have(owner: str, database_url: str) -> None:
    apply(owner)
    with psycopg.connect(database_url) as conn:
        at_once = set(rows(conn, GRANTED))
    with psycopg.connect(f"{owner} user=postgres") as conn:
        me = sql.Identifier(str(psycopg.conninfo.conninfo_to_dict(owner)["user"]))
        assert value(conn, "select count(*) from backfill.privilege where granted_at is null and role ~ 'backfill'") > 0
        do(conn, "create role backfill_auditor", "create role backfill_operator in role backfill_auditor",
           "create role backfill_approver in role backfill_auditor")  # fmt: skip
        conn.execute(sql.SQL("set role {}").format(me))
        do(conn, "select backfill.regrant()")
        assert set(rows(conn, GRANTED)) == at_once
        conn.rollback()


def test_the_role_that_owns_the_database_can_roll_back(owner: str) -> None:
    apply(owner)
    rollback(owner)
    assert {name for name in relations(owner) if "yoyo" not in name} == set()
