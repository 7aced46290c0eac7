"""What gets in the way: each fault strikes a running command at a moment, and says which exit codes it may lead to."""

from __future__ import annotations

import random
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg

from tests.story import command, environment, sql

if TYPE_CHECKING:
    from tests.simulation.ground import Ground

Process = subprocess.Popen[str]


@dataclass
class Scene:
    """A seed's moment: the ground, the database, the command that runs, and the dice that decide."""

    ground: Ground
    url: str
    process: Process
    wait: float
    dice: random.Random
    words: list[str]

    def moment(self) -> bool:
        """Wait for it; whether the command still runs then."""
        try:
            self.process.wait(self.wait)
        except subprocess.TimeoutExpired:
            return True
        return False


@dataclass(frozen=True)
class Fault:
    """Its name, how it strikes, and the exit codes beside those of a command that got through."""

    name: str
    strike: Callable[[Scene], None]
    codes: frozenset[int]
    before: str = ""
    """SQL on the database, committed before the command begins."""
    mended: str = ""
    """SQL that takes it back."""
    options: tuple[str, ...] = ()
    stdout: str = "pipe"
    proxy: bool = False


def signalled(number: signal.Signals) -> Callable[[Scene], None]:
    def strike(scene: Scene) -> None:
        if scene.moment():
            scene.process.send_signal(number)

    return strike


def backends(call: str) -> Callable[[Scene], None]:
    def strike(scene: Scene) -> None:
        if scene.moment():
            sql(scene.url, f"select {call}(pid) from pg_stat_activity where datname = current_database()"
                           " and application_name like 'runner%'")  # fmt: skip

    return strike


def restarted(how: str) -> Callable[[Scene], None]:
    def strike(scene: Scene) -> None:
        if scene.moment():
            if how == "crashed":
                scene.ground.server.kill()
            else:
                scene.ground.server.stop()
            scene.ground.up()

    return strike


def holding(statement: str, seconds: float) -> Callable[[Scene], None]:
    """Somebody takes a lock at the moment, and holds it for a while."""

    def strike(scene: Scene) -> None:
        scene.moment()
        with psycopg.connect(scene.url, application_name="somebody else") as conn:
            conn.execute("set lock_timeout = '4s'")
            try:
                conn.execute(statement.encode())
            except psycopg.errors.LockNotAvailable:
                return
            time.sleep(seconds)
            conn.rollback()

    return strike


def second(scene: Scene) -> None:
    """The same command once more, beside the first."""
    scene.moment()
    done = subprocess.run(
        command(*scene.words), env=environment(scene.url), capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode in (0, 4, 5, 6), done


def nothing(scene: Scene) -> None:
    scene.moment()


def unread(scene: Scene) -> None:
    """Nobody reads what it prints any more."""
    scene.moment()
    assert scene.process.stdout is not None
    scene.process.stdout.close()


WITHOUT_ANSWER = frozenset({1})
FAULTS = (
    Fault("nothing but the application", nothing, frozenset()),
    Fault("kill -9", signalled(signal.SIGKILL), frozenset({-9})),
    Fault("SIGTERM", signalled(signal.SIGTERM), frozenset({1, -15, 143})),
    Fault("SIGINT", signalled(signal.SIGINT), frozenset({1, -2, 130})),
    Fault("its sessions ended", backends("pg_terminate_backend"), WITHOUT_ANSWER),
    Fault("its statements cancelled", backends("pg_cancel_backend"), WITHOUT_ANSWER),
    Fault("the server stopped and started", restarted("stopped"), WITHOUT_ANSWER),
    Fault("the server crashed", restarted("crashed"), WITHOUT_ANSWER),
    Fault("the connection cut", nothing, WITHOUT_ANSWER, proxy=True),
    Fault("the connection stalled", nothing, WITHOUT_ANSWER, proxy=True),
    Fault("a statement_timeout", nothing, WITHOUT_ANSWER, options=("statement_timeout",)),
    Fault("max_time", nothing, WITHOUT_ANSWER, options=("max_time",)),
    Fault("a second runner", second, frozenset({4, 5, 6})),
    Fault("a lock let go soon", holding("lock table property.charges in share mode", 0.7), frozenset({5})),
    Fault("a lock held long", holding("lock table property.charges in access exclusive mode", 4), frozenset({5})),
    Fault("another run's lock", holding("select pg_advisory_xact_lock(hashtextextended('backfill', 0))", 4),
          frozenset({5})),
    Fault("a database that is read-only", nothing, WITHOUT_ANSWER,
          before="alter database {name} set default_transaction_read_only = on",
          mended="set default_transaction_read_only = off; alter database {name} reset default_transaction_read_only"),
    Fault("a full disk for its output", nothing, WITHOUT_ANSWER, stdout="/dev/full"),
    Fault("a reader that goes away", unread, WITHOUT_ANSWER),
)  # fmt: skip


class Line:
    """A unix socket before the server's, whose connections are cut, or stand still, at a moment."""

    def __init__(self, url: str, folder: Path) -> None:
        parts = {key: str(value) for key, value in psycopg.conninfo.conninfo_to_dict(url).items()}
        self.server = f"{parts['host']}/.s.PGSQL.{parts['port']}"
        self.url = f"host={folder} port=5432 user={parts['user']} dbname={parts['dbname']}"
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(f"{folder}/.s.PGSQL.5432")
        self.listener.listen()
        self.flowing, self.open = threading.Event(), True
        self.flowing.set()
        self.ends: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            server = socket.socket(socket.AF_UNIX)
            try:
                server.connect(self.server)
            except OSError:
                client.close()
                continue
            self.ends += [client, server]
            for source, sink in ((client, server), (server, client)):
                threading.Thread(target=self._pump, args=(source, sink), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(65_536):
                self.flowing.wait()
                sink.sendall(data)
        except OSError:
            pass
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def cut(self) -> None:
        """Both ends of all connections at once; what is on the way is lost."""
        for end in self.ends:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def stall(self, seconds: float) -> None:
        self.flowing.clear()
        time.sleep(seconds)
        self.flowing.set()

    def close(self) -> None:
        self.flowing.set()
        self.listener.close()
        self.cut()
