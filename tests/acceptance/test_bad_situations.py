"""What can be wrong with a database, a role or a configuration: one clear message, an exit code, nothing written."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import UUID

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from runner import embedded
from tests.story import LOCK, SAMPLE_CHARGES, adopt, charges, config, holding, last_run, run, shell, sql

SECRET = "hunter2secret"

OPERATOR = (
    "grant backfill_operator to ROLE",
    "grant usage on schema property to ROLE",
    "grant select on all tables in schema property to ROLE",
)
"""Runs backfills, and reads what their gates read."""


@pytest.fixture
def url(database_url: str) -> str:
    return adopt(database_url)


def doctor(url: str, *arguments: str, code: int = 0) -> dict[str, tuple[str, str]]:
    """Doctor's last finding by subject: state and message."""
    found = run(url, "doctor", "--json", *arguments, code=code).json["findings"]
    return {finding["subject"]: (finding["state"], finding["message"]) for finding in found}


@pytest.fixture
def role(url: str) -> Iterator[Callable[..., str]]:
    """`role("grant …", …)` makes a role with these statements run for it; returns its connection string."""
    made: list[str] = []

    def make(*statements: str) -> str:
        name = f"somebody_{len(made)}"
        sql(url, f"create role {name} login")
        made.append(name)
        sql(url, *(statement.replace("ROLE", name) for statement in statements))
        return url.replace("user=postgres", f"user={name}")

    yield make
    for name in made:
        sql(url, f"reassign owned by {name} to postgres", f"drop owned by {name}", f"drop role {name}")


def one_message(done: object, *words: str) -> None:
    """One error on stderr, which names all of these, and no traceback."""
    text = " ".join(getattr(done, "err", "").split())
    assert text.count("error:") == 1, text
    assert "Traceback" not in text
    for word in words:
        assert word in text


def test_a_role_that_may_only_read(url: str, role: Callable[..., str], dump: Callable[..., str]) -> None:
    reader = role("grant backfill_auditor to ROLE", "grant usage on schema property to ROLE",
                  "grant select on all tables in schema property to ROLE")  # fmt: skip
    before = dump(url, "--inserts")
    for way in ("--dry-run", "--yes"):
        one_message(run(reader, "apply", way, code=1), "permission denied", "backfill_operator")
    assert dump(url, "--inserts") == before
    assert "due" in run(reader, "status").out
    assert doctor(reader, code=1)["rights"] == (
        "fail", "may not run backfills: grant backfill_operator to this role")  # fmt: skip


def test_an_operator_may_apply_and_undo(url: str, role: Callable[..., str]) -> None:
    """Whoever may run backfills needs no right to write the tables, only to read what the gates read."""
    operator = role(*OPERATOR)
    assert doctor(operator)["rights"] == ("ok", "may run and reverse backfills")
    assert doctor(operator)["deadlocks"][0] == "warn"
    run(operator, "apply", "--yes")
    assert len(charges(url)) == SAMPLE_CHARGES
    assert sql(url, "select actor from backfill.backfill_log") == [("somebody_0",)]
    run(operator, "log", last_run(url))
    run(operator, "rollback", last_run(url), "--yes")
    assert charges(url) == []


def test_a_role_whose_transactions_are_read_only(url: str, role: Callable[..., str]) -> None:
    readonly = role("alter role ROLE set default_transaction_read_only = on", *OPERATOR)
    one_message(run(readonly, "apply", "--yes", code=1), "read-only", "default_transaction_read_only is off")
    assert charges(url) == []
    assert doctor(readonly, code=1)["primary"][0] == "fail"


def test_a_role_that_may_not_create_schemas(empty_database_url: str, server: embedded.Server) -> None:
    url = adopt(empty_database_url)
    sql(url, "create role stranger login")
    try:
        stranger = url.replace("user=postgres", "user=stranger")
        one_message(
            run(stranger, "apply", "--yes", code=1),
            "cannot create yoyo's tables",
            "permission denied for schema public",
        )
        sql(url, "grant create on schema public to stranger")
        one_message(run(stranger, "apply", "--yes", code=1), "0001_backfill_schema", "permission denied for database")
        assert doctor(stranger, code=1)["rights"][0] == "fail"
    finally:
        sql(url, "drop owned by stranger", "drop role stranger")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ("alter table property.payments drop column billing_period", "column billing_period is missing"),
        ("alter table property.payments alter amount_cents type numeric", "column amount_cents is numeric"),
        ("alter table property.charges add branch text not null", "column branch is NOT NULL without a default"),
        ("alter table property.units alter rent_amount_cents type real", "column rent_amount_cents is real"),
    ],
)
def test_a_table_that_does_not_fit_is_refused_before_anything_is_written(
    empty_database_url: str, change: str, named: str, dump: Callable[..., str], tmp_path: Path
) -> None:
    """Its system is left out, by name; the engine alone is there afterwards."""
    url = adopt(empty_database_url)
    sql(url, "delete from property.charges", change)
    before = dump(url, "--schema=property", "--inserts")
    for way in ("--dry-run", "--yes"):
        done = run(url, "apply", way, *config(tmp_path, systems=["charges"]), code=1)
        for words in ("charges is left out: cannot apply 0101_property_baseline", "does not fit", named):
            assert words in done.text
    assert dump(url, "--schema=property", "--inserts") == before
    assert sql(url, "select count(*) from backfill.catalog") == [(0,)]


def test_duplicates_that_are_there_already_are_listed_and_refused(empty_database_url: str, tmp_path: Path) -> None:
    url = adopt(empty_database_url)
    sql(url, "insert into property.charges (tenant_user_id, unit_id, type, description, amount_cents, billing_period)"
             " select tenant_user_id, unit_id, type, description, 7, billing_period from property.charges"
             " where type = 'rent'")  # fmt: skip
    done = run(url, "apply", "--yes", *config(tmp_path, systems=["charges"]), code=1)
    for words in ("charges is left out", "more than one rent charge", "chiara", "2024-12: 2 rent charges"):
        assert words in done.text
    assert sql(url, "select to_regclass('backfill.charges_due')::text") == [(None,)]


def test_a_table_that_went_away_after_the_adoption(url: str) -> None:
    sql(url, "drop table property.payments cascade")
    one_message(run(url, "apply", "--yes", code=1), "does not exist")
    one_message(run(url, "status", code=1), "does not exist")


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (f"postgresql://me:{SECRET}@127.0.0.1:1/money", "check host and port"),
        (f"postgresql://me:{SECRET}@nosuch.invalid/money", "check the host's name"),
        (f"host=/nosuch password={SECRET}", "no server listens on this socket"),
        (f"postgresql://me:{SECRET}@[::1/money", "cannot be read"),
        (f"postgresql://me:{SECRET}@@127.0.0.1/money", "%40"),
    ],
)
@pytest.mark.parametrize("options", [[], ["--json"], ["--debug"]], ids=["plain", "json", "debug"])
def test_a_wrong_url_never_shows_its_password(wrong: str, words: str, options: list[str]) -> None:
    tell = shell if "--debug" in options else run
    for verb in (["status"], ["apply", "--dry-run"]):
        done = tell("", *verb, "--database-url", wrong, *options, code=None)
        assert done.code in (1, 2)
        assert words in done.text
        assert SECRET not in done.out + done.err
        assert ("Traceback" in done.err) == ("--debug" in options)


@pytest.fixture(scope="module")
def scram(server: embedded.Server) -> Iterator[embedded.Server]:
    """A server that asks for passwords: role clerk has one."""
    with embedded.running(version=server.version, options=embedded.UNSAFE_BUT_FAST) as started:
        sql(started.url(), f"create role clerk login password '{SECRET}'")
        hba = started.data / "pg_hba.conf"
        hba.write_text("local all clerk scram-sha-256\n" + hba.read_text())
        sql(started.url(), "select pg_reload_conf()")
        yield started


def test_a_wrong_password_says_so_and_the_right_one_is_never_printed(scram: embedded.Server) -> None:
    clerk = scram.url().replace("user=postgres", "user=clerk")
    wrong = shell(f"{clerk} password=not{SECRET}", "status", "--debug", code=1)
    assert "password authentication failed" in wrong.err
    assert "PGPASSWORD" in wrong.err
    assert SECRET not in wrong.out + wrong.err
    assert "no password supplied" in shell(clerk, "status", code=1).err
    for arguments in (["status", "--json"], ["log", "--debug"], ["apply", "--debug"]):
        done = shell(f"{clerk} password={SECRET}", *arguments, code=None)
        assert SECRET not in done.out + done.err
    assert SECRET not in shell(clerk, "status", "--debug", code=None, PGPASSWORD=SECRET).text


def test_names_that_are_not_there(url: str) -> None:
    one_message(run(url, "apply", "chargs", "--yes", code=2), "there is no backfill chargs; there are: charges")
    one_message(run(url, "log", "abcdef12", code=2), "there is no run abcdef12", "runner log")
    one_message(run(url, "rollback", "abcdef12", "--yes", code=2), "there is no run abcdef12")
    assert charges(url) == []


def test_a_beginning_that_fits_several_runs_names_them(url: str) -> None:
    runs = [f"ab12{n:028x}" for n in range(2)]
    columns = "run_id, backfill, actor, mode, status, completed_at"
    values = ", ".join(f"('{run_id}', 'x', 'y', 'manual', 'succeeded', now())" for run_id in runs)
    sql(url, f"insert into backfill.backfill_log ({columns}) values {values}")
    for verb in (["log", "ab12"], ["rollback", "AB12", "--yes"]):
        one_message(run(url, *verb, code=2), "is the beginning of several runs", *(str(UUID(r)) for r in runs))


def test_a_run_must_be_named_also_where_there_is_only_one(url: str) -> None:
    """`runner rollback "$RUN" --yes` with RUN never set."""
    run(url, "apply", "--yes")
    before = charges(url)
    for given in ("", " "):
        for verb in (["log", given], ["rollback", given, "--yes"]):
            one_message(run(url, *verb, code=2), "no run is named", "runner log")
    assert charges(url) == before != []


def test_before_the_first_apply_each_verb_says_what_to_do(empty_database_url: str) -> None:
    assert "Pending migrations" in run(empty_database_url, "status").out
    for verb in (["log"], ["log", "abc"], ["rollback", "abc", "--yes"]):
        one_message(run(empty_database_url, *verb, code=1), "does not exist", "runner status")


def test_a_full_disk_is_the_servers_error_and_nothing_is_lost(url: str, server: embedded.Server) -> None:
    """A real 53100: the file of the empty index's table is replaced by /dev/full, which takes no byte."""
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("this system has no /dev/full")
    sql(url, "delete from property.charges", "vacuum full property.charges")
    [(path,)] = sql(url, "select pg_relation_filepath('property.charges')")
    file = server.data / path
    stat = file.stat()
    assert stat.st_size == 0
    file.unlink()
    file.symlink_to(full)
    try:
        one_message(
            run(url, "apply", "--yes", code=1), "the server's disk is full", "No space left on device", "make room"
        )
    finally:
        file.unlink()
        file.touch(mode=stat.st_mode & 0o777)
        shutil.chown(file, stat.st_uid, stat.st_gid)
    assert sql(url, "select count(*) from backfill.backfill_log") == [(0,)]
    run(url, "apply", "--yes")
    assert len(charges(url)) == SAMPLE_CHARGES + 1  # chiara's own charge was deleted above


def test_a_disk_quota_for_temporary_files_is_the_servers_own_message(url: str) -> None:
    sql(url, "insert into property.payments (tenant_user_id, unit_id, amount_cents, payment_method, status,"
             " billing_period) select 'tenant ' || n, (select id from property.units limit 1), n, 'ach', 'succeeded',"
             " '2020-01' from generate_series(1, 20000) as n")  # fmt: skip
    name = conninfo_to_dict(url)["dbname"]  # each worker has a database of its own name
    sql(url, f"alter database {name} set temp_file_limit = '64kB'", f"alter database {name} set work_mem = '64kB'")
    try:
        done = run(url, "apply", "--yes", code=None)
        assert done.code in (1, 3)
        assert "temp_file_limit" in done.text
        assert sql(url, "select count(*) from backfill.backfill_log") == [(0,)]
    finally:
        sql(url, f"alter database {name} reset all")


@pytest.fixture
def migrations(tmp_path: Path) -> Path:
    """A folder for migrations of the project's own; `config(tmp_path, migrations="migrations")` names it."""
    own = tmp_path / "migrations"
    own.mkdir()
    return own


def test_an_edited_migration_is_refused_by_name(url: str, migrations: Path, tmp_path: Path) -> None:
    edited = migrations / "1001_property_note.sql"
    edited.write_text("-- A note.\ncreate table property.note ();\n")
    options = config(tmp_path, migrations="migrations")
    run(url, "apply", "--yes", *options)
    before = charges(url)
    edited.write_text(edited.read_text() + "-- one word more\n")
    for way in ("--dry-run", "--yes"):
        one_message(run(url, "apply", way, *options, code=1), "1001_property_note: applied as sha256", "restore")
    assert charges(url) == before
    assert "1001_property_note" in run(url, "status", *options).out
    assert doctor(url, *options, code=1)["migrations"][0] == "fail"


def test_a_migration_outside_a_transaction_is_named_and_needs_its_flag(
    url: str, migrations: Path, tmp_path: Path, dump: Callable[..., str]
) -> None:
    name = "9000_property_index"
    (migrations / f"{name}.sql").write_text(
        "-- An index without a lock for writers.\n-- depends: 0104_property_grants\n-- transactional: false\n"
        "create index concurrently payments_by_tenant on property.payments (tenant_user_id);\n"
    )
    (migrations / f"{name}.rollback.sql").write_text("drop index property.payments_by_tenant;\n")
    options = config(tmp_path, migrations="migrations")
    before = dump(url, "--inserts")
    rehearsed = run(url, "apply", "--dry-run", *options)
    assert f"{name} was not rehearsed" in rehearsed.out
    assert f"due {SAMPLE_CHARGES} rows" in rehearsed.out
    one_message(run(url, "apply", "--yes", *options, code=1), name, "--allow-non-transactional")
    assert f"cannot be rehearsed: {name}" in run(url, "doctor", *options).out
    with holding(url, LOCK):
        config(tmp_path, migrations="migrations", lock_wait="200ms")
        busy = run(url, "apply", "--yes", "--allow-non-transactional", *options, code=5)
    assert "another run holds the lock" in busy.err
    config(tmp_path, migrations="migrations")
    assert dump(url, "--inserts") == before
    # It is committed before the question: whoever says no is told that it stays.
    declined = run(url, "apply", "--allow-non-transactional", *options, code=2)
    assert f"Committed before the rehearsal, and there to stay: {name}" in declined.text
    assert charges(url) == []
    run(url, "apply", "--yes", *options)
    assert len(charges(url)) == SAMPLE_CHARGES
    assert sql(url, "select indisvalid from pg_index where indexrelid = 'property.payments_by_tenant'::regclass") == [
        (True,)
    ]


def test_a_failing_migration_names_file_and_statement(
    url: str, migrations: Path, tmp_path: Path, dump: Callable[..., str]
) -> None:
    (migrations / "9000_property_wrong.sql").write_text("-- Wrong.\ncreate table public.x ();\nselect 1 / 0;\n")
    (migrations / "9000_property_wrong.rollback.sql").write_text("drop table public.x;\n")
    before = dump(url, "--inserts")
    done = run(url, "apply", "--yes", *config(tmp_path, migrations="migrations"), code=1)
    one_message(done, "cannot apply 9000_property_wrong, statement 2 of 2", "division by zero")
    assert dump(url, "--inserts") == before


def test_rows_that_a_policy_hides_are_refused_not_left_out(url: str, role: Callable[..., str]) -> None:
    operator = role(*OPERATOR)
    sql(url, "alter table property.payments enable row level security",
             "create policy few on property.payments using (tenant_user_id = 'ada')")  # fmt: skip
    done = run(operator, "apply", "--yes", code=None)
    assert done.code in (1, 3)
    assert "row-level security" in done.text
    assert charges(url) == []
    assert doctor(operator, code=1)["row security"][0] == "fail"
    assert "property.payments" in doctor(operator, code=1)["row security"][1]


def test_doctor_names_what_would_block(url: str) -> None:
    with psycopg.connect(url, application_name="report") as other:
        other.execute("lock table property.charges")
        other.execute("select pg_sleep(0.01)")
        found = doctor(url)
    assert found["lock"] == ("ok", "no run is open")
    assert found["dbt"][1].endswith("gates compiled")
    assert {state for state, _ in found.values()} == {"ok"}


def test_doctor_on_a_database_whose_dbt_project_is_not_there(url: str, tmp_path: Path) -> None:
    options = config(tmp_path, dbt_project="nowhere")
    assert doctor(url, *options, code=1)["dbt"][0] == "fail"
    one_message(run(url, "apply", "--yes", *options, code=1), "nowhere", "dbt_project")
    assert charges(url) == []


def test_a_server_older_than_needed_is_refused() -> None:
    """No server older than 15 comes with the project: the check is read, not run."""
    from runner.database import OLDEST_SERVER

    assert OLDEST_SERVER == 150000
