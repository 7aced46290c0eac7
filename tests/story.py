"""Words for stories about the runner: the real command line on a database that an application already uses."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from typer.testing import CliRunner

from runner.cli import app
from runner.systems import SYSTEMS
from tests.place import ROOT

SAMPLE = ROOT / "runner" / "charges" / "sample" / "application.sql"
"""Units, payments and a few charges as an application holds them; what the backfill must make of them:"""
SAMPLE_CHARGES, SAMPLE_TOTAL = 144, "123,501.50"

HOUSEHOLD = ROOT.parent / "shared" / "tools" / "load-household"
HOUSEHOLD_CHARGES, HOUSEHOLD_TOTAL = 3_708, "15,935,383.00"

UNIT = "00000000-0000-4000-8000-000000000001"
"""A unit of the sample; ada lives there for 1,200.00."""


LOCK = "select pg_advisory_xact_lock(hashtextextended('backfill', 0))"
"""What every run takes."""


@dataclass(frozen=True, slots=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def text(self) -> str:
        """All that a person sees, on one line."""
        return " ".join(f"{self.out} {self.err}".split())

    @property
    def json(self) -> Any:
        """The object that --json printed."""
        return json.loads(self.out)


def run(url: str, *arguments: str, code: int | None = 0) -> Done:
    """A command in this process, without a terminal; it must end with `code`."""
    result = CliRunner(env={"DATABASE_URL": url}).invoke(app, list(arguments), prog_name="runner")
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    done = Done(result.exit_code, result.stdout, result.stderr)
    assert code in (None, done.code), (arguments, done)
    return done


def command(*arguments: str) -> list[str]:
    """What the shell would start."""
    return [sys.executable, "-m", "runner.cli", *arguments]


def environment(url: str, **more: str) -> dict[str, str]:
    """Of a command that is started: this one's, and the database."""
    return {**os.environ, "DATABASE_URL": url, **more}


@contextmanager
def start(url: str, *arguments: str, stdin: int = subprocess.DEVNULL) -> Iterator[subprocess.Popen[str]]:
    """A command in a process of its own, running; it does not outlive the block."""
    process = subprocess.Popen(
        command(*arguments),
        env=environment(url),
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell that runs the tests in the background has them ignore the keyboard's signal, and so their children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def shell(url: str, *arguments: str, code: int | None = 0, **environ: str) -> Done:
    """A command in a process of its own, to its end, which must be `code`."""
    done = subprocess.run(
        command(*arguments), env=environment(url, **environ), stdin=subprocess.DEVNULL, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert code in (None, done.returncode), (arguments, done)
    return Done(done.returncode, done.stdout, done.stderr)


MEASURED = (
    "import resource, subprocess, sys\n"
    "code = subprocess.run(sys.argv[1:]).returncode\n"
    "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // (1 if sys.platform == 'darwin' else 1024))\n"
    "sys.exit(code)"
)
"""A program between: a process counts as its own what whoever started it had, and a worker of the tests has much."""


def peak(*words: str, code: int, env: dict[str, str] | None = None) -> tuple[int, str]:
    """The most memory, in MB, that a program had, which must end with `code`; and what it said, the errors first."""
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, *words], env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == code, done
    *said, used = done.stdout.splitlines()
    return int(used), "\n".join([done.stderr, *said])


def ended(process: subprocess.Popen[str]) -> Done:
    """Wait for a command that was started."""
    out, err = process.communicate(timeout=120)
    return Done(process.returncode, out, err)


def progress(process: subprocess.Popen[str], words: str) -> list[str]:
    """Read a running command's progress until a line holds `words`."""
    assert process.stderr is not None
    seen = []
    for line in process.stderr:
        seen.append(line)
        if words in line:
            return seen
    raise AssertionError(f"{words!r} never came: {seen}, {process.stdout.read() if process.stdout else ''}")


def sql(url: str, *statements: str) -> list[tuple[Any, ...]]:
    """Statements of the application or of a person, each committed; the rows of the last."""
    rows: list[tuple[Any, ...]] = []
    with psycopg.connect(url, autocommit=True) as conn:
        for statement in statements:
            cursor = conn.execute(statement.encode())
            rows = cursor.fetchall() if cursor.description else []
    return rows


def adopt(url: str) -> str:
    """Put the sample application into a database, beside what is there."""
    text = SAMPLE.read_text(encoding="utf-8")
    if sql(url, "select to_regclass('property.charges') is not null") == [(True,)]:
        text = text[text.index("insert into property.units") :]
    sql(url, text)
    return url


def charges(url: str) -> list[tuple[Any, ...]]:
    """Every charge that has no hand in it, with its id."""
    return sql(
        url,
        "select id, tenant_user_id, unit_id, type, description, amount_cents, billing_period"
        " from property.charges where created_by is null order by id",
    )


def duplicates(url: str) -> list[tuple[Any, ...]]:
    """Tenants, units and periods with more than one rent charge."""
    return sql(
        url,
        "select tenant_user_id, unit_id, billing_period, count(*) from property.charges"
        " where type = 'rent' group by 1, 2, 3 having count(*) > 1",
    )


def last_run(url: str) -> str:
    """The id of the latest run that is no reversal."""
    [(run_id,)] = sql(
        url,
        "select run_id::text from backfill.backfill_log where mode <> 'reversal' order by started_at desc limit 1",
    )
    return str(run_id)


def lock_holders(url: str) -> list[tuple[Any, ...]]:
    """Sessions that hold an advisory lock in this database."""
    return sql(
        url,
        "select pid from pg_locks where locktype = 'advisory' and granted"
        " and database = (select oid from pg_database where datname = current_database())",
    )


def until(condition: Callable[[], object], what: str, seconds: float = 20) -> None:
    """Wait for something that must come; the limit only ends a test that has failed."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come within {seconds} s"
        time.sleep(0.02)


def config(directory: Path, **values: object) -> Sequence[str]:
    """A runner.toml with these values, and all systems where it names none, as options of a command."""
    values = {"systems": list(SYSTEMS), **values}
    file = directory / "runner.toml"
    file.write_text("".join(f"{name} = {json.dumps(value)}\n" for name, value in values.items()))
    return ("--config", str(file))


SLOW = """
    create or replace function public.slow() returns trigger language plpgsql as $$
    begin
        perform pg_sleep(30);
        return null;
    end; $$;
    create trigger slow after insert on property.charges for each statement execute function public.slow();
"""
"""A trigger of the application with which the backfill's statement takes long."""

QUICK = "drop trigger slow on property.charges; drop function public.slow();"


def sleeping(url: str) -> bool:
    """Whether the backfill's statement has reached the slow trigger."""
    return bool(
        sql(
            url,
            "select pid from pg_stat_activity where datname = current_database() and wait_event = 'PgSleep'"
            " and application_name not like '%(watch)'",  # that session sleeps between two looks
        )
    )


@contextmanager
def holding(url: str, *statements: str) -> Iterator[psycopg.Connection]:
    """Another session whose transaction is open, and is rolled back at the end."""
    with psycopg.connect(url, application_name="somebody else") as conn:
        for statement in statements:
            conn.execute(statement.encode())
        yield conn
        conn.rollback()


class Proxy:
    """A unix socket before the server's that cuts the connection where a message of the client holds `cut_at`.

    With `after_it_arrived` the server gets the message and works it off; only its answer is lost.
    """

    def __init__(self, url: str, *, cut_at: bytes, after_it_arrived: bool) -> None:
        parts = {key: str(value) for key, value in psycopg.conninfo.conninfo_to_dict(url).items()}
        self.cut_at, self.after_it_arrived = cut_at, after_it_arrived
        self.server = f"{parts['host']}/.s.PGSQL.{parts['port']}"
        self.directory = tempfile.TemporaryDirectory(prefix="proxy-")
        self.url = f"host={self.directory.name} port=5432 user={parts['user']} dbname={parts['dbname']}"
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(f"{self.directory.name}/.s.PGSQL.5432")
        self.listener.listen()
        self.thread = threading.Thread(target=self.serve)

    def __enter__(self) -> Proxy:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.thread.join(timeout=30)
        self.listener.close()
        self.directory.cleanup()

    def serve(self) -> None:
        """One connection, to its end."""
        client, _ = self.listener.accept()
        with client, socket.socket(socket.AF_UNIX) as server:
            server.connect(self.server)
            while True:
                for ready in select.select([client, server], [], [])[0]:
                    data = ready.recv(65_536)
                    cut = ready is client and self.cut_at in data
                    if data and not (cut and not self.after_it_arrived):
                        (server if ready is client else client).sendall(data)
                    if cut and self.after_it_arrived:
                        server.recv(65_536)
                    if cut or not data:
                        return
