"""The whole verb: `runner apply charges`, rehearsed twice and applied, on a database that keeps the dead rows of each.

In CPU time of the server with all its processes, and of the runner, against the bare statement in the same database;
other work on the machine leaves that alone, and the clock's time stands beside it.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg

from runner import embedded
from tests.benchmarks.bench_engine import BARE_INSERT
from tests.benchmarks.bench_runner import RUNNER
from tests.benchmarks.harness import Result, fresh_database, server_cpu

PAYMENTS = 1_000_000
UNITS = 500

# Each payment has a period of its own: as many charges as payments. What the planner knows is from before the run.
FILL = """
    insert into property.units (rent_amount_cents) select 100000 + g from generate_series(1, %(units)s) as g;
    insert into property.payments (tenant_user_id, unit_id, amount_cents, payment_method, status, billing_period)
    select 't' || u.id, u.id, u.rent_amount_cents, 'ach', 'succeeded',
        to_char(date '2019-01-01' + m * interval '1 month', 'YYYY-MM')
    from property.units as u cross join generate_series(0, %(payments)s / %(units)s - 1) as m;
    analyze property.units, property.payments, property.charges;
"""


@dataclass(frozen=True, slots=True)
class Spent:
    """What something took: CPU seconds of the server and of what was started, and seconds by the clock."""

    cpu: float
    wall: float


def run(server: embedded.Server, *, scale: float, rounds: int) -> Iterator[Result]:
    """A million payments, and a tenth of them for the growth; `scale` is a fraction of that."""
    each = {}
    for payments in (int(PAYMENTS * scale / 10), int(PAYMENTS * scale)):
        url = fresh_database(server, "verb")
        with psycopg.connect(url, autocommit=True) as conn:
            for statement in FILL.split(";"):
                if statement.strip():
                    conn.execute(statement, {"payments": payments, "units": UNITS})
            bare = _bare(server, conn, rounds)
        # Up to 100,000 rows the rehearsal proves the undo by itself: the growth would flatter the larger run.
        verb = ("apply", "charges", "--no-prove-undo")
        rehearsal, again = (_runner(server, url, *verb, "--dry-run") for _ in range(2))
        whole = _runner(server, url, *verb, "--yes")
        each[payments] = whole.cpu / payments
        # The runner's own second is a tenth of what a small database takes.
        limits = (2.5, 5.0) if payments == PAYMENTS else (None, None)
        lines = (
            (f"dry run of {payments:,} payments, CPU / bare insert … select", rehearsal, bare, limits[0]),
            ("the second dry run, on the dead rows of the first, CPU / first", again, rehearsal, 1.2),
            (f"whole apply of {payments:,} payments, rehearsal included, CPU / bare", whole, bare, limits[1]),
        )
        for name, ours, other, limit in lines:
            shown = f"{other.cpu:.1f} s, {ours.cpu:.1f} s; by the clock {other.wall:.1f} s, {ours.wall:.1f} s"
            yield Result(name, ours.cpu / other.cpu, limit, shown)
    fewer, more = sorted(each)
    yield Result(f"whole apply, cost of each payment at {more:,} against {fewer:,}", each[more] / each[fewer], 1.25,
                 ", ".join(f"{count:,}: {cost * 1e6:.0f} µs each" for count, cost in each.items()))  # fmt: skip


def _bare(server: embedded.Server, conn: psycopg.Connection, rounds: int) -> Spent:
    """The bare statement, its unique index there and no trigger; rolled back, and its dead rows taken away."""
    conn.execute("select backfill.untrack('property.charges')")

    def insert() -> None:
        with conn.transaction(force_rollback=True):
            conn.execute(BARE_INSERT)

    tries = []
    for _ in range(max(rounds, 2)):
        tries.append(_spent(server, insert))
        conn.execute("truncate property.charges")
    conn.execute("select backfill.track('property.charges')")
    conn.execute("checkpoint")
    return Spent(statistics.median(spent.cpu for spent in tries[1:]), statistics.median(s.wall for s in tries[1:]))


def _runner(server: embedded.Server, url: str, *words: str) -> Spent:
    """A verb as a person starts it, with the systems that its backfill needs."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        config = Path(folder) / "runner.toml"
        config.write_text('systems = ["charges"]\n', encoding="utf-8")
        environment = os.environ | {"DATABASE_URL": url, "RUNNER_CONFIG": str(config)}
        return _spent(
            server,
            lambda: subprocess.run([*RUNNER, *words], env=environment, capture_output=True, check=True),
        )


def _spent(server: embedded.Server, action: Callable[[], object]) -> Spent:
    before, started, children = server_cpu(server.pid), time.perf_counter(), os.times()
    action()
    wall, ended = time.perf_counter() - started, os.times()
    own = ended.children_user + ended.children_system - children.children_user - children.children_system
    return Spent(server_cpu(server.pid) - before + own, wall)
