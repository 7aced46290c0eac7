"""Behind a transaction pooler, where each transaction may be another session's: PgBouncer, where it is installed."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from runner.database import connect
from runner.doctor import _pooler
from runner.findings import Finding
from runner.settings import Settings
from tests.story import LOCK, SAMPLE_CHARGES, adopt, charges, config, last_run, lock_holders, run, sql, until

PGBOUNCER = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")

pytestmark = pytest.mark.skipif(PGBOUNCER is None, reason="pgbouncer is not installed")


@contextmanager
def pooler(url: str, mode: str, *more: str) -> Iterator[str]:
    """The same database through a PgBouncer of its own."""
    parts = psycopg.conninfo.conninfo_to_dict(url)
    with tempfile.TemporaryDirectory(prefix="pooler-") as name:
        directory = Path(name)
        directory.chmod(0o755)
        (directory / "users.txt").write_text('"postgres" ""\n')
        (directory / "pgbouncer.ini").write_text(
            f"[databases]\n* = host={parts['host']} port={parts['port']}\n[pgbouncer]\n"
            f"listen_addr =\nunix_socket_dir = {name}\nlisten_port = 6432\n"
            f"auth_type = trust\nauth_file = {name}/users.txt\npool_mode = {mode}\n" + "\n".join(more) + "\n"
        )
        command = [str(PGBOUNCER), "-q", f"{name}/pgbouncer.ini"]
        owner = pwd.getpwuid(Path(str(parts["host"])).stat().st_uid)
        if os.geteuid() == 0:  # it refuses root, as the server does
            shutil.chown(directory, owner.pw_uid, owner.pw_gid)
            command[1:1] = ["-u", owner.pw_name]
        with subprocess.Popen(command, cwd="/") as process:
            try:
                until(lambda: listening(directory / ".s.PGSQL.6432"), "the pooler")
                yield f"host={name} port=6432 user={parts['user']} dbname={parts['dbname']}"
            finally:
                process.terminate()


@pytest.fixture
def pooled(database_url: str) -> Iterator[tuple[str, str]]:
    """The connection to a database, and to the same through PgBouncer in transaction mode."""
    url = adopt(database_url)
    with pooler(url, "transaction", "default_pool_size = 3", "server_round_robin = 1") as through:
        yield url, through


def said(url: str) -> Finding:
    """What doctor finds of the way to the server."""
    settings = Settings(conninfo=url)
    with connect(settings) as conn:
        [found] = _pooler(conn, settings)
    return found


def listening(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as attempt:
        return attempt.connect_ex(str(path)) == 0


def test_apply_and_undo_work_through_it_and_doctor_recognises_it(pooled: tuple[str, str]) -> None:
    direct, url = pooled
    found = {item["subject"]: item for item in run(url, "doctor", "--json").json["findings"]}
    assert found["pooler"]["state"] == "warn"
    assert "transaction pooler" in found["pooler"]["message"]
    for _ in range(2):
        run(url, "apply", "--yes")
        assert len(charges(direct)) == SAMPLE_CHARGES
        run(url, "log", last_run(direct), "--all")
        run(url, "rollback", last_run(direct), "--yes")
        assert charges(direct) == []
    assert lock_holders(direct) == []
    # What a session keeps is as it was: the limits of a run do not leak to the application's next transaction.
    for _ in range(3):
        assert sql(url, "select current_setting('lock_timeout'), current_setting('row_security')") == [("0", "on")]


def test_the_lock_holds_through_it(pooled: tuple[str, str], tmp_path: Path) -> None:
    _direct, url = pooled
    with psycopg.connect(url, application_name="somebody else", prepare_threshold=None) as other:
        other.execute(LOCK)
        done = run(url, "apply", "--yes", *config(tmp_path, lock_wait="200ms"), code=5)
        assert "another run holds the lock" in done.err
        other.rollback()
    run(url, "apply", "--yes")


@pytest.mark.parametrize(
    ("mode", "more", "words"),
    [
        ("transaction", ("default_pool_size = 3", "server_round_robin = 1"), "transaction pooler"),
        ("transaction", ("default_pool_size = 3",), "transaction pooler"),
        ("transaction", ("default_pool_size = 1",), "transaction pooler"),
        ("session", ("default_pool_size = 3",), "session pooler"),
        ("session", ("default_pool_size = 1",), "session pooler"),
    ],
)
def test_doctor_tells_a_pooler_of_sessions_from_one_of_transactions(
    mode: str, more: tuple[str, ...], words: str, empty_database_url: str
) -> None:
    assert said(empty_database_url).message == "no pooler: a direct connection"
    with pooler(empty_database_url, mode, *more) as url:
        found = said(url)
        assert words in found.message
        assert found.state == ("ok" if mode == "session" else "warn")


def test_apply_and_undo_work_through_a_pooler_of_sessions(database_url: str) -> None:
    direct = adopt(database_url)
    with pooler(direct, "session") as url:
        run(url, "apply", "charges", "--yes")
        assert len(charges(direct)) == SAMPLE_CHARGES
        run(url, "rollback", last_run(direct), "--yes")
    assert charges(direct) == []
