"""Policies as tenant A, tenant B, service, read-only and owner; constraints that the corrections make possible."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql

from runner.database import connect, transaction
from runner.errors import translate
from runner.settings import Settings
from runner.systems import SYSTEMS
from tests.engine.words import Connection, do, refusal, rows, value
from tests.reconciliation.test_corrections import ADA, ONE, TWO, billing, invoice, payment, profile

__all__ = ["billing"]


@pytest.fixture
def secured(billing: Connection) -> Connection:
    """One invoice and one payment for each of two companies, row level security on."""
    invoice(billing, "A1")
    invoice(billing, "B1", company=TWO, customer=None)
    payment(billing, "pa")
    payment(billing, "pb", company=TWO, customer=None)
    assert "billing.invoices" in {row[0] for row in rows(billing, "select billing.enable_rls()")}
    billing.commit()
    return billing


def become(conn: Connection, role: str, company: object = "") -> None:
    conn.execute(sql.SQL("set local role {}").format(sql.Identifier(role)))
    conn.execute("select set_config('billing.company_id', %s, true)", [str(company)])


def numbers(conn: Connection) -> list[str]:
    return [row[0] for row in rows(conn, "select invoice_number from billing.invoices order by 1")]


@pytest.mark.parametrize(("company", "seen"), [(ONE, ["A1"]), (TWO, ["B1"]), ("", []), (uuid4(), [])])
def test_a_tenant_sees_its_own_rows_only(secured: Connection, company: object, seen: list[str]) -> None:
    become(secured, "billing_tenant", company)
    assert numbers(secured) == seen
    for table in ("payments", "facilities"):
        assert value(secured, f"select count(*) from billing.{table}") == len(seen)
    assert value(secured, "select count(*) from billing.companies") == len(seen)


def test_a_tenant_writes_its_own_rows_only(secured: Connection) -> None:
    become(secured, "billing_tenant", ONE)
    assert secured.execute("update billing.invoices set due_date = '2026-02-02'").rowcount == 1
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="row-level security"), secured.transaction():
        invoice(secured, "B2", company=TWO, customer=None)
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="row-level security"), secured.transaction():
        secured.execute("update billing.payments set company_id = %s", [TWO])
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="permission denied"), secured.transaction():
        secured.execute("delete from billing.invoices")
    invoice(secured, "A2")
    assert numbers(secured) == ["A1", "A2"]


def test_the_service_sees_and_writes_all(secured: Connection) -> None:
    become(secured, "billing_service")
    assert numbers(secured) == ["A1", "B1"]
    assert secured.execute("update billing.invoices set due_date = '2026-02-02'").rowcount == 2
    assert secured.execute("delete from billing.payments").rowcount == 2


def test_read_only_sees_all_and_writes_nothing(secured: Connection) -> None:
    become(secured, "billing_readonly")
    assert numbers(secured) == ["A1", "B1"]
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        secured.execute("update billing.invoices set due_date = '2026-02-02'")


def test_the_owner_is_not_held_by_the_policies(secured: Connection) -> None:
    assert numbers(secured) == ["A1", "B1"]


def test_policies_are_prepared_and_not_enabled_until_they_are_switched_on(billing: Connection) -> None:
    state = (
        "select bool_or(c.relrowsecurity), count(*) filter (where not exists ("
        "select from pg_policy where polrelid = c.oid)) from pg_class as c"
        " where c.oid in (select table_name::regclass from billing.policy_tables())"
    )
    assert rows(billing, state) == [(False, 0)]
    enabled = rows(billing, "select billing.enable_rls()")
    assert len(enabled) >= 12
    assert rows(billing, "select billing.enable_rls()") == enabled  # twice is harmless
    assert rows(billing, state) == [(True, 0)]
    assert rows(billing, "select billing.disable_rls()") == enabled
    assert rows(billing, state) == [(False, 0)]


def test_a_tenant_is_granted_nothing_until_a_policy_holds_him_and_nothing_afterwards(billing: Connection) -> None:
    granted = (
        "select has_schema_privilege('billing_tenant', 'billing', 'usage')"
        " or bool_or(has_table_privilege('billing_tenant', table_name, p)"
        " or has_any_column_privilege('billing_tenant', table_name, p))"
        " from billing.policy_tables(), unnest(array['select', 'insert', 'update']) as p"
    )
    assert value(billing, granted) is False
    do(billing, "select billing.enable_rls()", "create table billing.later (id integer primary key, company_id uuid)")
    assert value(billing, granted) is True
    do(billing, "select billing.prepare_rls()")
    assert value(billing, "select has_table_privilege('billing_tenant', 'billing.later', 'select')") is False
    do(billing, "drop table billing.later", "select billing.disable_rls()")
    assert value(billing, granted) is False


@pytest.fixture
def operator(secured: Connection, settings: Settings) -> Iterator[Settings]:
    """Settings of a login role that is a member of backfill_operator and of nothing else."""
    name = f"runner_{uuid4().hex[:8]}"
    secured.execute(sql.SQL("create role {} login in role backfill_operator").format(sql.Identifier(name)))
    secured.commit()
    info = secured.info
    yield Settings(conninfo=f"host={info.host} port={info.port} user={name} dbname={info.dbname}", systems=SYSTEMS)
    secured.rollback()
    secured.execute(sql.SQL("drop role {}").format(sql.Identifier(name)))
    secured.commit()


def test_the_runner_refuses_a_table_whose_policies_would_hide_rows_naming_it(operator: Settings) -> None:
    with refusal("42501", match='policy for table "payments"'):
        with connect(operator) as conn, transaction(conn, operator):
            conn.execute("select count(*) from billing.payments")


def test_the_runner_role_executes_and_cannot_write(operator: Settings, secured: Connection) -> None:
    profile(secured, "usd")
    secured.commit()
    with connect(operator) as conn, transaction(conn, operator):
        assert value(conn, "select status from backfill.run('billing_profiles')") == "succeeded"
        assert value(conn, "select count(*) from backfill.change_log") == 1
    for statement in (
        "update billing.invoices set total_cents = 1",
        "delete from billing.payments",
        "insert into billing.customers (company_id, name) select id, 'x' from billing.companies",
        "update backfill.backfill_log set status = 'failed'",
        "select billing.enable_rls()",
    ):
        with pytest.raises(psycopg.errors.InsufficientPrivilege), psycopg.connect(operator.conninfo) as conn:
            conn.execute(statement.encode())


# ---- constraints


def states(conn: Connection) -> dict[str, tuple[str, int]]:
    found = rows(conn, "select constraint_name, state, offenders from billing.validate_constraints()")
    conn.commit()
    return {row[0]: (row[1], row[2]) for row in found if row[0].endswith(("_fk", "_of_customer"))}


def test_foreign_keys_hold_for_new_rows_at_once_and_for_old_ones_after_validation(billing: Connection) -> None:
    do(billing, "alter table billing.invoices disable trigger all")
    invoice(billing, "LOST", customer=uuid4())
    do(billing, "alter table billing.invoices enable trigger all")
    invoice(billing, "A")
    billing.commit()
    with pytest.raises(psycopg.errors.ForeignKeyViolation):
        invoice(billing, "NEW", customer=uuid4())
    billing.rollback()
    found = rows(
        billing, "select business_key, offence from billing.constraint_offenders where constraint_name like '%_fk'"
    )
    assert [row[0] for row in found] == ["LOST"]
    assert found[0][1].endswith("does not exist")
    assert states(billing) == {
        "invoices_customer_fk": ("not valid", 1),
        "invoices_billing_profile_fk": ("validated", 0),
        "payments_invoice_fk": ("validated", 0),
    }
    do(billing, "update billing.invoices set customer_id = null where invoice_number = 'LOST'")
    assert states(billing)["invoices_customer_fk"] == ("validated", 0)
    assert set(states(billing).values()) == {("valid", 0)}
    assert value(
        billing, "select bool_and(convalidated) from pg_constraint where connamespace = 'billing'::regnamespace"
    )


def test_validation_lets_writers_through(billing: Connection, settings: Settings) -> None:
    with psycopg.connect(settings.conninfo) as other:
        billing.execute("select * from billing.validate_constraints()")
        other.execute("set lock_timeout = '1s'")
        other.execute("insert into billing.customers (company_id, name) values (%s, 'meanwhile')", [ONE])
        other.execute("update billing.invoices set due_date = null")
        other.commit()


def test_profiles_are_required_only_when_every_customers_invoice_has_one(billing: Connection) -> None:
    invoice(billing, "A")
    billing.commit()
    with pytest.raises(psycopg.Error, match="1 invoices of a customer have no billing profile") as caught:
        billing.execute("select billing.require_profiles()")
    assert caught.value.sqlstate == "BF034"
    assert "(A)" in str(translate(caught.value))
    billing.rollback()
    profile(billing, "usd")
    billing.execute("select backfill.run('billing_profiles')")
    for _ in range(2):
        billing.execute("select billing.require_profiles()")
        billing.commit()
    assert states(billing)["invoices_profile_of_customer"] == ("validated", 0)
    with pytest.raises(psycopg.errors.CheckViolation, match="invoices_profile_of_customer"):
        invoice(billing, "B", customer=ADA)
