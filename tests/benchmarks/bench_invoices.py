"""100,000 invoices of 5 lines through load and apply against bare SQL, and 10,000 checks allocated."""

from __future__ import annotations

import datetime as dt
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg

from runner import embedded
from runner.apply import Plan, apply
from runner.invoices.load import load_invoices
from runner.settings import Settings
from runner.systems import SYSTEMS
from tests.benchmarks.harness import Result, fresh_database

INVOICES, LINES, CHECKS = 100_000, 5, 10_000


def run(server: embedded.Server, *, scale: float = 1.0, rounds: int = 5) -> Iterator[Result]:
    """The ratio of one whole way, and how allocation grows; `rounds` is not used: each way is long enough."""
    del rounds
    count = max(100, int(INVOICES * scale))
    with tempfile.TemporaryDirectory() as name:
        catalogue, lines = _files(Path(name), count)
        url = fresh_database(server, "invoices_bare")
        staged, written = _bare(url, catalogue, lines)
        url = fresh_database(server, "invoices_runner")
        _application(url)
        settings = Settings(conninfo=url, systems=SYSTEMS, tables={"invoices": {"date_order": "mdy"}})
        started = time.perf_counter()
        load_invoices(settings, catalogue, lines=lines)
        loaded = time.perf_counter() - started
        rehearsed = 0.0

        def confirm(_: object) -> bool:
            nonlocal rehearsed
            rehearsed = time.perf_counter() - started - loaded
            return True

        report = apply(settings, Plan(backfills=("invoices",)), confirm=confirm, progress=lambda _: None)
        whole = time.perf_counter() - started
        assert report.exit_code == 0, report.verdict
        for path, row in (
            (catalogue, "INV-9999999,F1,2024-01-01,2024-01-07,2024-01-09,2024-01-20,1.00"),
            (lines, "INV-9999999,More,1.00"),
        ):
            path.write_text(path.read_text() + row + "\n")
        started = time.perf_counter()
        load_invoices(settings, catalogue, lines=lines)
        again = time.perf_counter() - started
    # An apply begins with its rehearsal: the limit is for both. The other lines only tell things apart.
    bare = staged + written
    yield Result(
        f"invoices: load and apply of {count:,} of {LINES} lines ÷ bare COPY and INSERT … SELECT of the same rows",
        whole / bare, 3.0, f"{whole:.1f} s (load {loaded:.1f}, rehearsal {rehearsed:.1f}) ÷ {bare:.1f} s",
    )  # fmt: skip
    yield Result("invoices: the same without the rehearsal", (whole - rehearsed) / bare, None,
                 f"{whole - rehearsed:.1f} s")  # fmt: skip
    yield Result("invoices: load and apply ÷ bare, staging in tables of the session that are not kept", whole / written,
                 None, f"{written:.1f} s")  # fmt: skip
    yield Result("invoices: load of the same catalogue one row longer ÷ its first load", again / loaded, 1.5,
                 f"{again:.1f} s ÷ {loaded:.1f} s")  # fmt: skip
    few, many = (_allocate(url, max(20, int(CHECKS * scale)) // part) for part in (4, 1))
    yield Result(
        f"checks: time each at {max(20, int(CHECKS * scale)):,} ÷ time each at a quarter of them",
        many / few, 1.5, f"{many * 1e6:.0f} µs ÷ {few * 1e6:.0f} µs a check",
    )  # fmt: skip


def _files(folder: Path, count: int) -> tuple[Path, Path]:
    catalogue, lines = folder / "catalogue.csv", folder / "lines.csv"
    with catalogue.open("w") as one, lines.open("w") as two:
        one.write("Number,Client,From,To,Date,Due,Total\n")
        two.write("Number,Description,Amount\n")
        for n in range(1, count + 1):
            start, *others = (dt.date(1990, 1, 1) + dt.timedelta(days=n // 100 * 8 + days) for days in (0, 7, 9, 23))
            one.write(f"INV-{n:06},F{n % 100},{start},{','.join(map(str, others))},500.00\n")
            for place in range(LINES):
                two.write(f"INV-{n:06},Nights {place},100.00\n")
    return catalogue, lines


def _application(url: str) -> None:
    with psycopg.connect(url) as conn:
        conn.execute("insert into billing.companies (name) values ('Example')")
        conn.execute("insert into billing.settings (company_id) select id from billing.companies")
        conn.execute(
            "insert into billing.facilities (company_id, name) select id, 'F' || n from billing.companies,"
            " generate_series(0, 99) as n"
        )


_BARE_STAGING = """
    insert into staging.invoices (invoice_id, company_id, invoice_number, facility_id, period_start, period_end,
        sent_at, due_date, total_cents, actor, currency)
    select gen_random_uuid(), f.company_id, c.number, f.id, c.period_start, c.period_end, c.sent_on, c.due_date,
        c.total * 100, 'bare', 'USD'
    from c join billing.facilities as f on f.name = c.client;
    insert into staging.invoice_lines (company_id, invoice_number, line_no, description, amount_cents, currency)
    select s.company_id, l.number, row_number() over (partition by l.number), l.description, l.amount * 100, 'USD'
    from l join staging.invoices as s on s.invoice_number = l.number
"""
_BARE = """
    insert into billing.invoices (company_id, facility_id, invoice_number, period_start, period_end, status,
        sent_at, due_date, total_cents, origin)
    select f.company_id, f.id, c.number, c.period_start, c.period_end, 'sent', c.sent_on, c.due_date,
        c.total * 100, 'backfill'
    from c join billing.facilities as f on f.name = c.client;
    insert into billing.invoice_lines (company_id, invoice_id, line_no, description, amount_cents)
    select i.company_id, i.id, row_number() over (partition by l.number), l.description, l.amount * 100
    from l join billing.invoices as i on i.invoice_number = l.number
"""


def _bare(url: str, catalogue: Path, lines: Path) -> tuple[float, float]:
    """The same rows into the same tables, which nobody watches. Seconds for staging, and for the rest with the COPY."""
    _application(url)
    with psycopg.connect(url) as conn:
        for table in ("staging.invoices", "staging.invoice_lines", "billing.invoices", "billing.invoice_lines"):
            conn.execute("select backfill.untrack(%s::regclass)", [table])
        conn.commit()
        started = time.perf_counter()
        conn.execute(
            "create temporary table c (number text, client text, period_start date, period_end date, sent_on date,"
            " due_date date, total numeric)"
        )
        conn.execute("create temporary table l (number text, description text, amount numeric)")
        for table, path in (("c", catalogue), ("l", lines)):
            with conn.cursor().copy(f"copy {table} from stdin (format csv, header)") as copy:
                with path.open("rb") as file:
                    while chunk := file.read(1 << 18):
                        copy.write(chunk)
        copied = time.perf_counter()
        conn.execute(_BARE_STAGING)
        staged = time.perf_counter() - copied
        conn.execute(_BARE)
        conn.commit()
        return staged, time.perf_counter() - started - staged


def _allocate(url: str, count: int) -> float:
    """Seconds a check for `count` checks of one facility each naming one of its invoices, rolled back."""
    with psycopg.connect(url) as conn:
        conn.execute("analyze billing.invoices")
        conn.execute(
            "update billing.invoices set facility_id = (select min(id::text)::uuid from billing.facilities),"
            " period_start = date '1990-01-01' + n::int, period_end = date '1990-01-01' + n::int from (select id as i,"
            " row_number() over (order by invoice_number) as n from billing.invoices order by invoice_number limit %s)"
            " as x where id = x.i",
            [count],
        )
        conn.execute(
            "insert into billing.check_payments (company_id, facility_id, check_number, received_on, amount_cents,"
            " ocr_invoice_refs) select company_id, facility_id, invoice_number, '2024-01-01', 40000,"
            " array[invoice_number] from billing.invoices"
            " where facility_id = (select min(id::text)::uuid from billing.facilities)"
            " and period_start = period_end limit %s",
            [count],
        )
        conn.execute("analyze billing.check_payments")
        started = time.perf_counter()
        conn.execute("select count(*) from billing.allocate_checks()")
        seconds = time.perf_counter() - started
        conn.rollback()
    return seconds / count
