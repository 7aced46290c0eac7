"""What capture costs a statement: CPU of the backend against the same statement on a table that nobody tracks.

One table of 7 columns and 2 unique indexes; in bulk, one statement each by a client, and one each in a plpgsql loop.
"""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import psycopg

from runner import embedded
from tests.benchmarks.harness import Result, fresh_database

BULK = 300_000
SINGLE = 5_000
WATCHED = 50

TABLE = """
    create table {0} (id bigint primary key, tenant text, code text unique, amount_cents bigint, day date,
        at timestamptz default now(), note text)"""
COLUMNS = "(id, tenant, code, amount_cents, day, note)"
ROW = "%(i)s, 'tenant-' || %(i)s %% 50, 'C-' || %(i)s, %(i)s, '2024-01-01', 'note'"

Statements = dict[str, str]
BULK_STATEMENTS: Statements = {
    "insert": f"insert into {{0}} {COLUMNS} select i, 'tenant-' || i % 50, 'C-' || i, i, date '2024-01-01' + i % 365,"
    " 'note ' || i % 7 from generate_series(1, {1}) as i",
    "update": "update {0} set amount_cents = amount_cents + 1",
    "delete": "delete from {0} where id % 3 = 0",
}
CLIENT_STATEMENTS: Statements = {
    "insert": f"insert into {{0}} {COLUMNS} values ({ROW})",
    "update": "update {0} set amount_cents = amount_cents + 1 where id = %(i)s",
    "delete": "delete from {0} where id = %(i)s",
}
LOOP_STATEMENTS: Statements = {
    "insert": f"insert into {{0}} {COLUMNS} values ({ROW.replace('%(i)s', 'i').replace('%%', '%')})",
    "update": "update {0} set amount_cents = amount_cents + 1 where id = i",
    "delete": "delete from {0} where id = i",
}
# Wanted of bulk where the server has lz4; without it no limit, but the figure.
LIMITS = {
    ("bulk", "insert"): 1.3,
    ("bulk", "update"): 1.6,
    ("bulk", "delete"): 3.5,
    ("by a client", "insert"): 3.0,
    ("by a client", "update"): 3.0,
    ("by a client", "delete"): 3.0,
    ("in a loop", "insert"): 7.0,
    ("in a loop", "update"): 7.0,
    ("in a loop", "delete"): 7.0,
}


class Backend:
    """A session whose CPU time is read from the kernel; Linux only."""

    def __init__(self, url: str) -> None:
        self.conn = psycopg.connect(url)
        self.clock = Path(f"/proc/{self.conn.info.backend_pid}/schedstat")

    def cpu(self) -> float:
        """Seconds so far."""
        return int(self.clock.read_text().split()[0]) / 1e9

    def cost(self, action: Callable[[], object]) -> tuple[float, float]:
        """CPU and wall seconds of an action."""
        cpu, wall = self.cpu(), time.perf_counter()
        action()
        return self.cpu() - cpu, time.perf_counter() - wall


def run(server: embedded.Server, *, scale: float, rounds: int) -> Iterator[Result]:
    """Ratios of audited statements to bare ones, bytes of audit for each row, and what a run costs by itself."""
    url = fresh_database(server, "capture")
    backend = Backend(url)
    conn = backend.conn
    for name in ("bare", "audited"):
        conn.execute(TABLE.format(name).encode())
    conn.execute("select backfill.track('audited')")
    conn.commit()
    row = conn.execute("select 'lz4' = any (enumvals) from pg_settings where name = 'default_toast_compression'")
    [lz4] = row.fetchone() or [False]
    single, bulk = int(SINGLE * scale), int(BULK * scale)

    def by_client(statement: str, table: str) -> None:
        for i in range(1, single + 1):
            conn.execute(statement.format(table).encode(), {"i": i}, prepare=True)

    def in_loop(statement: str, table: str) -> None:
        loop = f"do $$ begin for i in 1 .. {single} loop {statement.format(table)}; end loop; end $$"
        conn.execute(loop.encode())

    def at_once(statement: str, table: str) -> None:
        conn.execute(statement.format(table, bulk).encode())

    yield from _bytes(conn, single, bulk)
    ways = [("by a client", CLIENT_STATEMENTS, by_client), ("in a loop", LOOP_STATEMENTS, in_loop)]
    for way, statements, execute in [*ways, ("bulk", BULK_STATEMENTS, at_once)]:
        yield from _compare(backend, way, statements, execute, rounds, lz4=lz4)
    yield from _empty_run(backend, rounds)
    conn.close()
    yield _two_workers(url, bulk)


def _compare(
    backend: Backend,
    way: str,
    statements: Statements,
    execute: Callable[[str, str], None],
    rounds: int,
    *,
    lz4: bool,
) -> Iterator[Result]:
    """Each kind of statement: bare, tracked without a run, and in a run; all of it is rolled back."""
    costs: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for _ in range(rounds + 1):
        for kind, table in (("bare", "bare"), ("idle", "audited"), ("run", "audited")):
            if kind == "run":
                backend.conn.execute("select backfill.begin_run('benchmark')")
            for name, statement in statements.items():
                costs.setdefault((kind, name), []).append(backend.cost(partial(execute, statement, table)))
            if kind == "run":
                backend.conn.execute("select backfill.finish_run()")
            backend.conn.rollback()
    for name in statements:
        cpu = {kind: statistics.median(c[0] for c in costs[kind, name][1:]) for kind in ("bare", "idle", "run")}
        wall = {kind: statistics.median(c[1] for c in costs[kind, name][1:]) for kind in ("bare", "run")}
        limit = None if way == "bulk" and not lz4 else LIMITS[way, name]
        build = ("lz4" if lz4 else "pglz") if way == "bulk" else ""
        shown = (
            f"{cpu['bare']:.3f} s CPU bare, {cpu['run']:.3f} s in a run; {wall['bare']:.3f}, {wall['run']:.3f} s wall"
        )
        yield Result(f"{name} {way}, in a run / bare, CPU {build}".rstrip(), cpu["run"] / cpu["bare"], limit, shown)
        if way == "by a client":
            idle = cpu["idle"] / cpu["bare"]
            yield Result(f"{name} {way}, tracked and no run open / bare, CPU", idle, 1.2, f"{cpu['idle']:.3f} s CPU")


def _bytes(conn: psycopg.Connection, single: int, bulk: int) -> Iterator[Result]:
    """Bytes of audit, with its index, for each row inserted."""
    sizes = {}
    for way, count in (("audited_row", single), ("audited", bulk)):
        conn.execute("select backfill.begin_run('benchmark')")
        if way == "audited":
            conn.execute(BULK_STATEMENTS["insert"].format("audited", bulk).encode())
        else:
            for i in range(count):
                conn.execute(CLIENT_STATEMENTS["insert"].format("audited").encode(), {"i": -i - 1}, prepare=True)
        conn.execute("select backfill.finish_run()")
        conn.commit()
        row = conn.execute(f"select pg_total_relation_size('backfill_audit.public_{way}')".encode()).fetchone()
        assert row is not None
        sizes[way] = row[0] / count
        conn.execute("truncate audited")
        conn.commit()
    yield Result("bytes of audit for a row, one by one", sizes["audited_row"], 160, "with its index")
    yield Result("bytes of audit for a row, bulk", sizes["audited"], 30, "with its index")


def _empty_run(backend: Backend, rounds: int) -> Iterator[Result]:
    """begin_run() and finish_run() of nothing, the proof included, with 50 tracked tables."""
    conn = backend.conn
    row = conn.execute("select count(*) from backfill.tracked where active").fetchone()
    for i in range(WATCHED - (row[0] if row else 0)):
        conn.execute(TABLE.format(f"watched_{i}").encode())
        conn.execute("select backfill.track(%s)", [f"watched_{i}"])
    conn.commit()
    begins, ends = [], []
    for _ in range(rounds + 3):
        begins.append(backend.cost(lambda: conn.execute("select backfill.begin_run('benchmark')"))[0] * 1000)
        ends.append(backend.cost(lambda: conn.execute("select backfill.finish_run()"))[0] * 1000)
        conn.commit()
    for name, values, limit in (("begin_run()", begins, None), ("finish_run(), with its proof", ends, 20.0)):
        yield Result(
            f"{name}, 50 tracked tables, ms CPU", statistics.median(values[3:]), limit, f"first: {values[0]:.1f}"
        )


def _two_workers(url: str, bulk: int) -> Result:
    """Two sessions of one run that insert half each, against one that inserts all."""
    statement = BULK_STATEMENTS["insert"].replace("generate_series(1, {1})", "generate_series({1}, {2})")

    def work(run: object, first: int, last: int) -> None:
        with psycopg.connect(url) as conn:
            conn.execute("select backfill.resume_run(%s, true)", [run])
            conn.execute(statement.format("audited", first, last).encode())

    taken = {}
    with psycopg.connect(url) as conn:
        for count in (1, 2):
            conn.execute("truncate audited")
            row = conn.execute("select backfill.begin_run('workers', p_spans_transactions => true)").fetchone()
            conn.commit()
            assert row is not None
            step = bulk // count
            workers = [threading.Thread(target=work, args=(row[0], n * step + 1, (n + 1) * step)) for n in range(count)]
            started = time.perf_counter()
            for worker in workers:
                worker.start()
            for worker in workers:
                worker.join()
            taken[count] = time.perf_counter() - started
            conn.execute("select backfill.resume_run(%s)", [row[0]])
            conn.execute("select backfill.finish_run()")
            conn.commit()
    return Result(
        "two workers of one run / one, wall", taken[2] / taken[1], None, f"{taken[1]:.2f} s one, {taken[2]:.2f} s two"
    )
