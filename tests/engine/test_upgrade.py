"""From the first release on: what the newest tag installed goes over into what is here, with its history."""

from __future__ import annotations

import io
import subprocess
import tarfile
import tomllib
from pathlib import Path

import pytest

from runner import migrations
from runner.database import ENGINE_MAJOR, connect, locked_transaction
from runner.settings import Settings
from runner.systems import ENGINE, SYSTEMS, Sources
from tests.place import EVERYTHING, ROOT
from tests.story import SAMPLE_CHARGES, adopt, charges, last_run, run, sql


def newest_tag() -> str | None:
    """The newest release before what is checked out; none in a copy without history."""
    command = ["git", "-C", str(ROOT), "describe", "--tags", "--abbrev=0", "--match", "v[0-9]*"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() or None


def migrations_of(tag: str, folder: Path) -> Sources:
    """The migrations of a tag, in a folder."""
    packed = subprocess.run(
        ["git", "-C", str(ROOT), "archive", tag, "migrations"], capture_output=True, check=True
    ).stdout
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        archive.extractall(folder, filter="data")
    return Sources(tuple(folder / "migrations" / name for name in (ENGINE, *SYSTEMS)))


def test_the_newest_release_is_taken_over_with_its_history(empty_settings: Settings, tmp_path: Path) -> None:
    tag = newest_tag()
    if tag is None:
        pytest.skip("no release is tagged yet: there is nothing to come from")
    before = migrations_of(tag, tmp_path)
    with connect(empty_settings) as conn, locked_transaction(conn, empty_settings):
        migrations.apply(conn, before)
    url = adopt(empty_settings.conninfo)
    sql(url, "select * from backfill.run('charges')")
    assert len(charges(url)) == SAMPLE_CHARGES
    run(url, "apply", "--yes")
    with connect(empty_settings) as conn, locked_transaction(conn, empty_settings):
        assert migrations.pending(conn, EVERYTHING) == []
    run(url, "rollback", last_run(url), "--yes")
    assert charges(url) == []


def test_the_engine_and_the_package_have_one_version(settings: Settings) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    kept = sql(settings.conninfo, "select version from backfill.version order by installed_at desc limit 1")
    assert kept == [(project["version"],)]
    assert int(project["version"].partition(".")[0]) == ENGINE_MAJOR
