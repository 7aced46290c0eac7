"""Where a seed takes place: a server that keeps what it commits, and a database as it is before each verb."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg

from runner import embedded
from tests.simulation.verbs import VERBS, Verb
from tests.story import adopt, command, config, environment, run, sql

State = tuple[Any, ...]

# Durability on: what is said to be committed must be there after a crash.
OPTIONS = {"max_connections": "60", "log_lock_waits": "on"}


@dataclass
class Known:
    """What an undisturbed run of a verb makes of its database, and how long it takes."""

    before: State
    after: State
    seconds: float


@dataclass
class Ground:
    """A server, the folder of its files, and what is known of each verb."""

    server: embedded.Server
    folder: Path
    options: tuple[str, ...]
    known: dict[str, Known] = field(default_factory=dict)

    def copy(self, verb: Verb, name: str) -> str:
        """A database as it is before the verb, and the verb's own folder beside it."""
        sql(
            self.server.url(),
            f"drop database if exists {name} with (force)",
            f"create database {name} template before_{verb.start} strategy file_copy",
        )
        shutil.rmtree(self.place(name), ignore_errors=True)
        self.place(name).mkdir()
        return self.server.url(name)

    def place(self, name: str) -> Path:
        return self.folder / name

    def words(self, verb: Verb, url: str) -> list[str]:
        """The command line of the verb on this database."""
        name = psycopg.conninfo.conninfo_to_dict(url)["dbname"]
        return [*verb.words(url, self.folder, self.place(str(name))), *self.options]

    def learn(self, verb: Verb) -> Known:
        """Run it undisturbed, once."""
        if verb.name not in self.known:
            url = self.copy(verb, "undisturbed")
            before, began = verb.state(url), time.monotonic()
            done = subprocess.run(
                command(*self.words(verb, url)), env=environment(url), capture_output=True, text=True, check=False
            )
            seconds = time.monotonic() - began
            assert done.returncode == verb.code, (verb.name, done.stdout, done.stderr)
            self.known[verb.name] = Known(before, verb.state(url), seconds)
        return self.known[verb.name]

    def up(self) -> None:
        """Start the server again, where a seed stopped it."""
        self.server = embedded.start(self.server.data, version=self.server.version, options=OPTIONS)


@contextmanager
def ground(version: int = embedded.DEFAULT_VERSION) -> Iterator[Ground]:
    """A server with a database for the beginning of each verb: bare, ready, applied, loaded."""
    with tempfile.TemporaryDirectory(prefix="simulation-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o711)
        (folder / "bills.txt").write_text("# Vattenfall\n2023-02-28 1632 kr\n2023-03-31 1467 kr\n2023-04-28 1199 kr\n")
        options = tuple(config(folder, systems=["charges", "rent"], lock_wait="3s", lock_timeout="2s"))
        with embedded.running(folder / "data", version=version, options=OPTIONS) as server:
            made = Ground(server, folder, options)
            sql(server.url(), "create database before_bare")
            adopt(server.url("before_bare"))
            for start, base, words in (
                ("ready", "bare", ("migrate",)),
                ("applied", "ready", ("apply", "charges", "--yes")),
                ("loaded", "ready", ("load", "electricity", str(folder / "bills.txt"))),
            ):
                sql(server.url(), f"create database before_{start} template before_{base}")
                run(server.url(f"before_{start}"), *words, *options)
            try:
                yield made
            finally:
                made.up()


def verb_named(name: str) -> Verb:
    [found] = [verb for verb in VERBS if verb.name == name]
    return found
