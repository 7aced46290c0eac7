# ruff: noqa: E501 - the SQL of the books is easier to read as it is
"""Receivables over 100,000 invoices with 300,000 applications, and allocations and links beside them.

The tables carry dead rows and statistics from before they were filled, as on the evening of a large load.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import psycopg

from runner import embedded
from tests.benchmarks.harness import Result, fresh_database

INVOICES, CHECKS, PAYMENTS = 100_000, 10_000, 10_000

_BOOKS = """
    insert into billing.companies (name) values ('Example');
    insert into billing.settings (company_id) select id from billing.companies;
    insert into billing.facilities (company_id, name) select id, 'F' || n from billing.companies, generate_series(1, 1000) as n;
    insert into billing.customers (company_id, name) select id, 'C' || n from billing.companies, generate_series(1, 1000) as n;
    analyze billing.invoices, billing.check_payments, billing.check_payment_applications, billing.application_entries,
        billing.payments;
    insert into billing.invoices (company_id, facility_id, customer_id, invoice_number, period_start, period_end, status,
        sent_at, due_date, total_cents, amount_paid_cents)
    select f.company_id, f.id, c.id, 'INV-' || lpad(n::text, 7, '0'), date '2020-01-01' + n % 1500, date '2020-01-07' + n % 1500,
        'partial', date '2020-01-09' + n % 1500, date '2020-02-09' + n % 1500, 100000 + n, 30000
    from generate_series(1, %(invoices)s) as n
    join billing.facilities as f on f.name = 'F' || n % 1000 + 1
    join billing.customers as c on c.name = 'C' || n % 1000 + 1;
    insert into billing.check_payments (company_id, facility_id, check_number, received_on, amount_cents)
    select company_id, facility_id, invoice_number || '/' || k, period_end + 20 * k, 10000
    from billing.invoices, generate_series(1, 2) as k;
    insert into billing.check_payment_applications (company_id, check_payment_id, invoice_id, amount_cents)
    select c.company_id, c.id, i.id, 10000
    from billing.check_payments as c join billing.invoices as i on i.invoice_number = split_part(c.check_number, '/', 1);
    insert into billing.payments (company_id, customer_id, amount_cents, currency, status, reference, paid_at)
    select company_id, customer_id, 10000, 'USD', 'succeeded', 'paid for ' || invoice_number, period_end + 30
    from billing.invoices;
    insert into billing.application_entries (id, company_id, source, source_id, invoice_id, amount_cents, currency, effective_from, reason)
    select gen_random_uuid(), p.company_id, 'payment', p.id, i.id, 10000, 'USD', p.paid_at::date, 'as it was'
    from billing.payments as p join billing.invoices as i on i.invoice_number = split_part(p.reference, ' ', 3);
    update billing.invoices set due_date = due_date + 1;  -- every row of it has a dead one beside it
"""
_NEW_CHECKS = """
    insert into billing.check_payments (company_id, facility_id, check_number, received_on, amount_cents, ocr_invoice_refs)
    select company_id, facility_id, 'new ' || invoice_number, '2024-06-01', 5000, array[invoice_number]
    from billing.invoices order by invoice_number limit %(checks)s
"""
_NEW_PAYMENTS = """
    insert into billing.payments (company_id, customer_id, amount_cents, currency, status, reference, paid_at)
    select company_id, customer_id, 5000, 'USD', 'succeeded', 'for ' || invoice_number, '2024-06-01'
    from billing.invoices order by invoice_number desc limit %(payments)s
"""


def run(server: embedded.Server, *, scale: float = 1.0, rounds: int = 5) -> Iterator[Result]:
    """Seconds to read what is owed, and per check and payment; the limits are absolute where the issue names a time."""
    count = max(1_000, int(INVOICES * scale))
    url = fresh_database(server, "receivables")
    with psycopg.connect(url) as conn:
        for statement in _BOOKS.split(";\n"):
            if statement.strip():
                conn.execute(statement.replace("%(invoices)s", str(count)).encode())
        conn.commit()

        def read(query: str) -> float:
            best = 60.0
            for _ in range(rounds):
                started = time.perf_counter()
                conn.execute(query.encode())
                best = min(best, time.perf_counter() - started)
                conn.rollback()
            return best

        all_of_them = read("select sum(open_cents), count(*) from billing.receivables")
        yield Result(
            f"receivables: {count:,} invoices, {3 * count:,} applications, dead rows, old statistics", all_of_them, 1.0,
            f"{all_of_them:.2f} s",
        )  # fmt: skip
        per_check = []
        for checks in (int(CHECKS * scale) // 4, int(CHECKS * scale)):
            conn.execute(_NEW_CHECKS.replace("%(checks)s", str(checks)).encode())
            started = time.perf_counter()
            conn.execute("select count(*) from billing.allocate_checks()")
            per_check.append((time.perf_counter() - started) / checks)
            conn.rollback()
        yield Result(
            f"receivables: a check among {int(CHECKS * scale):,} of 1,000 facilities ÷ one among a quarter of them",
            per_check[1] / per_check[0], 1.3, f"{per_check[1] * 1000:.2f} ms ÷ {per_check[0] * 1000:.2f} ms",
        )  # fmt: skip
        payments = int(PAYMENTS * scale)
        conn.execute(_NEW_PAYMENTS.replace("%(payments)s", str(payments)).encode())
        started = time.perf_counter()
        conn.execute("select * from backfill.run('payment_links', '{}', 1000000)")
        took = time.perf_counter() - started
        conn.rollback()
        yield Result(
            f"receivables: {payments:,} payments that name their invoices, linked as a run", took, None, f"{took:.1f} s"
        )
