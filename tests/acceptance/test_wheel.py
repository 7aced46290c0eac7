"""A project of one's own beside the installed wheel: no checkout, no network, every verb."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import venv
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from runner import embedded
from tests.place import ROOT
from tests.story import sql

EXAMPLE = ROOT / "examples" / "own-project"

# Every process that the wheel's Python starts, dbt's among them, meets a checkout that is not there.
MOVED_AWAY = """\
import os, sys
_gone = {gone!r}
_libraries = {libraries!r}
def _hook(event, args):
    if event in ("open", "os.listdir", "os.scandir") and args and isinstance(args[0], (str, bytes, os.PathLike)):
        name = os.path.realpath(os.fsdecode(args[0]))
        if name.startswith(_gone + os.sep) and not (name + os.sep).startswith(_libraries + os.sep):
            raise FileNotFoundError(2, "the checkout was moved away", name)
sys.addaudithook(_hook)
"""


@dataclass(frozen=True, slots=True)
class Installed:
    """A virtual environment with nothing of ours but the wheel."""

    bin: Path
    site: Path

    def run(self, url: str, folder: Path, *words: str, code: int = 0) -> str:
        """A command of the installed runner in a folder; what it printed, stderr last."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("RUNNER_", "PYTHON"))}
        environment |= {"DATABASE_URL": url, "COLUMNS": "100", "XDG_CACHE_HOME": str(folder.parent / "cache")}
        done = subprocess.run(
            [str(self.bin / "runner"), *words], cwd=folder, env=environment, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == code, (words, done.stdout, done.stderr)
        return done.stdout + done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel as `make wheel` builds it."""
    folder = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    [found] = folder.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """Another virtual environment, the wheel in it: what it depends on is lent, and the checkout is gone."""
    home = tmp_path_factory.mktemp("venv")
    venv.create(home, with_pip=False)
    base = {"base": str(home), "platbase": str(home)}
    site = Path(sysconfig.get_path("purelib", "venv", vars=base))
    install = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        str(home / "bin" / "python"),
        "install",
        "--no-index",
        "--no-deps",
    ]
    subprocess.run([*install, str(wheel)], check=True, capture_output=True)
    libraries = sysconfig.get_path("purelib")
    (site / "moved_away.py").write_text(MOVED_AWAY.format(gone=str(ROOT), libraries=libraries))
    (site / "lent.pth").write_text(f"import moved_away\n{libraries}\n")
    return Installed(home / "bin", site)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of the example, in an otherwise empty folder."""
    return Path(shutil.copytree(EXAMPLE, tmp_path / "project"))


@pytest.fixture
def shop(empty_database_url: str, project: Path) -> str:
    """The shop's own database, before anything of ours."""
    sql(empty_database_url, (project / "application.sql").read_text(encoding="utf-8"))
    return empty_database_url


def deposits(url: str) -> list[tuple[object, ...]]:
    return sql(url, "select count(*), sum(amount_cents)::bigint from shop.deposits")


def test_a_project_of_ones_own_from_the_first_look_to_the_undo(
    shop: str, project: Path, installed: Installed, dump: Callable[..., str]
) -> None:
    before = deposits(shop)
    looked = json.loads(installed.run(shop, project, "status", "--json"))
    assert looked["sources"][-1] == str(project / "migrations")
    assert all(str(installed.site) in folder for folder in looked["sources"][:-1])
    assert looked["pending"][-1] == "migrations/1001_backfill_deposits"

    schema = dump(shop)
    shown = installed.run(shop, project, "apply", "deposits", "--dry-run", "--html", "page.html")
    assert "the rule: backfill.deposits_due in migrations/1001_backfill_deposits.sql" in shown
    assert "paid_orders_without_deposit" in shown
    assert "deposits" in (project / "page.html").read_text(encoding="utf-8")
    assert (dump(shop), deposits(shop)) == (schema, before)

    installed.run(shop, project, "apply", "--yes")
    done = deposits(shop)
    assert done != before
    assert "Nothing is due" in installed.run(shop, project, "apply", "--yes")
    installed.run(shop, project, "gates")
    installed.run(shop, project, "doctor")
    installed.run(shop, project, "snapshot")
    installed.run(shop, project, "promote", "--sheet", "sheet.md")
    sql(shop, "update shop.deposits set amount_cents = amount_cents + 1 where order_no = 'A-0002'")
    assert "paid_orders_without_deposit" in installed.run(shop, project, "gates", code=3)
    sql(shop, "update shop.deposits set amount_cents = amount_cents - 1 where order_no = 'A-0002'")

    [run] = json.loads(installed.run(shop, project, "log", "--json"))["runs"]
    installed.run(shop, project, "log", run["run_id"])
    installed.run(shop, project, "rollback", run["run_id"], "--yes")
    assert deposits(shop) == before
    assert sql(
        shop, "select count(*) from pg_namespace where nspname in ('property', 'billing', 'rent', 'lending')"
    ) == [(0,)]


def test_yoyo_lists_own_migrations_beside_the_bundled_ones(shop: str, project: Path, installed: Installed) -> None:
    installed.run(shop, project, "apply", "--yes")
    parts = dict(part.split("=", 1) for part in shop.split())
    uri = f"postgresql+psycopg://{parts['user']}@/{parts['dbname']}?host={parts['host']}"
    command = [str(installed.bin / "python"), "-m", "yoyo", "list", "--no-config-file", "--batch", "--database", uri]
    listed = subprocess.run(
        [*command, "package:runner:bundled/migrations/engine", "migrations"],
        cwd=project, env={**os.environ, "COLUMNS": "200"}, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    marks = {line.split()[1]: line.split()[0] for line in listed.splitlines()[2:]}
    assert marks["1001_backfill_deposits"] == "A"
    assert set(marks.values()) == {"A"}


def test_plain_dbt_judges_committed_data_from_a_wheel(shop: str, project: Path, installed: Installed) -> None:
    installed.run(shop, project, "apply", "--yes")
    installed.run(shop, project, "gates", "--write", "ci")
    assert dbt(installed, shop, project, "build") == 0
    sql(shop, "delete from shop.deposits where order_no = 'A-0002'")
    assert dbt(installed, shop, project, "build") == 1


def dbt(installed: Installed, url: str, project: Path, *words: str) -> int:
    parts = dict(part.split("=", 1) for part in url.split())
    command = [str(installed.bin / "python"), "-c", "from dbt.cli.main import cli; cli()", *words]
    variables = {
        "PGHOST": parts["host"],
        "PGPORT": parts["port"],
        "PGUSER": parts["user"],
        "PGDATABASE": parts["dbname"],
    }
    return subprocess.run(
        [*command, "--project-dir", "ci", "--profiles-dir", "ci"], cwd=project, env=os.environ | variables,
        capture_output=True, text=True, check=False,
    ).returncode  # fmt: skip


@pytest.fixture
def story_server() -> Iterator[Path]:
    """Where the demo may put its server: a directory that other users may pass. Stopped in any case."""
    with tempfile.TemporaryDirectory(prefix="runner-demo-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o711)
        yield folder
        running = embedded.find(folder / f"pg{embedded.DEFAULT_VERSION}")
        if running:
            running.stop()


def test_the_demo_runs_from_a_wheel(installed: Installed, story_server: Path, tmp_path: Path) -> None:
    told = installed.run("", tmp_path, "demo", "charges", "--directory", str(story_server))
    assert "That was all." in told


def test_every_verb_of_the_wheel_has_its_help(installed: Installed, tmp_path: Path) -> None:
    def verbs(words: Sequence[str]) -> None:
        text = installed.run("", tmp_path, *words, "--help")
        assert "Usage: runner" in text

    for words in (
        ["apply"],
        ["load", "invoices"],
        ["fetch", "rotessa"],
        ["verify"],
        ["schedules", "link"],
        ["ledger", "push"],
    ):
        verbs(words)
