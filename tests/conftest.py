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
from pathlib import Path
from types import SimpleNamespace

import psycopg
import pytest
from pytest_postgresql import factories

from runner import database, embedded, migrations
from runner.settings import ROOT, Settings

MIGRATIONS = ROOT / "migrations"


def migrate(*, host: str, port: int, user: str, dbname: str, **_: object) -> None:
    """pytest-postgresql's load hook: brings the template up to date, once in a session."""
    settings = Settings(conninfo=f"host={host} port={port} user={user} dbname={dbname}")
    with database.connect(settings) as conn, database.locked_transaction(conn, settings):
        migrations.apply(conn, MIGRATIONS)


@pytest.fixture(scope="session", autouse=True)
def _environment() -> Iterator[None]:
    """No test sees the caller's database: DATABASE_URL and libpq's variables are taken out."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [*os.environ]:
            if name == "DATABASE_URL" or re.match(r"PG[A-Z]", name):
                patch.delenv(name)
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
_empty = factories.postgresql_noproc(depends_on="_executor", dbname="empty")
_migrated_database = factories.postgresql("_migrated")
_empty_database = factories.postgresql("_empty")


def _url_of(connection: psycopg.Connection) -> str:
    info = connection.info
    url = f"host={info.host} port={info.port} user={info.user} dbname={info.dbname}"
    connection.close()  # a test that looks at sessions and locks sees only its own
    return url


@pytest.fixture
def database_url(_migrated_database: psycopg.Connection) -> str:
    """Connection string of this test's own database, with all migrations applied and no rows."""
    return _url_of(_migrated_database)


@pytest.fixture
def empty_database_url(_empty_database: psycopg.Connection) -> str:
    """Connection string of this test's own database with nothing in it."""
    return _url_of(_empty_database)


@pytest.fixture
def settings(database_url: str) -> Settings:
    """Settings for database_url that wait briefly, so that a test of waiting is a short one."""
    return Settings(conninfo=database_url, lock_wait=500, lock_timeout=500)


@pytest.fixture
def empty_settings(empty_database_url: str) -> Settings:
    """As settings, for empty_database_url."""
    return Settings(conninfo=empty_database_url, lock_wait=500, lock_timeout=500)


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
        return re.sub(r"^\\(un)?restrict .*\n", "", done.stdout, flags=re.MULTILINE)

    return run
