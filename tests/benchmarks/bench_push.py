"""`runner ledger push` of 10,000 transactions against a stub in a process of its own: its rate, and flat memory."""

from __future__ import annotations

import json
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import psycopg

from runner import embedded
from runner.lending.push import push
from runner.settings import Settings
from runner.systems import SYSTEMS
from tests.benchmarks.harness import Result, fresh_database, seconds
from tests.lending.world import payments
from tests.place import ROOT

ROWS = 10_000
_STUB = """
from tests.lending.stubs.formance import Formance
with Formance() as stub:
    print(stub.url, flush=True)
    input()
"""


@contextmanager
def _stub() -> Iterator[str]:
    """The address of an empty Formance ledger, whose work and memory are not ours."""
    with subprocess.Popen(
        [sys.executable, "-c", _STUB], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
        process.terminate()


def run(server: embedded.Server, *, scale: float, rounds: int) -> Iterator[Result]:
    """Push at most 2 of the bare requests with the same bytes; memory of all at most 1.2 of that of a tenth."""
    rows = max(1000, int(ROWS * scale))
    timed = [_timed(server, rows) for _ in range(min(rounds, 3))]
    bare, ours = min(pair[0] for pair in timed), min(pair[1] for pair in timed)
    yield Result(
        f"ledger push of {rows:,}, best of {len(timed)}", ours / bare, 2.0,
        f"{ours:.2f} s, {rows / ours:,.0f} a second; bare requests {bare:.2f} s",
    )  # fmt: skip
    few, many = (_peak(server, count) for count in (rows // 10, rows))
    yield Result(
        f"ledger push of {rows:,}, peak memory to that of {rows // 10:,}", many / few, 1.2,
        f"{many / 1e6:.1f} MB, {few / 1e6:.1f} MB",
    )  # fmt: skip


def _timed(server: embedded.Server, rows: int) -> tuple[float, float]:
    url = _filled(server, rows)
    with psycopg.connect(url) as conn:
        found = conn.execute(
            "select idempotency_key, body from ledger.formance_body order by recorded_at, effective_at, reference"
        ).fetchall()
    elements = [{"action": "CREATE_TRANSACTION", "ik": key, "data": body} for key, body in found]
    bulks = [json.dumps(elements[first : first + 100]).encode() for first in range(0, rows, 100)]

    def send() -> None:
        for bulk in bulks:
            client.post("/v2/main/_bulk", content=bulk).raise_for_status()

    with _stub() as address, httpx.Client(base_url=address, trust_env=False) as client:
        bare = seconds(send)
    with _stub() as address:
        ours = seconds(lambda: _push(url, address, rows))
    return bare, ours


def _push(url: str, address: str, rows: int) -> None:
    pushed = push(Settings(conninfo=url, systems=SYSTEMS, tables={"lending": {"formance": {"url": address}}}))
    assert (pushed.sent, pushed.confirmed) == (rows, rows)


def _peak(server: embedded.Server, rows: int) -> int:
    url = _filled(server, rows)
    with _stub() as address:
        tracemalloc.start()
        try:
            _push(url, address, rows)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()


def _filled(server: embedded.Server, rows: int) -> str:
    url = fresh_database(server, "bench_push")
    payments(url, rows)
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute("vacuum analyze")
    return url
