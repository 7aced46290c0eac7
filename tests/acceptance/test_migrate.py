"""`runner migrate`: migrations alone, one by one, while the application goes on."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from runner import migrations
from runner.database import connect, locked_transaction
from runner.migration_files import read
from runner.settings import Settings
from runner.systems import ENGINE, SYSTEMS
from tests.story import SAMPLE, UNIT, adopt, config, ended, holding, run, shell, sql, start, until

CHARGE = (
    "insert into property.charges (tenant_user_id, unit_id, type, description, amount_cents)"
    f" values ('ada', '{UNIT}', 'one_time', 'a key', 500)"
)
"""What the application writes meanwhile."""

INDEX = "charges_one_rent_per_period"


@pytest.fixture
def url(empty_database_url: str) -> str:
    """The sample application's tables with rows, before any migration."""
    sql(empty_database_url, SAMPLE.read_text(encoding="utf-8"))
    return empty_database_url


@pytest.fixture
def charges(tmp_path: Path) -> tuple[str, ...]:
    """The options of a project that has chosen charges."""
    return tuple(config(tmp_path, systems=["charges"]))


def valid(url: str, index: str = INDEX) -> bool | None:
    """Whether that index is valid; None where there is none."""
    found = sql(url, f"select indisvalid from pg_index where indexrelid = to_regclass('property.{index}')")
    return found[0][0] if found else None


BASELINES = ("0101_property_baseline", "0201_billing_baseline", "0301_rent_baseline", "0501_lending_baseline")

ROWS = """
    insert into billing.companies (name) values ('Carer');
    insert into billing.facilities (company_id, name) select id, 'Hillside' from billing.companies;
    insert into billing.contractors (company_id, name) select id, 'Ada' from billing.companies;
    insert into billing.invoices (company_id, facility_id, invoice_number, period_start, period_end, total_cents)
        select company_id, id, 'INV-0001', '2024-01-01', '2024-01-31', 500 from billing.facilities;
    insert into billing.check_payments (company_id, facility_id, check_number, amount_cents, received_on)
        select company_id, id, '17', 500, '2024-02-01' from billing.facilities;
    insert into billing.check_payment_applications (company_id, check_payment_id, invoice_id, amount_cents)
        select c.company_id, c.id, i.id, 5 from billing.check_payments as c, billing.invoices as i;
    insert into rent.tenants (name) values ('Adam');
    insert into rent.rent_config (key, period, value) values ('kallhyra', '2024-01', 1);
    insert into rent.rent_ledger (tenant, period, amount_due) values ('Adam', '2024-01', 1);
    insert into lending.borrowers (name) values ('Bo');
    insert into lending.mortgages (number, borrower_id, payment_cents) select 'M-1', id, 1 from lending.borrowers;
"""
"""What the applications hold whose tables the baselines have made."""


def begun(url: str) -> Settings:
    """The applications' tables with rows in them, and most of the migrations pending."""
    settings = Settings(conninfo=url, systems=SYSTEMS)
    later = [item.id for item in read(settings.sources) if item.system != ENGINE and item.id not in BASELINES]
    with connect(settings) as conn, locked_transaction(conn, settings):
        migrations.apply(conn, settings.sources, leave_out=later)
    sql(adopt(url), ROWS)
    return settings


def test_one_by_one_they_come_to_what_one_transaction_makes(
    empty_database_url: str, tmp_path: Path, dump: Callable[..., str]
) -> None:
    """All systems, on tables with rows in them: the same schema to the byte, and nothing is left to apply."""
    url = empty_database_url
    name = psycopg.conninfo.conninfo_to_dict(url)["dbname"]
    beside = url.replace(f"dbname={name}", f"dbname={name}_beside")
    begun(url)
    sql(url, f"drop database if exists {name}_beside", f"create database {name}_beside")
    try:
        settings = begun(beside)
        with connect(settings) as conn, locked_transaction(conn, settings):
            migrations.apply(conn, settings.sources)
        done = shell(url, "migrate", "--json", *config(tmp_path)).json
        assert dump(url) == dump(beside)
    finally:
        sql(url, f"drop database {name}_beside with (force)")
    assert done["verdict"] == "migrated"
    assert {step["tries"] for step in done["steps"]} == {1}
    built = {index["name"] for step in done["steps"] for index in step["indexes"]}
    assert built >= {INDEX, "invoices_one_backfill_per_period", "invoices_number_key", "rent_ledger_one_row"}
    assert [note for step in done["steps"] for note in step["notes"]] == []
    assert shell(url, "status", "--json", *config(tmp_path)).json["pending"] == []
    assert "No migration is pending." in shell(url, "migrate", *config(tmp_path)).out


def test_two_at_once_share_the_work(url: str, charges: tuple[str, ...]) -> None:
    """What the other has done meanwhile is found to be done, under the lock, and not done again."""
    with start(url, "migrate", *charges) as one, start(url, "migrate", *charges) as other:
        done = [ended(process) for process in (one, other)]
    assert [item.code for item in done] == [0, 0], done
    assert "No migration is pending." in shell(url, "migrate", *charges).out


def test_a_dry_run_leaves_nothing_and_says_which_locks_and_indexes(
    url: str, charges: tuple[str, ...], dump: Callable[..., str]
) -> None:
    before = dump(url, "--inserts")
    done = run(url, "migrate", "--dry-run", *charges)
    assert "property.payments: ShareRowExclusiveLock" in done.text
    assert f"index {INDEX} on property.charges: to be built concurrently" in done.text
    assert "Rehearsed and rolled back: nothing was changed." in done.out
    assert dump(url, "--inserts") == before


def test_an_index_is_built_while_the_application_writes(url: str, tmp_path: Path) -> None:
    """Somebody's open transaction holds the build up; nobody else waits for it meanwhile."""
    (tmp_path / "migrations").mkdir()
    text = "create index charges_amount on property.charges (amount_cents);\n"
    (tmp_path / "migrations" / "1001_property_amounts.sql").write_text(text)
    options = config(tmp_path, systems=[])
    building = "select 1 from pg_stat_activity where query like 'create index concurrently%' and state = 'active'"
    with holding(url, CHARGE) as other, start(url, "migrate", *options) as process:
        until(lambda: sql(url, building), "the build")
        sql(url, "set lock_timeout = '5s'", CHARGE)
        assert sql(url, building)
        other.commit()
        done = ended(process)
    assert done.code == 0, done
    assert valid(url, "charges_amount") is True


def test_what_a_failed_build_left_is_dropped_and_built_again(url: str, charges: tuple[str, ...]) -> None:
    rent = CHARGE.replace("'one_time'", "'rent'").replace("amount_cents)", "amount_cents, billing_period)")
    sql(url, rent.replace("500)", "500, '1999-01')"), rent.replace("500)", "500, '1999-01')"))
    build = (
        f"create unique index concurrently {INDEX} on property.charges (tenant_user_id, unit_id, billing_period)"
        " where type = 'rent'"
    )
    with pytest.raises(psycopg.errors.UniqueViolation):
        sql(url, build)
    assert valid(url) is False
    # While there are duplicates the migration lists them, and nothing invalid stays behind.
    done = run(url, "migrate", *charges, code=1)
    assert "property.charges has more than one rent charge" in done.err
    assert f"ada / {UNIT} / 1999-01: 2 rent charges" in done.err
    assert valid(url) is None
    with pytest.raises(psycopg.errors.UniqueViolation):
        sql(url, build)
    sql(url, "delete from property.charges where billing_period = '1999-01'")
    done = run(url, "migrate", *charges)
    assert "an invalid one was dropped first" in done.text
    assert valid(url) is True


def test_behind_an_open_transaction_nobody_else_waits_long(url: str, charges: tuple[str, ...]) -> None:
    """The migration asks for the table in short tries; between them whoever wants it gets through."""
    with holding(url, CHARGE) as other, start(url, "migrate", *charges) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "try 4" in line:
                break
        assert "property.charges is in use" in line
        # It would be seconds behind a waiting ALTER TABLE; here it is less than the time of one try.
        sql(url, "set lock_timeout = '2s'", CHARGE)
        other.commit()
        done = ended(process)
    assert done.code == 0, done
    assert valid(url) is True


def test_an_index_of_an_own_migration_is_built_before_it_and_another_of_its_name_is_no_other(
    url: str, tmp_path: Path
) -> None:
    folder = tmp_path / "migrations"
    folder.mkdir()
    text = """-- Finds payments by their period.
create index if not exists payments_period on property.payments (billing_period desc) where amount_cents > 0;
create index payments_upper on property.payments (upper(tenant_user_id));
comment on index property.payments_upper is 'Names as people type them.';
"""
    (folder / "1001_property_indexes.sql").write_text(text)
    options = config(tmp_path, systems=[])
    # Built before by hand, just so: it is taken for what it is.
    sql(url, "create index payments_upper on property.payments (upper(tenant_user_id))")
    done = run(url, "migrate", "--json", *options)
    [step] = [step for step in json.loads(done.out)["steps"] if step["migration"] == "1001_property_indexes"]
    assert [index["name"] for index in step["indexes"]] == ["payments_period"]
    assert valid(url, "payments_period") is True
    # Of the same name and not the same: refused, as by the server.
    (folder / "1002_property_more.sql").write_text("create index charges_amount on property.charges (amount_cents);\n")
    sql(url, "create index charges_amount on property.charges (amount_cents desc)")
    done = run(url, "migrate", *options, code=1)
    assert 'relation "charges_amount" already exists' in done.err
    assert "1002_property_more" in done.err


def test_a_system_that_does_not_fit_is_left_out_and_the_others_come(url: str, tmp_path: Path) -> None:
    sql(url, "create schema lending; create table lending.mortgages (id text primary key)")
    done = run(url, "migrate", *config(tmp_path, systems=["charges", "lending"]), code=1)
    assert "lending is left out: lending.mortgages: column" in done.text
    assert sql(
        url, "select to_regclass('backfill.charges_due') is not null, to_regclass('staging.rotessa_customer')"
    ) == [(True, None)]


def test_a_large_database_is_told_to_migrate_first(url: str, charges: tuple[str, ...]) -> None:
    """The advice goes by the server's estimate; once it is migrated there is none."""
    sql(url, "update pg_class set reltuples = 250000 where oid = 'property.payments'::regclass")
    done = run(url, "apply", "--dry-run", "--json", *charges)
    assert "property.payments has about 250,000 rows: `runner migrate` first" in done.json["advice"]
    assert done.json["advice"] in done.err
    run(url, "migrate", *charges)
    assert run(url, "apply", "--dry-run", "--json", *charges).json["advice"] == ""
