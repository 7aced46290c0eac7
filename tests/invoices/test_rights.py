"""Who may do it: an operator writes invoices through the functions alone, everybody else not at all."""

from __future__ import annotations

import psycopg
import pytest
from psycopg.types.json import Jsonb

from tests.invoices.world import World, line

CALLS = {
    "backfill.backfill_invoice": "%(company)s, %(facility)s, 'INV-7', '2023-05-01', '2023-05-07', '2023-05-08 00:00Z',"
    " '2023-06-08', 10000, %(lines)s",
    "billing.create_facility_invoice": "%(company)s, %(facility)s, '2024-05-01', '2024-05-07', %(lines)s",
    "billing.accrue_overdue_interest": "'2024-01-01'",
    "billing.allocate_check": "%(check)s",
    "billing.allocate_checks": "null",
    "billing.unapply_check": "%(check)s",
    "billing.correct_invoice": """%(invoice)s, '{"due_date": "2023-04-01"}', 'typing error'""",
    "billing.resend_invoice": "%(invoice)s, '2024-02-01 00:00Z', 'never arrived'",
    "billing.void_invoice": "%(invoice)s, 'issued twice'",
    "billing.delete_invoice": "%(invoice)s, 'not owed'",
    "billing.apply": "%(check)s, %(other)s, 1000, 'they said so'",
    "billing.unapply": "%(applied)s, 'they did not'",
    "billing.withdraw_refusal": "%(check)s, %(other)s, 'they did'",
    "billing.refuse_application": "%(check)s, %(other)s, 'no'",
    "billing.write_off": "%(other)s, 1, 'bad-debt', 'a cent'",
    "billing.return_check": "%(check)s, '2024-05-02', 'no funds'",
    "billing.allocate_on_account": "%(facility)s",
}


@pytest.fixture
def given(world: World) -> dict[str, object]:
    """An invoice of the past and a check of its facility."""
    facility = world.facility()
    other, check = world.issue(facility, "INV-0900", 500_000, on="2024-03-01"), world.check(facility, 4_000)
    return {
        "other": other,
        "applied": world.value("select backfill.business_id('application', %s::text, %s::text)", check, other),
        "company": world.company,
        "facility": facility,
        "lines": Jsonb([line(10_000)]),
        "invoice": world.backfill(facility, "INV-0985")["id"],
        "check": check,
    }


def as_role(world: World, role: str, statement: str, given: dict[str, object]) -> str | None:
    """SQLSTATE of a statement in that role, None where it was done; the role is put down afterwards."""
    world.conn.execute(f"set role {role}".encode())
    try:
        with world.conn.transaction():
            world.conn.execute(statement.encode(), given)
    except psycopg.Error as exc:
        return exc.sqlstate
    finally:
        world.conn.execute("reset role")
    return None


def test_an_operator_does_all_of_it_without_a_right_on_a_table(world: World, given: dict[str, object]) -> None:
    for table in ("invoices", "invoice_lines", "settings", "check_payment_applications", "application_entries"):
        assert as_role(world, "backfill_operator", f"delete from billing.{table}", given) == "42501"
    for function, arguments in CALLS.items():
        assert as_role(world, "backfill_operator", f"select * from {function}({arguments})", given) is None, function
    # INV-0985 was paid in part, set free, corrected, sent again, void, and is gone.
    assert world.rows("select invoice_number, status from billing.invoices order by invoice_number") == [
        {"invoice_number": "INV-0900", "status": "partial"},
        {"invoice_number": "INV-0986", "status": "draft"},
        {"invoice_number": "INV-7", "status": "sent"},
    ]


@pytest.mark.parametrize("role", ["backfill_auditor", "stranger"])
def test_nobody_else_does_any_of_it(world: World, given: dict[str, object], role: str) -> None:
    world.conn.execute("create role stranger")
    before = world.rows("select * from billing.invoices")
    for function, arguments in CALLS.items():
        assert as_role(world, role, f"select * from {function}({arguments})", given) == "42501", function
    assert world.rows("select * from billing.invoices") == before


def test_an_auditor_reads_whatever_it_was_granted(world: World, given: dict[str, object]) -> None:
    """A view calls its functions in the name of whoever reads it: the right to read it is not enough."""
    readable = {
        row["name"]
        for row in world.rows(
            "select c.oid::regclass::text as name from pg_class as c join pg_namespace as n on n.oid = c.relnamespace"
            " where c.relkind in ('r', 'v') and n.nspname in ('billing', 'staging', 'backfill')"
            " and has_table_privilege('backfill_auditor', c.oid, 'select')"
        )
    }
    assert {"backfill.invoices_due", "backfill.invoices_rejects", "billing.check_reference_matches"} <= readable
    for name in sorted(readable):
        assert as_role(world, "backfill_auditor", f"select * from {name}", given) is None, name
