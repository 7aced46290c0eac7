"""Systems are chosen: each alone, all or none leave exactly what was chosen, and one that does not fit stops alone."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import psycopg
import pytest
from psycopg import sql as sql_

from runner import embedded, migrations
from runner.database import connect, locked_transaction
from runner.fit import needed
from runner.settings import Settings
from runner.systems import REQUIRES, SYSTEMS
from tests.story import SAMPLE_CHARGES, adopt, charges, config, last_run, run, sql

SELECTIONS: tuple[tuple[str, ...], ...] = (
    (),
    *((name, *REQUIRES[name]) for name in SYSTEMS if name != "reconciliation"),
    ("invoices", "reconciliation"),
    SYSTEMS,
)

SCHEMAS = {
    "charges": {"property"},
    "invoices": {"billing"},
    "rent": {"rent"},
    "reconciliation": {"billing"},
    "lending": {"lending", "ledger"},
}
ENGINE = {"backfill", "backfill_audit", "staging", "public"}
ROLES = {
    "lending": {"lending_admin"},
    "reconciliation": {"billing_tenant", "billing_service", "billing_readonly"},
}
ENGINE_ROLES = {"backfill_operator", "backfill_auditor", "backfill_approver", "backfill_owner"}


@pytest.fixture(scope="module")
def bare_server() -> Iterator[embedded.Server]:
    """A server of its own: roles belong to the whole server, and here nobody has made one."""
    version = int(os.environ.get("PG", embedded.DEFAULT_VERSION))
    with embedded.running(version=version, options=embedded.UNSAFE_BUT_FAST) as server:
        yield server


@pytest.fixture
def bare_url(bare_server: embedded.Server) -> Iterator[str]:
    """A database of that server with nothing in it."""
    with psycopg.connect(bare_server.url("postgres"), autocommit=True) as conn:
        conn.execute("create database bare")
        yield bare_server.url("bare")
        conn.execute("drop database bare with (force)")
        for name in sorted(roles(bare_server.url("postgres"))):  # of a test that failed on its way
            conn.execute(sql_.SQL("drop role {}").format(sql_.Identifier(name)))


def schemas(url: str) -> set[str]:
    return {row[0] for row in sql(url, "select nspname from pg_namespace where nspname !~ '^(pg_|information_schema)'")}


def roles(url: str) -> set[str]:
    return {
        row[0] for row in sql(url, "select rolname from pg_roles where rolname !~ '^pg_' and rolname <> 'postgres'")
    }


def described(names: Sequence[str]) -> str:
    return "none" if not names else "all" if tuple(names) == SYSTEMS else "+".join(names)


@pytest.mark.parametrize("names", SELECTIONS, ids=described)
def test_a_selection_leaves_exactly_what_was_chosen(
    bare_url: str, names: tuple[str, ...], dump: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    chosen = config(tmp_path, systems=list(names))
    before, roles_before = dump(bare_url), roles(bare_url)
    assert roles_before == set()

    run(bare_url, "apply", "--yes", *chosen)
    assert schemas(bare_url) == ENGINE.union(*(SCHEMAS[name] for name in names))
    assert roles(bare_url) == ENGINE_ROLES.union(*(ROLES.get(name, set()) for name in names))
    systems_there = {row[0] for row in sql(bare_url, "select distinct system from backfill.catalog")}
    assert systems_there == set(names)

    report = run(bare_url, "status", "--json", *chosen).json
    assert (report["systems"], report["pending"], report["unselected"]) == ([n for n in SYSTEMS if n in names], [], [])
    assert {due["system"] for due in report["due"]} == set(names)
    run(bare_url, "doctor", *chosen)
    if "reconciliation" in names:  # its foreign keys come NOT VALID: a step of its own, beside a running application
        sql(bare_url, "select * from billing.validate_constraints()")
    run(bare_url, "snapshot", *chosen)
    sheet = run(bare_url, "promote", *chosen, code=None)
    assert sheet.code == 0, sheet.out
    assert run(bare_url, "apply", *chosen, "--yes").text.count("Nothing is due") == 1

    settings = Settings(conninfo=bare_url, systems=tuple(n for n in SYSTEMS if n in names))
    _forget_snapshots(bare_url)
    with connect(settings) as conn, locked_transaction(conn, settings):
        migrations.rollback(conn, settings.sources)
    sql(bare_url, "drop table if exists _yoyo_migration, _yoyo_log, _yoyo_version, yoyo_lock")
    assert dump(bare_url) == before
    assert roles(bare_url) == roles_before


def _forget_snapshots(url: str) -> None:
    """A snapshot that was taken is evidence, for which the rollback would refuse: this one goes with the test."""
    sql(url, "alter table backfill.snapshot disable trigger all; delete from backfill.snapshot")


OTHER_INVOICES = """
    create schema billing;
    create table billing.invoices (id bigint primary key, number text not null, total numeric(10, 2) not null);
    insert into billing.invoices values (1, 'A-1', 100.50);
"""
"""An application's invoices that are none of ours."""


def test_a_system_that_does_not_fit_stops_alone(empty_database_url: str, tmp_path: Path) -> None:
    url = adopt(empty_database_url)
    sql(url, OTHER_INVOICES)
    everything = config(tmp_path)

    rehearsed = run(url, "apply", "charges", "--dry-run", *everything)
    assert "invoices is left out: cannot apply 0201_billing_baseline, statement" in rehearsed.text
    assert "reconciliation is left out: it builds on invoices, which does not fit" in rehearsed.text
    run(url, "apply", "charges", "--yes", *everything)
    assert len(charges(url)) == SAMPLE_CHARGES

    # Asked for everything, the runner does what it can and says by its exit code that something selected is missing.
    done = run(url, "apply", "--yes", *everything, code=1)
    assert "Left out: invoices, reconciliation." in done.text
    assert "column total_cents is missing" in done.text
    refused = run(url, "apply", "invoices", "--yes", *everything, code=1)
    assert "there is no backfill invoices: invoices is left out: cannot apply 0201_billing_baseline" in refused.err
    assert schemas(url) >= {"property", "rent", "lending", "ledger"}
    assert sql(url, "select number, total::text from billing.invoices") == [("A-1", "100.50")]
    assert sql(url, "select count(*) from pg_class as c where c.relnamespace = 'billing'::regnamespace") == [(2,)]
    assert sql(url, "select array_agg(distinct system order by system) from backfill.catalog") == [
        (["charges", "lending", "rent"],)
    ]


def test_the_tables_that_are_there_say_which_system_would_fit(empty_database_url: str, tmp_path: Path) -> None:
    url = adopt(empty_database_url)
    sql(url, OTHER_INVOICES)
    nothing = config(tmp_path, systems=[])
    before = schemas(url)
    shown = run(url, "status", *nothing)
    assert 'systems = ["charges"]' in shown.out
    assert "billing.invoices: column" in shown.text
    found = {fit["system"]: fit for fit in run(url, "status", "--json", *nothing).json["fits"]}
    assert list(found) == list(SYSTEMS)
    assert found["charges"]["misfits"] == []
    assert found["rent"]["found"] == []
    assert schemas(url) == before


@pytest.mark.parametrize("system", SYSTEMS)
def test_what_a_system_needs_is_read_from_its_baseline(system: str, database_url: str) -> None:
    tables = needed(system)
    assert tables
    for relation, columns in tables.items():
        there = dict(
            sql(
                database_url,
                "select attname::text, format_type(atttypid, null) from pg_attribute"
                f" where attrelid = '{relation}'::regclass and attnum > 0",
            )
        )
        assert {name: there[name] for name in columns if there[name] not in columns[name].split("|")} == {}


def test_a_system_that_is_no_longer_selected_keeps_its_log_and_its_undo(database_url: str, tmp_path: Path) -> None:
    url = adopt(database_url)
    run(url, "apply", "charges", "--yes")
    left = config(tmp_path, systems=["rent"])
    shown = run(url, "status", "--json", *left).json
    assert shown["unselected"] == [name for name in SYSTEMS if name != "rent"]
    assert {due["system"] for due in shown["due"]} == {"rent"}
    assert "Installed, and not among systems" in run(url, "status", *left).text
    assert "installed and not selected" in run(url, "doctor", *left, code=None).text

    sql(url, "update property.payments set status = 'succeeded' where status = 'pending'")  # more would be due
    assert "Nothing is due" in run(url, "apply", "--yes", *left).text
    refused = run(url, "apply", "charges", "--yes", *left, code=2)
    assert 'charges is not selected: add it to systems in runner.toml: systems = ["charges", "rent"]' in refused.err

    run_id = last_run(url)
    assert "144" in run(url, "log", run_id[:8], *left).out
    run(url, "rollback", run_id[:8], "--yes", *left)
    assert charges(url) == []


def test_own_migrations_may_build_on_a_system_that_is_chosen(empty_database_url: str, tmp_path: Path) -> None:
    own = tmp_path / "migrations"
    own.mkdir()
    (own / "1001_property_notes.sql").write_text(
        "-- Notes on charges.\n-- depends: 0104_property_grants\ncreate table property.notes (id int primary key);\n"
    )
    (own / "1001_property_notes.rollback.sql").write_text("drop table property.notes;\n")
    chosen = config(tmp_path, systems=["charges"])
    run(empty_database_url, "apply", "--yes", *chosen)
    assert sql(empty_database_url, "select to_regclass('property.notes') is not null") == [(True,)]

    # What is applied stays so, whatever is selected; only what is pending must find what it builds on.
    other = config(tmp_path, systems=["rent"])
    assert run(empty_database_url, "status", "--json", *other).json["unselected"] == ["charges"]
    with psycopg.connect(empty_database_url, autocommit=True) as conn:
        conn.execute("delete from _yoyo_migration where migration_id ~ '^0104_'")
    (own / "1002_property_more.sql").write_text(
        "-- More.\n-- depends: 0104_property_grants\ncreate table property.more (id int primary key);\n"
    )
    refused = run(empty_database_url, "status", *other, code=1)
    assert "1002_property_more.sql depends on 0104_property_grants of charges, which is not selected" in refused.err


def test_an_engine_of_another_major_version_is_refused_by_name(database_url: str) -> None:
    sql(database_url, "insert into backfill.version (version) values ('9.1.0')")
    for verb in (["apply", "--yes"], ["status"], ["log"], ["promote"], ["rollback", "0"]):
        assert "holds the engine in version 9.1.0" in run(database_url, *verb, code=1).err
    assert "version 9.1.0" in run(database_url, "doctor", code=1).text


def test_doctor_and_status_say_before_the_apply_what_does_not_fit(empty_database_url: str, tmp_path: Path) -> None:
    sql(empty_database_url, OTHER_INVOICES)
    chosen = config(tmp_path, systems=["charges", "invoices"])
    found = run(empty_database_url, "doctor", "--json", *chosen, code=None).json["findings"]
    [said] = [finding for finding in found if "does not fit" in finding["message"]]
    assert (said["subject"], said["state"]) == ("systems", "warn")
    assert "billing.invoices: column total_cents is missing" in said["message"]
    fits = run(empty_database_url, "status", "--json", *chosen).json["fits"]
    assert [fit["system"] for fit in fits] == ["invoices"]
    assert "billing.invoices" in run(empty_database_url, "status", *chosen).text


def test_a_schema_that_is_there_is_used_and_stays(empty_database_url: str, dump: Callable[..., str]) -> None:
    """Names as common as staging and ledger belong to somebody already."""
    sql(empty_database_url, "create schema staging; create table staging.landing (id int); create schema ledger")
    before = dump(empty_database_url)
    settings = Settings(conninfo=empty_database_url, systems=SYSTEMS)
    with connect(settings) as conn, locked_transaction(conn, settings):
        migrations.apply(conn, settings.sources)
    with connect(settings) as conn, locked_transaction(conn, settings):
        migrations.rollback(conn, settings.sources)
    sql(empty_database_url, "drop table if exists _yoyo_migration, _yoyo_log, _yoyo_version, yoyo_lock")
    assert dump(empty_database_url) == before


@pytest.mark.parametrize(
    "table", ["create view property.payments as select 1 as id", "create table property.units (id int)"]
)
def test_status_judges_as_the_apply_does(empty_database_url: str, tmp_path: Path, table: str) -> None:
    sql(empty_database_url, f"create schema property; {table}")
    nothing = config(tmp_path, systems=[])
    [charges_fit] = [
        f for f in run(empty_database_url, "status", "--json", *nothing).json["fits"] if f["system"] == "charges"
    ]
    assert charges_fit["misfits"]
    run(empty_database_url, "apply", "--yes", *config(tmp_path, systems=["charges"]), code=1)


def test_promotion_of_one_system_is_not_judged_by_another(database_url: str, tmp_path: Path) -> None:
    """What reconciliation left unvalidated is none of the concern of charges."""
    left = config(tmp_path, systems=["charges"])
    lines = {line["name"] for line in run(database_url, "promote", "--json", *left, code=None).json["lines"]}
    assert lines == {"snapshot", "migrations", "gates", "backfills", "evidence"}


@pytest.mark.parametrize("name", ["migrations", "dbt_project"])
def test_what_lies_beside_runner_toml_and_is_no_folder_is_refused(database_url: str, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("not a folder")
    assert f"{tmp_path / name} is not a folder" in run(database_url, "status", *config(tmp_path), code=2).err


@pytest.mark.parametrize("name", ["../x", "/tmp/x", "a b", "1x", "x.y"])
def test_a_dbt_project_has_a_name_that_is_one(database_url: str, tmp_path: Path, name: str) -> None:
    (tmp_path / "dbt_project").mkdir()
    (tmp_path / "dbt_project" / "dbt_project.yml").write_text(f"name: {json.dumps(name)}\n")
    told = run(database_url, "gates", "--write", str(tmp_path / "ci"), *config(tmp_path, systems=[]), code=None)
    assert told.code != 0
    assert "is not a name for dbt" in told.err
    assert not (tmp_path / "x").exists()
