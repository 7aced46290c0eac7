"""The engine: audited writes, tracking without a run, reversal; each against the bare statement."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import psycopg

from runner import embedded
from tests.benchmarks.harness import Result, fresh_database, ratio, seconds

PAYMENTS = 1_000_000

# A fortieth as many flats as payments, three years: about 54 of 100 payments have a period of their own.
FILL = """
    insert into property.units (id, rent_amount_cents)
    select md5(i::text)::uuid, case when i %% 10 = 0 then null else 100000 + i end
    from generate_series(1, greatest(%(payments)s / 50, 1)) as i;
    insert into property.payments (tenant_user_id, unit_id, amount_cents, payment_method, status, billing_period)
    select 'tenant-' || u, md5(u::text)::uuid, 90000 + (i %% 1000), 'ach', 'succeeded',
        to_char(date '2020-01-01' + make_interval(months => m), 'YYYY-MM')
    from (
        select i, 1 + (hashint8(i)::bigint & 2147483647) %% greatest(%(payments)s / 50, 1) as u,
            ((hashint8(i * 7 + 1)::bigint & 2147483647) %% 36)::integer as m
        from generate_series(1, %(payments)s) as i
    ) as x;
"""

BARE_INSERT = """
    insert into property.charges (tenant_user_id, unit_id, type, description, amount_cents, billing_period)
    select p.tenant_user_id, p.unit_id, 'rent', 'Rent for ' || p.billing_period,
        coalesce(max(u.rent_amount_cents), max(p.amount_cents)), p.billing_period
    from property.payments as p join property.units as u on u.id = p.unit_id
    where p.status in ('succeeded', 'pending')
    group by p.tenant_user_id, p.unit_id, p.billing_period
    on conflict do nothing
"""

AUDITED_INSERT = """
    select backfill.start_run('charges', '{}', '{}', 'apply', null, false, null);
    select backfill.charges();
    select backfill.finish_run();
"""

UPDATE = "update property.charges set amount_cents = amount_cents + 1"
AUDITED_UPDATE = f"select backfill.begin_run('bench'); {UPDATE}; select backfill.finish_run();"


def fill(conn: psycopg.Connection, payments: int) -> None:
    """Units and payments of an application, without any audit."""
    for statement in FILL.split(";"):
        if statement.strip():
            conn.execute(statement, {"payments": payments})
    conn.execute("vacuum analyze property.units, property.payments")


def run(server: embedded.Server, *, scale: float, rounds: int) -> Iterator[Result]:
    """Ratios of issue 'the main job'; `scale` is a fraction of a million payments."""
    payments = int(PAYMENTS * scale)
    with psycopg.connect(fresh_database(server, "engine"), autocommit=True) as conn:
        fill(conn, payments)

        def reset() -> None:
            conn.execute("truncate property.charges")
            conn.execute("checkpoint")

        def untracked() -> None:
            _untracked(conn, lambda: conn.execute(BARE_INSERT))

        def audited() -> None:
            with conn.transaction():
                conn.execute(AUDITED_INSERT)

        yield ratio(f"charges of {payments:,} payments, audited run / bare insert", 1.25, untracked, audited,
                    reset=reset, rounds=rounds)  # fmt: skip
        yield from _reversals(conn, reset, audited, rounds)
        yield from _updates(conn, int(PAYMENTS * scale), reset, rounds)
        yield _single_rows(conn, reset, rounds)
    yield _growth(server, scale)


def _reversals(conn: psycopg.Connection, reset: object, audited: object, rounds: int) -> Iterator[Result]:
    """Undoing the inserts against making them."""
    assert callable(reset)
    assert callable(audited)
    ratios = []
    for _ in range(rounds):
        reset()
        conn.execute("vacuum property.charges")
        made = seconds(audited)
        conn.execute("vacuum analyze property.charges")
        ratios.append((made, seconds(lambda: _reverse(conn))))
    made, undone = sorted(ratios, key=lambda pair: pair[1] / pair[0])[len(ratios) // 2]
    yield Result(
        "reversal of inserts / audited run", undone / made, 0.5, f"{made:.2f} s apply, {undone:.2f} s reversal"
    )


def _reverse(conn: psycopg.Connection) -> None:
    with conn.transaction():
        conn.execute(
            "select count(*) from backfill.reverse_run((select run_id from backfill.backfill_log"
            " where mode <> 'reversal' and status = 'succeeded' order by started_at desc limit 1))"
        )


def _updates(conn: psycopg.Connection, rows: int, reset: object, rounds: int) -> Iterator[Result]:
    """An UPDATE of a million charges, audited and bare, and its undoing."""
    assert callable(reset)
    reset()
    conn.execute(
        "insert into property.charges (tenant_user_id, unit_id, type, description, amount_cents, billing_period)"
        " select 'tenant-' || i, (select id from property.units limit 1), 'one_time', 'Charge ' || i, 100000,"
        " '2024-01' from generate_series(1, %s) as i",
        [rows],
    )

    def clean() -> None:
        conn.execute("vacuum full property.charges")
        conn.execute("analyze property.charges")
        conn.execute("checkpoint")

    def bare() -> None:
        _untracked(conn, lambda: conn.execute(UPDATE))

    def audited() -> None:
        with conn.transaction():
            conn.execute(AUDITED_UPDATE)

    yield ratio(f"UPDATE of {rows:,} rows, audited / bare", 1.4, bare, audited, reset=clean, rounds=rounds)
    pairs = []
    for _ in range(rounds):
        clean()
        made = seconds(audited)
        conn.execute("vacuum analyze property.charges")
        pairs.append((made, seconds(lambda: _reverse(conn))))
    made, undone = sorted(pairs, key=lambda pair: pair[1] / pair[0])[len(pairs) // 2]
    yield Result(
        "reversal of updates / audited UPDATE", undone / made, 1.0, f"{made:.2f} s apply, {undone:.2f} s reversal"
    )


def _single_rows(conn: psycopg.Connection, reset: object, rounds: int) -> Result:
    """Single-row inserts with synchronous commits, tracked but outside a run."""
    assert callable(reset)
    unit = conn.execute("select id from property.units limit 1").fetchone()
    assert unit is not None
    insert = (
        "insert into property.charges (tenant_user_id, unit_id, type, description, amount_cents, billing_period)"
        " values ('t', %s, 'one_time', 'd', 1, '2024-01')"
    )

    def many() -> None:
        for _ in range(4000):
            conn.execute(insert, unit)

    def bare() -> None:
        _untracked(conn, many)

    return ratio("single-row inserts, tracked but no run open / untracked", 1.08, bare, many, reset=reset,
                 rounds=max(rounds, 7))  # fmt: skip


def _growth(server: embedded.Server, scale: float) -> Result:
    """Seconds for each payment at the largest size against the smallest: linear growth is 1."""
    each = {}
    for payments in (int(100_000 * scale), int(1_000_000 * scale), int(5_000_000 * scale)):
        with psycopg.connect(fresh_database(server, "growth"), autocommit=True) as conn:
            fill(conn, payments)
            conn.execute("checkpoint")
            with conn.transaction():
                each[payments] = seconds(lambda: conn.execute(AUDITED_INSERT)) / payments
    smallest, largest = min(each), max(each)
    shown = ", ".join(f"{count:,}: {cost * 1e6:.1f} µs each" for count, cost in each.items())
    return Result("growth from 100 k to 5 M payments, cost of each", each[largest] / each[smallest], 1.5, shown)


def _untracked(conn: psycopg.Connection, action: Callable[[], object]) -> None:
    """The bare half, without any trigger: one that is only disabled still makes the server keep old and new rows."""
    conn.execute("select backfill.untrack('property.charges')")
    try:
        action()
    finally:
        conn.execute("select backfill.track('property.charges')")
