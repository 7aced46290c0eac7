"""The runner itself: the start of the command line, its own time around the SQL, its memory."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg

from runner import embedded
from tests.benchmarks.bench_engine import fill
from tests.benchmarks.harness import Result, fresh_database, peak_memory, seconds

RUNNER = [str(Path(sys.executable).with_name("runner"))]


def run(server: embedded.Server, *, scale: float, rounds: int) -> Iterator[Result]:
    """Whole processes, as a person starts them."""
    subprocess.run([*RUNNER, "--help"], stdout=subprocess.DEVNULL, check=True)
    times = [
        seconds(lambda: subprocess.run([*RUNNER, "--help"], stdout=subprocess.DEVNULL, check=True)) for _ in range(9)
    ]
    yield Result("runner --help, seconds", statistics.median(times), 0.3, f"median of {len(times)}")

    own = []
    for _ in range(rounds + 1):
        url = fresh_database(server, "own")
        with psycopg.connect(url, autocommit=True) as conn:
            fill(conn, 1000)
        started = time.perf_counter()
        report = json.loads(_apply(url))
        whole = time.perf_counter() - started
        inside = report["rehearsal_seconds"] + report["attempt"]["seconds"]
        own.append((whole - inside, whole, inside))
    rest, whole, inside = sorted(own[1:])[len(own[1:]) // 2]
    yield Result("the runner's own time around the SQL of an apply, seconds", rest, 1.5,
                 f"{whole:.2f} s in all, {inside:.2f} s in the two transactions; gates' cache warm")  # fmt: skip

    for payments in (int(100_000 * scale), int(1_000_000 * scale)):
        url = fresh_database(server, "memory")
        with psycopg.connect(url, autocommit=True) as conn:
            fill(conn, payments)
        for words in (["apply", "--yes"], ["log", "--all"]):
            if words[0] == "log":
                with psycopg.connect(url) as conn:
                    row = conn.execute("select run_id::text from backfill.backfill_log").fetchone()
                    assert row is not None
                    words = ["log", row[0], "--all", "--json"]
            peak = _peak(url, words) / 1024**2
            yield Result(f"memory of runner {words[0]}, {payments:,} payments, MB", peak, 150, "largest resident size")


def _apply(url: str) -> bytes:
    return subprocess.run([*RUNNER, "apply", "--yes", "--json"], env=os.environ | {"DATABASE_URL": url},
                          stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True).stdout  # fmt: skip


def _peak(url: str, words: list[str]) -> int:
    """The largest resident size of the process, looked at until it ends."""
    process = subprocess.Popen([*RUNNER, *words], env=os.environ | {"DATABASE_URL": url},
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
    peak = 0
    ended = threading.Event()

    def look() -> None:
        nonlocal peak
        while not ended.is_set():
            try:
                peak = max(peak, peak_memory(process.pid))
            except OSError:
                return
            time.sleep(0.05)

    watcher = threading.Thread(target=look)
    watcher.start()
    code = process.wait()
    ended.set()
    watcher.join()
    if code:
        raise RuntimeError(f"runner {' '.join(words)} ended with {code}")
    return peak
