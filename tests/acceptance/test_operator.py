"""Every verb as a role that may execute the functions and write no table of an application."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql as sql_
from psycopg.conninfo import make_conninfo

from runner.systems import sample
from tests.place import CONFIG, ROOT
from tests.story import SAMPLE_CHARGES, adopt, last_run, run, sql

INVOICES = ROOT / "runner" / "invoices" / "sample"
RENT = sample("rent")
LEDGER = sample("reconciliation")

WRITABLE = """
    select format('%I.%I', n.nspname, c.relname)
    from pg_class as c join pg_namespace as n on n.oid = c.relnamespace
    where c.relkind in ('r', 'p', 'v', 'f')
        and n.nspname in ('property', 'billing', 'rent', 'backfill', 'backfill_audit')
        and c.oid <> 'backfill.reject'::regclass
        and (has_table_privilege(current_user, c.oid, 'insert, update, delete, truncate')
            or has_any_column_privilege(current_user, c.oid, 'insert, update'))
"""


@pytest.fixture
def owner(database_url: str) -> str:
    """The samples of every system beside one another, migrated and not yet backfilled."""
    adopt(database_url)
    billing = (sample("invoices") / "billing.sql").read_text(encoding="utf-8")
    sql(database_url, billing, (RENT / "flat.sql").read_text(encoding="utf-8"))
    sql(database_url, (LEDGER / "billing.sql").read_text(encoding="utf-8"))
    return database_url


@pytest.fixture
def operator(owner: str) -> Iterator[str]:
    """A login that is a member of backfill_operator, and of nothing else."""
    name = f"operator_{uuid4().hex[:8]}"
    with psycopg.connect(owner, autocommit=True) as conn:
        conn.execute(sql_.SQL("create role {} login in role backfill_operator").format(sql_.Identifier(name)))
        yield make_conninfo(owner, user=name)
        conn.execute(sql_.SQL("drop role {}").format(sql_.Identifier(name)))


def test_it_writes_no_table_of_an_application_or_of_the_audit(operator: str) -> None:
    assert sql(operator, WRITABLE) == []
    # Rejects can be added, as the loaders do, and nothing of them taken away.
    assert sql(operator, "select has_table_privilege('backfill.reject', 'update, delete, truncate')") == [(False,)]


def test_it_does_not_make_a_loaded_file_forgotten_without_a_trace(operator: str) -> None:
    assert sql(operator, "select has_table_privilege('staging.file', 'update, delete, truncate')") == [(False,)]
    with pytest.raises(psycopg.Error, match="no run is open") as refused:
        sql(operator, "select staging.forget_files('finance_ledger', array['a'])")
    assert refused.value.sqlstate == "BF001"


def test_migrations_are_the_owners(empty_database_url: str, operator: str) -> None:
    parts = psycopg.conninfo.conninfo_to_dict(operator)
    refused = run(make_conninfo(empty_database_url, user=parts["user"]), "apply", "--yes", code=1)
    assert "permission denied" in refused.err


def test_charges_are_rehearsed_applied_looked_at_and_undone(operator: str) -> None:
    assert "fail" not in run(operator, "doctor").out
    assert "123,501.50" in run(operator, "status").out
    run(operator, "apply", "charges", "--dry-run")
    run(operator, "apply", "charges", "--yes")
    assert sql(operator, "select count(*) from backfill.change_log") == [(SAMPLE_CHARGES,)]
    run(operator, "log")
    run(operator, "log", last_run(operator))
    run(operator, "rollback", last_run(operator), "--yes")
    assert sql(operator, "select count(*) from backfill.charges_due") == [(SAMPLE_CHARGES,)]


def test_invoices_are_loaded_applied_and_undone(operator: str, tmp_path: Path) -> None:
    load = ["load", "invoices", str(INVOICES / "catalogue.csv"), "--aliases", str(INVOICES / "aliases.csv")]
    [(company,)] = sql(operator, "select name from billing.companies where name <> 'Northwind Billing'")
    file = tmp_path / "runner.toml"
    file.write_text(CONFIG.read_text() + (INVOICES / "runner.toml").read_text())
    options = ["--company", company, "--first-wins", "--allow-rejects", "2", "--config", str(file)]
    run(operator, *load, *options)
    assert "loaded before" in run(operator, *load, *options).out
    sql(operator, "select billing.delete_invoice(id, 'in the way', 'Grace') from billing.invoices"
                  " where invoice_number = 'INV-0992'")  # fmt: skip
    run(operator, "apply", "invoices", "--yes")
    assert sql(operator, "select count(*) from billing.invoices where origin = 'backfill'") == [(77,)]
    applied = sql(operator, "select run_id::text from backfill.backfill_log where backfill = 'invoices'")[0][0]
    run(operator, "rollback", applied, "--yes")


def test_the_flat_is_loaded_billed_proved_and_undone(operator: str) -> None:
    bills, history = str(RENT / "bills.txt"), str(RENT / "history")
    run(operator, "load", "electricity", bills)
    run(operator, "load", "rent-history", history, code=3)
    run(operator, "load", "rent-history", history, "--allow-rejects", "1")
    assert "accepted" in run(operator, "load", "rent-history", history, "--accept", "2021_05_v1.json").out
    run(operator, "apply", "electricity_bills", "rent_history", "--yes")
    run(operator, "verify", "electricity", bills)
    run(operator, "verify", "rent-history", history)
    sql(operator, "select rent.accept_finding('Dag', '2023-02', 'as agreed')")
    assert sql(
        operator,
        """select count(*) from rent.record_calculation('2023-04', '{"Alma": {}}',
        '{"kallhyra": 20000, "bredband": 400, "el": 950}', 'May')""",
    ) == [(1,)]
    sql(operator, "select rent.close_period('2023-04', 'settled')")
    billed = sql(operator, "select run_id::text from backfill.backfill_log where backfill = 'rent_history'")[0][0]
    run(operator, "rollback", billed, "--yes")
    loaded = sql(operator, "select run_id::text from backfill.backfill_log where backfill = 'load electricity'")[0][0]
    run(operator, "rollback", loaded, "--yes")


def test_the_ledger_is_compared_corrected_and_promoted(owner: str, operator: str, tmp_path: Path) -> None:
    run(operator, "reconcile")
    for _ in range(2):
        run(operator, "reconcile", "--ledger", str(LEDGER / "ledger.csv"), "--store-failures",
            "--junit", str(tmp_path / "junit.xml"), code=3)  # fmt: skip
    assert sql(operator, "select count(*) from backfill.comparison") == [(2,)]
    sql(owner, """insert into billing.billing_profiles (company_id, customer_id, name, currency, valid_from)
        select company_id, id, 'all', 'USD', '2020-01-01' from billing.customers""",
        """insert into billing.payments (company_id, customer_id, amount_cents, currency, status, reference, paid_at)
        select company_id, customer_id, total_cents, currency, 'succeeded', invoice_number, now() from billing.invoices
        where invoice_number in ('INV-2001', 'INV-2002')""")  # fmt: skip
    run(operator, "apply", "billing_profiles", "payment_links", "--allow-rejects", "100", "--yes")
    assert sql(operator, "select count(*) from billing.payments where invoice_id is null") == [(0,)]
    sql(operator, "select * from billing.validate_constraints()")
    until = str(sql(operator, "select current_date + 1")[0][0])
    for what in (
        "billing_profiles",
        "charges",
        "finance_ledger_lines_and_invoices_that_differ",
        "payments_without_charge",
    ):
        run(operator, "waive", what, "--until", until, "--reason", "ticket 7")

    # A dump holds every row of the database: that right is one more.
    refused = run(operator, "snapshot", "--directory", str(tmp_path), code=1)
    assert "pg_read_all_data" in refused.err
    name = psycopg.conninfo.conninfo_to_dict(operator)["user"]
    sql(owner, f"grant pg_read_all_data to {name}")
    run(operator, "snapshot", "--directory", str(tmp_path))
    done = run(operator, "promote", "--sheet", str(tmp_path / "sheet.md"), code=None)
    assert (done.code, "Ready for production" in done.out) == (0, True), done.out
