"""What the chain costs a run: CPU of the backend for its link, against the run without it."""

from __future__ import annotations

import statistics
from collections.abc import Iterator

import psycopg

from runner import embedded
from tests.benchmarks.bench_capture import BULK, BULK_STATEMENTS, TABLE, Backend
from tests.benchmarks.harness import Result, fresh_database

LINK = "select backfill.link_run(l) from backfill.backfill_log as l where run_id = %s"
SMALL_RUNS = 40


def run(server: embedded.Server, *, scale: float, rounds: int) -> Iterator[Result]:
    """Of a bulk insert, update and delete, and of a run of one row; the link is made once more, and rolled back."""
    backend = Backend(fresh_database(server, "chain"))
    conn = backend.conn
    conn.execute(TABLE.format("audited").encode())
    conn.execute("select backfill.track('audited')")
    conn.commit()
    row = conn.execute("select 'lz4' = any (enumvals) from pg_settings where name = 'default_toast_compression'")
    [lz4] = row.fetchone() or [False]
    # A server without lz4 is, of those that come with the project, one without OpenSSL, whose sha256 is slower.
    build, limit = ("lz4, OpenSSL", 0.08) if lz4 else ("neither lz4 nor OpenSSL", 0.10)
    costs: dict[str, list[tuple[float, float]]] = {}
    for _ in range(rounds + 1):
        for name, statement in BULK_STATEMENTS.items():
            costs.setdefault(name, []).append(_measure(backend, statement.format("audited", int(BULK * scale))))
        conn.execute("truncate audited")
        conn.commit()
    for name, found in costs.items():
        whole, link = (statistics.median(values) for values in zip(*found[1:], strict=True))
        shown = f"{link * 1000:.0f} ms of {whole:.2f} s CPU, {build}"
        yield Result(f"link of a bulk {name} / the run without it, CPU", link / (whole - link), limit, shown)
    small = [_measure(backend, f"insert into audited (id, code) values ({-i}, '{i}')") for i in range(1, SMALL_RUNS)]
    link = statistics.median(cost for _, cost in small[10:]) * 1000
    whole = statistics.median(cost for cost, _ in small[10:]) * 1000
    yield Result("link of a run of one row, ms CPU", link, 1.0, f"the whole run {whole:.1f} ms")
    yield from _verification(backend)


def _measure(backend: Backend, statement: str) -> tuple[float, float]:
    """CPU seconds of a run with that statement, and of its link alone."""
    conn = backend.conn

    def whole() -> None:
        conn.execute("select backfill.begin_run('benchmark')")
        conn.execute(statement.encode())
        conn.execute("select backfill.finish_run()")

    cost = backend.cost(whole)[0]
    conn.commit()
    [run_id] = conn.execute(
        "select run_id from backfill.chain where kind = 'run' order by link desc limit 1"
    ).fetchone() or [None]
    link = backend.cost(lambda: conn.execute(LINK, [run_id]))[0]
    conn.rollback()
    return cost, link


def _verification(backend: Backend) -> Iterator[Result]:
    conn = backend.conn

    def verify() -> list[psycopg.rows.TupleRow]:
        return conn.execute("select * from backfill.verify_chain()").fetchall()

    if verify():
        raise AssertionError("the chain of the benchmark is not whole")
    row = conn.execute("select count(*) from backfill.chain").fetchone()
    cpu, wall = backend.cost(verify)
    conn.rollback()
    yield Result(f"verifying {row[0] if row else 0} links, s CPU", cpu, None, f"{wall:.2f} s wall")
