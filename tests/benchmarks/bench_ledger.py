"""Finance's ledger: import against a raw COPY into the same typed table, comparison against a bare FULL JOIN."""

from __future__ import annotations

import tempfile
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import psycopg

from runner import embedded
from runner.reconciliation.finance_ledger import COLUMNS, import_finance_ledger
from runner.settings import Settings
from runner.systems import SYSTEMS
from tests.benchmarks.harness import Result, fresh_database, paired, seconds, server_cpu

ROWS = 1_000_000
SHA = "a" * 64

_INVOICES = """
    insert into billing.companies (id, name) values (backfill.business_id('c'), 'bench');
    insert into billing.facilities (id, company_id, name)
    values (backfill.business_id('f'), backfill.business_id('c'), 'bench');
    insert into billing.invoices (id, company_id, facility_id, invoice_number, period_start, period_end, status,
        sent_at, due_date, total_cents, currency)
    select gen_random_uuid(), backfill.business_id('c'), backfill.business_id('f'), 'INV-' || lpad(i::text, 8, '0'),
        '2025-01-01', '2025-01-07', 'sent',
        timestamptz '2025-01-08 12:00Z' + (i % 300) * interval '1 day', '2025-03-01',
        100 + i * 7 % 1000000, 'USD'
    from generate_series(1, {rows}) as i;
"""
# One line in 10,000 each: another day, no id, another amount, another status, twice, missing.
_LINES = """
    select row_number() over () as line, 'L-' || invoice_number as ledger_id,
        (sent_at at time zone 'UTC')::date + (n %% 10000 = 1)::int as entry_date,
        'Invoice ' || invoice_number as description, 'R' || n as reference_id, invoice_number,
        case when n %% 10000 <> 2 then id end as invoice_id, total_cents + (n %% 10000 = 3)::int as cents, currency,
        case when n %% 10000 = 4 then 'paid' else status end as status, 'ach' as payment_method,
        (sent_at at time zone 'UTC')::date as paid_at, null as notes
    from (select *, row_number() over () as n from billing.invoices) as i
    cross join lateral generate_series(1, case n %% 10000 when 5 then 2 when 6 then 0 else 1 end)
"""
_BARE_JOIN = """
    insert into bare
    select l.line, l.ledger_id, i.invoice_id, l.invoice_number, i.invoice_number, l.amount_cents, i.cents, l.entry_date,
        i.entry_date, l.status, i.status, l.currency, i.currency
    from (select * from staging.finance_ledger_line where file_sha256 = %s) as l
    full join billing.finance_invoices as i on i.invoice_id = l.invoice_id
"""


def run(server: embedded.Server, *, scale: float, rounds: int) -> Iterator[Result]:
    """Import at most 1.6 of a raw COPY, comparison at most 1.5 of a FULL JOIN written to a table, memory flat."""
    rows = max(1000, int(ROWS * scale))
    url = fresh_database(server, "bench_ledger")
    settings = Settings(conninfo=url, systems=SYSTEMS)
    with tempfile.TemporaryDirectory() as scratch, psycopg.connect(url, autocommit=True) as conn:
        plain, typed = Path(scratch) / "ledger.csv", Path(scratch) / "typed.csv"
        _fill(conn, rows, plain)
        _write(
            conn,
            typed,
            f"select '{SHA}', line + 1, ledger_id, entry_date, description, reference_id, invoice_number, invoice_id,"
            " cents, currency, status, payment_method, paid_at::text || ' 00:00Z', notes"
            f" from ({_LINES.replace('%%', '%')}) as l",
            header=False,
        )
        # Typed values, with nothing left to compute: cents as such, lines numbered in the file.
        conn.execute("create table raw_line (like staging.finance_ledger_line including indexes including storage)")
        conn.execute("alter table raw_line drop column amount")
        yield from _import(server, conn, settings, plain, typed, rounds)
        yield from _compare(conn, settings, plain, rounds)
    yield from _growth(server, rows)


def _fill(conn: psycopg.Connection, rows: int, ledger: Path) -> None:
    conn.execute(_INVOICES.format(rows=rows).encode())
    conn.execute("vacuum analyze billing.invoices")
    _write(conn, ledger, f"select {', '.join(_shown())} from ({_LINES.replace('%%', '%')}) as l", header=True)


def _growth(server: embedded.Server, rows: int) -> Iterator[Result]:
    """Seconds for each line at ten times the lines: linear growth is 1."""
    imported, compared = {}, {}
    for size in (rows, 10 * rows):
        url = fresh_database(server, "bench_ledger")
        with tempfile.TemporaryDirectory() as scratch, psycopg.connect(url, autocommit=True) as conn:
            ledger = Path(scratch) / "ledger.csv"
            _fill(conn, size, ledger)
            conn.execute("checkpoint")
            settings = Settings(conninfo=url, systems=SYSTEMS)
            took = seconds(lambda: import_finance_ledger(settings, ledger))  # noqa: B023
            imported[size] = took / size
            conn.execute("vacuum analyze staging.finance_ledger_line")
            sha = conn.execute("select sha256 from staging.file where loader = 'finance_ledger'").fetchall()[0][0]
            compared[size] = seconds(lambda: _ours(conn, sha)) / size  # noqa: B023
    for name, each in (("ledger import", imported), ("comparison", compared)):
        shown = ", ".join(f"{size:,} in {cost * size:.1f} s" for size, cost in each.items())
        yield Result(f"{name}, cost of each line at ten times as many", each[10 * rows] / each[rows], 1.5, shown)


def _shown() -> Iterator[str]:
    names = {"date": "entry_date", "amount": "(cents / 100.0)::numeric(20, 2)"}
    return (f"{names.get(name, name)} as {name}" for name in COLUMNS)


def _write(conn: psycopg.Connection, file: Path, query: str, *, header: bool) -> None:
    with file.open("wb") as out, conn.cursor() as cursor:
        with cursor.copy(f"copy ({query}) to stdout (format csv{', header' if header else ''})".encode()) as copy:
            for block in copy:
                out.write(block)


def _raw_copy(conn: psycopg.Connection, file: Path) -> None:
    with (
        file.open("rb") as source,
        conn.cursor() as cursor,
        cursor.copy("copy raw_line from stdin (format csv)") as copy,
    ):
        while chunk := source.read(1 << 18):
            copy.write(chunk)


def _forget(conn: psycopg.Connection) -> None:
    """As before the import: the audit of earlier rounds stays, the ledger goes."""
    conn.execute("truncate raw_line, staging.finance_ledger_line")
    conn.execute("delete from staging.file")
    conn.execute("checkpoint")


def _import(
    server: embedded.Server, conn: psycopg.Connection, settings: Settings, plain: Path, typed: Path, rounds: int
) -> Iterator[Result]:
    def ours() -> None:
        import_finance_ledger(settings, plain)

    bare, took, ratio = paired(lambda: _raw_copy(conn, typed), ours, reset=lambda: _forget(conn), rounds=rounds)
    yield Result("ledger import / raw COPY", ratio, 1.6, f"{took:.2f} s / {bare:.2f} s")
    bare, took, ratio = paired(
        lambda: _raw_copy(conn, typed), ours, reset=lambda: _forget(conn), rounds=rounds,
        clock=lambda: server_cpu(server.pid),
    )  # fmt: skip
    yield Result("ledger import / raw COPY, CPU time of the server", ratio, 1.6, f"{took:.2f} s / {bare:.2f} s")
    _forget(conn)
    tracemalloc.start()
    ours()
    peak = tracemalloc.get_traced_memory()[1] / (1 << 20)
    tracemalloc.stop()
    yield Result("memory of Python while importing, MB", peak, 10, f"{plain.stat().st_size >> 20} MB file")


def _compare(conn: psycopg.Connection, settings: Settings, plain: Path, rounds: int) -> Iterator[Result]:
    row = conn.execute("select sha256 from staging.file where loader = 'finance_ledger'").fetchone()
    assert row is not None
    sha = row[0]
    conn.execute("vacuum analyze staging.finance_ledger_line")

    def bare() -> None:
        with conn.transaction(force_rollback=True):
            conn.execute(
                "create temp table bare (line bigint, ledger_id text, id uuid, n1 text, n2 text, c1 bigint, c2 bigint,"
                " d1 date, d2 date, s1 text, s2 text, y1 text, y2 text) on commit drop"
            )
            conn.execute("set local jit = off")
            conn.execute(_BARE_JOIN, [sha])

    one, two, ratio = paired(bare, lambda: _ours(conn, sha), reset=lambda: None, rounds=rounds)
    yield Result("comparison / bare FULL JOIN written to a table", ratio, 1.5, f"{two:.2f} s / {one:.2f} s")


def _ours(conn: psycopg.Connection, sha: str) -> None:
    with conn.transaction(force_rollback=True):
        conn.execute("select staging.begin_comparison()")
        conn.execute("select * from staging.compare_finance_ledger(%s)", [sha]).fetchall()
