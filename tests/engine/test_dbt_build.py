"""`dbt build` by itself, on committed data, with the example's profile: any selection, one message where nothing is."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest

from runner import database, dbt_root, migrations
from runner.errors import UsageError
from runner.settings import Settings
from runner.systems import SYSTEMS
from tests.engine.gating import dbt, dbt_verdicts
from tests.engine.words import Connection, do, rows
from tests.place import ROOT

PROJECT = ROOT / "dbt_project"
Installed = Callable[..., Connection]


@pytest.fixture
def installed(empty_settings: Settings) -> Iterator[Installed]:
    """A database into which the engine and these systems were migrated, and nothing else."""
    with psycopg.connect(empty_settings.conninfo) as conn:

        def install(*systems: str) -> Connection:
            settings = replace(empty_settings, systems=systems)
            with database.connect(settings) as other, database.locked_transaction(other, settings):
                migrations.apply(other, settings.sources)
            return conn

        yield install


@pytest.fixture
def never(empty_database_url: str) -> Iterator[Connection]:
    """A database that was never migrated."""
    with psycopg.connect(empty_database_url) as conn:
        yield conn


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a person stands: a checkout's dbt project and a profile; and a home of that person's."""
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    here = tmp_path / "here"
    shutil.copytree(PROJECT, here / "dbt_project", ignore=shutil.ignore_patterns("target", "logs"))
    return here


def of(*systems: str) -> set[str]:
    return {file.stem for name in systems for file in (PROJECT / "tests" / name).glob("*/*.sql")}


def listed(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def schemas(conn: Connection) -> list[tuple[str, ...]]:
    return rows(conn, "select nspname from pg_namespace where nspname !~ '^(pg_|information_schema$)' order by 1")


@pytest.mark.parametrize(
    "systems",
    [(), ("charges",), ("invoices", "reconciliation"), SYSTEMS],
    ids=["none", "charges", "reconciliation", "all"],
)
def test_a_selection_is_built_in_a_checkout_and_leaves_no_stray_file(
    place: Path, installed: Installed, systems: tuple[str, ...]
) -> None:
    conn = installed(*systems)
    before = listed(place / "dbt_project")
    choice = [] if systems == SYSTEMS else ["--vars", f"{{systems: [{', '.join(systems)}]}}"]
    done = dbt("build", place / "dbt_project", place, conn, *choice)
    assert done.returncode == 0, done.stdout
    assert "WARN=0 ERROR=0 SKIP=0" in done.stdout
    run = {name for name in of(*SYSTEMS) if f"PASS {name} " in done.stdout}
    assert run == of(*systems)
    assert "PASS unique_last_runs_last_run_key " in done.stdout
    assert listed(place) == {"dbt_project", "profiles.yml"}
    assert listed(place / "dbt_project") == before | {"target", "logs"}
    assert listed(place.parent / "home") == set()


def test_a_written_project_is_what_runner_toml_chooses_and_holds_the_own_gates(
    place: Path, installed: Installed, tmp_path: Path
) -> None:
    conn = installed("charges")
    own = tmp_path / "own"
    (own / "tests" / "limits").mkdir(parents=True)
    (own / "dbt_project.yml").write_text("name: mine\n")
    (own / "tests" / "limits" / "runs_that_failed.sql").write_text(
        "select run_id from {{ ref('stg_backfill__runs') }} where status = 'failed'\n"
    )
    settings = Settings(systems=("charges",), dbt_project=own)
    for _ in range(2):  # written anew, over what was written and built before
        dbt_root.write_project(settings, place / "ci")
        verdicts = dbt_verdicts("build", place / "ci", place, conn, "--profiles-dir", str(place / "ci"))
        assert {name for name in verdicts if name in of(*SYSTEMS)} == of("charges")
        assert verdicts["runs_that_failed"] == ("pass", 0)
    assert listed(place / "ci") == {"dbt_project.yml", "macros", "packages", "profiles.yml"}
    assert listed(own) == {"dbt_project.yml", "tests"}
    do(conn, "insert into backfill.backfill_log (backfill, actor, mode, status, completed_at)"
       " values ('limits', 'x', 'apply', 'failed', now())")  # fmt: skip
    conn.commit()
    done = dbt("build", place / "ci", place, conn, "--profiles-dir", str(place / "ci"))
    assert done.returncode == 1
    assert "FAIL 1 runs_that_failed" in done.stdout
    assert listed(place / "ci") == {"dbt_project.yml", "logs", "macros", "packages", "profiles.yml", "target"}
    assert listed(place.parent / "home") == set()


def test_a_folder_that_holds_something_else_is_not_written_into(tmp_path: Path) -> None:
    (tmp_path / "dbt_project.yml").write_text("name: mine\n")
    with pytest.raises(UsageError, match=r"is not empty: name a folder that is not there yet"):
        dbt_root.write_project(Settings(), tmp_path)
    assert listed(tmp_path) == {"dbt_project.yml"}
    with pytest.raises(UsageError, match=r"dbt_project\.yml/below: .*Not a directory"):
        dbt_root.write_project(Settings(), tmp_path / "dbt_project.yml" / "below")


def test_on_a_database_that_was_never_migrated_it_says_so_once(place: Path, never: Connection) -> None:
    done = dbt("build", place / "dbt_project", place, never)
    assert done.returncode != 0
    assert done.stdout.count("apply first (runner apply)") == 1
    assert "does not exist" not in done.stdout
    assert schemas(never) == [("public",)]
    do(never, "create schema reconciliation")
    never.commit()
    done = dbt("test", place / "dbt_project", place, never, "--vars", "{systems: []}")
    assert done.returncode != 0
    assert done.stdout.count("apply first (runner apply)") == 1


def test_a_system_that_is_not_installed_is_named(place: Path, installed: Installed) -> None:
    conn = installed("charges")
    project = place / "dbt_project"
    done = dbt("build", project, place, conn)
    assert done.returncode != 0
    assert done.stdout.count("not installed") == 1
    assert "invoices, lending, reconciliation, rent: not installed in database" in done.stdout
    assert "--vars '{systems: [charges]}'" in done.stdout
    for given, words in (
        ("{systems: [charges, rant]}", "there is no system rant in this project"),
        ("{systems: charges}", "systems is a list: --vars '{systems: [charges]}'"),
    ):
        done = dbt("test", project, place, conn, "--vars", given)
        assert done.returncode != 0
        assert words in done.stdout
    done = dbt("build", project, place, conn, "--select", "reconciliation.charges")
    assert done.returncode == 0, done.stdout
