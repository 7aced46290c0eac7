"""Migrations: names, rollbacks, checksums, and agreement with yoyo's own command line."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from runner import migrations
from runner.database import connect, locked_transaction, transaction
from runner.errors import EditedMigrationError, MigrationError, NotRehearsableError
from runner.migration_files import read
from runner.settings import Settings
from runner.systems import Sources
from tests.engine.words import refusal
from tests.place import EVERYTHING, MIGRATIONS, ROOT


def apply(settings: Settings, sources: Sources = EVERYTHING) -> list[str]:
    with connect(settings) as conn, locked_transaction(conn, settings):
        return [migration.id for migration in migrations.apply(conn, sources)]


def rollback(settings: Settings, sources: Sources = EVERYTHING, down_to: str | None = None) -> list[str]:
    with connect(settings) as conn, locked_transaction(conn, settings):
        return [migration.id for migration in migrations.rollback(conn, sources, down_to=down_to)]


def yoyo_uri(url: str) -> str:
    """The database in yoyo's words."""
    parts = psycopg.conninfo.conninfo_to_dict(url)
    return f"postgresql+psycopg://{parts['user']}@/{parts['dbname']}?host={parts['host']}"


def yoyo(url: str, *arguments: str, sources: Sources = EVERYTHING) -> str:
    """Run yoyo's own command line against the database that `url` names."""
    command = [
        sys.executable,
        "-m",
        "yoyo",
        *arguments,
        "--no-config-file",
        "--batch",
        "--database",
        yoyo_uri(url),
        *map(str, sources.folders),
    ]
    return subprocess.run(
        command, capture_output=True, text=True, check=True, env={**os.environ, "COLUMNS": "200"}
    ).stdout


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A directory with two migrations of one table each."""
    write(tmp_path, "0001_small_one", "create table one (id int);", "drop table one;")
    write(tmp_path, "0002_small_two", "create table two (id int);", "drop table two;", depends="0001_small_one")
    return tmp_path


def only(folder: Path) -> Sources:
    """The migrations of one folder."""
    return Sources((folder,))


def copied(folder: Path) -> Sources:
    """A copy of all migrations, to be edited."""
    shutil.copytree(MIGRATIONS, folder / "migrations")
    return Sources(tuple(folder / "migrations" / path.name for path in EVERYTHING.folders))


def write(directory: Path, name: str, sql: str, back: str, *, depends: str = "", transactional: bool = True) -> None:
    header = f"-- {name}\n" + (f"-- depends: {depends}\n" if depends else "")
    header += "" if transactional else "-- transactional: false\n"
    (directory / f"{name}.sql").write_text(header + sql + "\n")
    (directory / f"{name}.rollback.sql").write_text(back + "\n")


def test_apply_rollback_apply_gives_the_same_schema(empty_settings: Settings, dump: Callable[..., str]) -> None:
    names = apply(empty_settings)
    first = dump(empty_settings.conninfo)
    assert rollback(empty_settings) == names[::-1]
    assert apply(empty_settings) == names
    assert dump(empty_settings.conninfo) == first


@pytest.mark.parametrize("stride", [12, 1])
def test_each_rollback_undoes_its_own_migration(
    empty_settings: Settings, dump: Callable[..., str], stride: int
) -> None:
    """Or a dozen of them together."""
    every = [migration.id for migration in read(EVERYTHING)]
    apply(empty_settings)
    steps = [*every[:-1:stride], every[-1]]
    after = {steps[-1]: dump(empty_settings.conninfo)}
    for name, before in zip(steps[:0:-1], steps[-2::-1], strict=True):
        assert rollback(empty_settings, down_to=before) == every[every.index(before) + 1 : every.index(name) + 1][::-1]
        after[before] = dump(empty_settings.conninfo)
    rollback(empty_settings)
    # Going up again passes through the same schemas, as many migrations at a time.
    for name in steps:
        index = every.index(name)
        with connect(empty_settings) as conn, locked_transaction(conn, empty_settings):
            migrations.apply(conn, EVERYTHING, leave_out=every[index + 1 :])
        assert dump(empty_settings.conninfo) == after[name], name


def test_a_rollback_takes_back_every_right_in_the_schemas_of_the_applications(empty_settings: Settings) -> None:
    """Where the tables were there before, and so stay."""
    apply(empty_settings)
    rights = """
        select n.nspname, c.relname, coalesce(c.relacl, n.nspacl)::text
        from pg_namespace as n left join pg_class as c on c.relnamespace = n.oid
        where n.nspname in ('property', 'billing', 'rent')
            and concat(c.relacl::text, n.nspacl::text) ~ '(backfill|billing)_[a-z]+='"""
    with psycopg.connect(empty_settings.conninfo) as conn:
        assert len({row[0] for row in conn.execute(rights.encode())}) == 3
        conn.execute("delete from backfill.baseline")
    rollback(empty_settings)
    with psycopg.connect(empty_settings.conninfo) as conn:
        assert conn.execute("select to_regclass('rent.rent_ledger') is not null").fetchone() == (True,)
        assert conn.execute(rights.encode()).fetchall() == []


def test_second_apply_finds_nothing(settings: Settings, dump: Callable[..., str]) -> None:
    before = dump(settings.conninfo, "--inserts")
    assert apply(settings) == []
    assert dump(settings.conninfo, "--inserts") == before


def test_rolled_back_apply_leaves_nothing(empty_settings: Settings, dump: Callable[..., str]) -> None:
    before = dump(empty_settings.conninfo)
    with connect(empty_settings) as conn, locked_transaction(conn, empty_settings):
        assert migrations.apply(conn, EVERYTHING)
        conn.rollback()
    assert dump(empty_settings.conninfo) == before


def test_looking_creates_no_tables(empty_settings: Settings, dump: Callable[..., str]) -> None:
    before = dump(empty_settings.conninfo)
    with connect(empty_settings) as conn, transaction(conn, empty_settings):
        assert len(migrations.pending(conn, EVERYTHING)) == len(read(EVERYTHING))
        assert migrations.applied(conn) == []
        assert migrations.edited(conn, EVERYTHING) == []
    assert dump(empty_settings.conninfo) == before


def test_yoyo_list_agrees(empty_settings: Settings, small: Path) -> None:
    apply(empty_settings, only(small))
    listed = yoyo(empty_settings.conninfo, "list", sources=only(small))
    assert [line.split()[:2] for line in listed.splitlines()[2:]] == [["A", "0001_small_one"], ["A", "0002_small_two"]]


def test_the_documented_yoyo_list_names_every_migration_of_ours(empty_settings: Settings) -> None:
    """docs/migrations.md and docs/operations.md: the folders are the shell's to find."""
    pages = [(ROOT / "docs" / name).read_text(encoding="utf-8") for name in ("migrations.md", "operations.md")]
    [documented] = re.findall(r"^    (yoyo list .*)$", pages[0], re.MULTILINE)
    [folders] = re.findall(r"`yoyo list -d URL (.*?)`, from a wheel", pages[1], re.DOTALL)
    assert documented.split()[-1] == folders
    words = re.sub(r"'postgresql\+psycopg:[^']*'", '"$DATABASE"', documented)
    done = subprocess.run(
        ["bash", "-c", f'"$PYTHON" -m yoyo {words.removeprefix("yoyo ")} --no-config-file --batch'], cwd=ROOT,
        env={**os.environ, "PYTHON": sys.executable, "DATABASE": yoyo_uri(empty_settings.conninfo), "COLUMNS": "200"},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    listed = {line.split()[1] for line in done.stdout.splitlines()[2:]}
    assert listed == {migration.id for migration in read(EVERYTHING)}


def test_yoyo_and_the_runner_build_the_same_schema(
    empty_settings: Settings, settings: Settings, dump: Callable[..., str]
) -> None:
    yoyo(empty_settings.conninfo, "apply")
    assert apply(empty_settings) == []
    with psycopg.connect(empty_settings.conninfo) as conn:
        # What yoyo leaves as the superuser's; what is outside of the engine's own schemas stays with him.
        conn.execute("select backfill.hand_over()")
    ignored = ("--schema-only", "--exclude-table=yoyo_lock", "--no-owner")
    assert dump(empty_settings.conninfo, *ignored) == dump(settings.conninfo, *ignored)


def test_yoyo_can_roll_back_what_the_runner_applied(empty_settings: Settings, small: Path) -> None:
    apply(empty_settings, only(small))
    yoyo(empty_settings.conninfo, "rollback", sources=only(small))
    with connect(empty_settings) as conn:
        assert migrations.applied(conn) == ["0001_small_one"]
        assert conn.execute("select to_regclass('public.one')::text, to_regclass('public.two')").fetchone() == (
            "public.one",
            None,
        )


def test_each_applied_file_has_its_checksum(settings: Settings) -> None:
    with connect(settings) as conn:
        kept = dict(conn.execute("select migration_id, sha256 from backfill.migration_checksum").fetchall())
    assert kept == {migration.id: migration.sha256 for migration in read(EVERYTHING)}


def test_an_edited_migration_is_refused_by_name(settings: Settings, tmp_path: Path) -> None:
    copy = copied(tmp_path)
    first = read(copy)[0]
    first.path.write_text(first.path.read_text() + "\n-- a word more\n")
    with connect(settings) as conn, transaction(conn, settings):
        assert [item.id for item in migrations.edited(conn, copy)] == [first.id]
        with pytest.raises(EditedMigrationError, match=rf"{first.id}: applied as sha256 {first.sha256[:12]}"):
            migrations.apply(conn, copy)


def test_an_applied_migration_without_its_file_is_refused(settings: Settings, tmp_path: Path) -> None:
    copy = copied(tmp_path)
    last = read(copy)[-1]
    last.path.unlink()
    with connect(settings) as conn, transaction(conn, settings):
        with pytest.raises(EditedMigrationError, match=rf"{last.id}: applied, but its file is gone"):
            migrations.apply(conn, copy)


def test_a_failing_migration_is_named_and_leaves_nothing(
    empty_settings: Settings, small: Path, dump: Callable[..., str]
) -> None:
    before = dump(empty_settings.conninfo)
    write(small, "0003_small_three", "create table three (id int);\nselect 1 / 0;", "drop table three;")
    with refusal("22012", match=r"cannot apply 0003_small_three, statement 2 of 2: division by zero"):
        apply(empty_settings, only(small))
    assert dump(empty_settings.conninfo) == before


def test_a_missing_dependency_is_refused(empty_settings: Settings, small: Path) -> None:
    write(small, "0003_small_three", "select 1;", "select 1;", depends="0009_nothing")
    with pytest.raises(MigrationError, match="0003_small_three"):
        apply(empty_settings, only(small))


def test_percent_signs_and_result_rows_are_left_alone(
    empty_settings: Settings, small: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(
        small,
        "0003_small_three",
        "create table three as select '100%s %' as x;\nselect * from three;",
        "drop table three;",
    )
    apply(empty_settings, only(small))
    with connect(empty_settings) as conn:
        assert conn.execute("select x from public.three").fetchone() == ("100%s %",)
    assert capsys.readouterr().out == ""


def test_a_non_transactional_migration_is_named_and_needs_its_own_way(empty_settings: Settings, small: Path) -> None:
    write(small, "0003_small_index", "create index concurrently i on one (id);", "drop index i;", transactional=False)
    write(small, "0004_small_four", "create table four (id int);", "drop table four;")
    with pytest.raises(NotRehearsableError, match="0003_small_index"):
        apply(empty_settings, only(small))
    with connect(empty_settings) as conn:
        done = migrations.apply_outside(conn, only(small))
        assert [migration.id for migration in done] == ["0001_small_one", "0002_small_two", "0003_small_index"]
    assert apply(empty_settings, only(small)) == ["0004_small_four"]
    with pytest.raises(NotRehearsableError, match="0003_small_index"):
        rollback(empty_settings, only(small), down_to="0002_small_two")


def test_rolling_back_to_an_unknown_migration_is_refused(settings: Settings) -> None:
    with pytest.raises(MigrationError, match="0000_nothing is not an applied migration"):
        rollback(settings, down_to="0000_nothing")


def test_the_directory_may_have_any_name(empty_settings: Settings, small: Path) -> None:
    odd = small.parent / "a [b] c*"
    small.rename(odd)
    assert apply(empty_settings, only(odd)) == ["0001_small_one", "0002_small_two"]


@pytest.mark.parametrize(
    "name", ["0999_shop_deposits", "1001_deposits", "deposits", "1001_Shop_deposits", "10001_shop_x"]
)
def test_an_own_migration_is_named_by_number_schema_and_entity(tmp_path: Path, name: str) -> None:
    """Refused by file, at whatever verb; one from 1000 on is taken, in a folder of its part too."""
    part = tmp_path / "shop"
    part.mkdir()
    write(part, "1001_shop_one", "select 1;", "select 1;")
    assert Sources.of((), tmp_path).folders[1:] == (tmp_path, part)
    write(part, name, "select 1;", "select 1;")
    with pytest.raises(
        MigrationError, match=rf"{name}(\.rollback)?\.sql: a migration of your own is named NNNN_<schema>"
    ):
        Sources.of((), tmp_path)
