"""What every benchmark needs: a durable server of its own, pairs measured in turn, and a table of results."""

from __future__ import annotations

import contextlib
import gc
import os
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg
from psycopg import sql

from runner import database, embedded, migrations
from runner.settings import Settings
from runner.systems import SYSTEMS

# Enough memory and WAL that no checkpoint falls into one half of a pair only.
OPTIONS = {
    "shared_buffers": "1GB",
    "max_wal_size": "16GB",
    "checkpoint_timeout": "1h",
    "autovacuum": "off",
}


@dataclass(frozen=True, slots=True)
class Result:
    """One line of the table: a figure and the limit that it must keep; `shown` is for people."""

    name: str
    figure: float
    limit: float | None
    shown: str

    @property
    def kept(self) -> bool:
        """Whether the limit holds, or there is none."""
        return self.limit is None or self.figure <= self.limit


@contextmanager
def bench_server(version: int) -> Iterator[embedded.Server]:
    """A server with durability on, as users have it."""
    with embedded.running(version=version, options=OPTIONS) as server:
        yield server


def fresh_database(server: embedded.Server, name: str, *, migrated: bool = True) -> str:
    """Connection string of a new database, with all migrations applied unless told otherwise."""
    with psycopg.connect(server.url("postgres"), autocommit=True) as conn:
        conn.execute(sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(name)))
        conn.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
    if migrated:
        settings = Settings(conninfo=server.url(name), systems=SYSTEMS)
        with database.connect(settings) as conn, database.locked_transaction(conn, settings):
            migrations.apply(conn, settings.sources)
    return server.url(name)


def seconds(action: Callable[[], object], clock: Callable[[], float] = time.perf_counter) -> float:
    """How long one call takes, by that clock."""
    gc.collect()
    started = clock()
    action()
    return clock() - started


def paired(
    bare: Callable[[], object],
    ours: Callable[[], object],
    *,
    reset: Callable[[], object],
    rounds: int = 5,
    clock: Callable[[], float] = time.perf_counter,
) -> tuple[float, float, float]:
    """Median seconds of both and the median of the ratios ours/bare, measured in turn after one round to warm up.

    By `clock`: that on the wall, or e.g. the server's CPU time, which other work on the machine leaves alone. `reset`
    brings the database back to the same state before each.
    """
    pairs = []
    for _ in range(rounds + 1):
        reset()
        one = seconds(bare, clock)
        reset()
        pairs.append((one, seconds(ours, clock)))
    pairs = pairs[1:]
    return (
        statistics.median(one for one, _ in pairs),
        statistics.median(two for _, two in pairs),
        statistics.median(two / one for one, two in pairs),
    )


def ratio(
    name: str,
    limit: float | None,
    bare: Callable[[], object],
    ours: Callable[[], object],
    *,
    reset: Callable[[], object],
    rounds: int = 5,
) -> Result:
    """A result from a pair."""
    one, two, both = paired(bare, ours, reset=reset, rounds=rounds)
    return Result(name, both, limit, f"{one:.2f} s bare, {two:.2f} s ours")


def server_cpu(pid: int) -> float:
    """CPU seconds, of user and system, that a server and its sessions have used so far; Linux only."""
    ticks = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # ended meanwhile: then the server has its time
            fields = stat.read_text().rpartition(")")[2].split()
            if int(stat.parent.name) == pid:
                ticks += sum(map(int, fields[11:15]))
            elif int(fields[1]) == pid:
                ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def peak_memory(pid: int) -> int:
    """Largest resident size of a process so far, in bytes; Linux only."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"process {pid} tells no VmHWM")
