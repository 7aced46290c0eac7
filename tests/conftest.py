"""One embedded server for the session, one database for each test, made from a template migrated once.

`PG=16 pytest` runs on another server version; see runner.embedded for which there are.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path
from types import SimpleNamespace

import psycopg
import pytest
from psycopg import sql
from pytest_postgresql import factories
from pytest_postgresql.executors.noop import NoopExecutor

from runner import database, embedded, migrations
from runner.settings import Settings
from runner.systems import SYSTEMS
from tests.place import CONFIG

LONG_FORMS = Path(__file__).with_name("long_forms.txt")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--all-forms", action="store_true", help="also the tests of tests/long_forms.txt")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the long forms, unless they are asked for, all or one of them by its name."""
    lines = [line for line in LONG_FORMS.read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")]
    patterns = {tuple(line.split(" ", 1)): 0 for line in lines}

    def is_long(item: pytest.Item) -> bool:
        name, _, parameters = item.nodeid.removesuffix("]").partition("[")
        found = [
            words for words in patterns
            if fnmatch(name, words[0]) and (len(words) == 1 or fnmatch(parameters, words[1]))
        ]  # fmt: skip
        patterns.update((words, patterns[words] + 1) for words in found)
        return bool(found)

    long = [item for item in items if is_long(item)]
    whole = config.args == config.getini("testpaths")
    if whole and (stale := [" ".join(words) for words, count in patterns.items() if count == 0]):
        raise pytest.UsageError(f"{LONG_FORMS}: no test is called {stale}")
    if not config.getoption("--all-forms") and not any("::" in argument for argument in config.args):
        config.hook.pytest_deselected(items=long)
        items[:] = [item for item in items if item not in set(long)]


def migrate(*, host: str, port: int, user: str, dbname: str, **_: object) -> None:
    """pytest-postgresql's load hook: brings the template up to date, once in a session."""
    settings = Settings(conninfo=f"host={host} port={port} user={user} dbname={dbname}", systems=SYSTEMS)
    with database.connect(settings) as conn, database.locked_transaction(conn, settings):
        migrations.apply(conn, settings.sources)


@pytest.fixture(scope="session", autouse=True)
def _environment() -> Iterator[None]:
    """No test sees the caller's database: DATABASE_URL and libpq's variables are taken out. All systems are chosen."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [*os.environ]:
            if name == "DATABASE_URL" or re.match(r"PG[A-Z]", name):
                patch.delenv(name)
        patch.setenv("RUNNER_CONFIG", str(CONFIG))
        yield


MEMORY = Path("/dev/shm")
ROOM = 6 << 30


@contextmanager
def _quick_directory() -> Iterator[Path | None]:
    """In memory where there is room: each test makes a database of some 1,000 files, a third of a second on disk."""
    if not (MEMORY.is_dir() and os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free > ROOM):
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="runner-", dir=MEMORY, ignore_cleanup_errors=True) as name:
        Path(name).chmod(0o711)  # the server's user must pass; its data directory inside is 0700
        yield Path(name) / "data"


@pytest.fixture(scope="session")
def server(_environment: None) -> Iterator[embedded.Server]:
    """The session's server, without durability: its data is thrown away."""
    version = int(os.environ.get("PG", embedded.DEFAULT_VERSION))
    options = {**embedded.UNSAFE_BUT_FAST, "max_connections": "100"}
    with _quick_directory() as data, embedded.running(data, version=version, options=options) as started:
        yield started


@pytest.fixture(scope="session")
def _executor(server: embedded.Server) -> SimpleNamespace:
    """The running server in the words of pytest-postgresql."""
    return SimpleNamespace(
        host=str(server.socket),
        port=embedded.PORT,
        user=embedded.SUPERUSER,
        password=None,
        options="",
        maintenance_dbname="postgres",
        template_dbname=None,
    )


_migrated = factories.postgresql_noproc(depends_on="_executor", dbname="migrated", load=[migrate])


@pytest.fixture(scope="session")
def _administrator(server: embedded.Server) -> Iterator[psycopg.Connection]:
    """Makes and drops the tests' databases."""
    with psycopg.connect(server.url(), autocommit=True) as connection:
        yield connection


@contextmanager
def _database(administrator: psycopg.Connection, server: embedded.Server, name: str, template: str) -> Iterator[str]:
    """Connection string of a database for one test. Copying files takes a third of the time of copying by WAL."""
    words = {"name": sql.Identifier(name), "template": sql.Identifier(template)}
    administrator.execute(sql.SQL("drop database if exists {name} with (force)").format(**words))
    administrator.execute(sql.SQL("create database {name} template {template} strategy file_copy").format(**words))
    yield server.url(name)
    administrator.execute(sql.SQL("drop database if exists {name} with (force)").format(**words))


@pytest.fixture
def database_url(_administrator: psycopg.Connection, server: embedded.Server, _migrated: NoopExecutor) -> Iterator[str]:
    """Connection string of this test's own database, with all migrations applied and no rows."""
    with _database(_administrator, server, "tests", _migrated.template_dbname) as url:
        yield url


@pytest.fixture
def empty_database_url(_administrator: psycopg.Connection, server: embedded.Server) -> Iterator[str]:
    """Connection string of this test's own database with nothing in it."""
    with _database(_administrator, server, "empty", "template0") as url:
        yield url


@pytest.fixture
def settings(database_url: str) -> Settings:
    """Settings for database_url that wait briefly, so that a test of waiting is a short one."""
    return Settings(conninfo=database_url, systems=SYSTEMS, lock_wait=500, lock_timeout=500)


@pytest.fixture
def empty_settings(empty_database_url: str) -> Settings:
    """As settings, for empty_database_url."""
    return Settings(conninfo=empty_database_url, systems=SYSTEMS, lock_wait=500, lock_timeout=500)


@pytest.fixture
def conn(database_url: str) -> Iterator[psycopg.Connection]:
    """A connection to database_url, autocommit off; what is open at the end is rolled back."""
    with psycopg.connect(database_url) as connection:
        yield connection
        connection.rollback()


@pytest.fixture(scope="session")
def dump(server: embedded.Server) -> Callable[..., str]:
    """`dump(url)` is the schema as pg_dump writes it, `dump(url, "--inserts")` … with any option given instead.

    What differs from one pg_dump to the next, as its random \\restrict key, is taken out: equal means equal.
    """

    def run(url: str, *options: str) -> str:
        command = [str(server.programs / "pg_dump"), *(options or ("--schema-only",)), f"--dbname={url}"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        # Nor does a rehearsal leave anything but a sequence that moved: no money and no number hangs on it.
        differing = r"^(\\(un)?restrict |SELECT pg_catalog\.setval\('backfill_audit\.statement_no').*\n"
        return re.sub(differing, "", done.stdout, flags=re.MULTILINE)

    return run
