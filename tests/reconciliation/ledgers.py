"""A ledger's lines and the invoices, written for a test, and their comparison."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from uuid import UUID

import psycopg

from runner.money import NO_CURRENCY, Money, add_money

SHA = "f" * 64
CLASSES = (
    "identical", "matched by number only", "no receivable", "number differs", "currency differs", "amount differs",
    "date differs", "status differs", "missing in the database", "missing in the ledger", "duplicate key",
)  # fmt: skip
DAY = date(2026, 1, 31)
NOT_IDENTICAL = set(CLASSES) - {"identical"}


@dataclass(frozen=True)
class Entry:
    """A ledger line or an invoice. `id` is its place in IDS (a line's may be one that no invoice has), or none."""

    id: int | None
    number: str | None
    cents: int = 1000
    day: int = 1
    status: str = "sent"
    currency: str | None = "USD"
    company: int = 0


def id_of(entry: Entry) -> UUID | None:
    return None if entry.id is None else UUID(int=(8 << 76) + entry.id + 1)


def put(conn: psycopg.Connection, lines: Iterable[Entry], invoices: Iterable[Entry]) -> None:
    """Stage the lines as one loaded file, in order, from line 2, and write the invoices."""
    conn.execute("select backfill.begin_run('load finance_ledger', p_mode => 'load')")
    conn.execute("insert into staging.file select 'finance_ledger', %s, 'ledger.csv', 1, backfill.open_run()", [SHA])
    conn.cursor().executemany(
        "insert into staging.finance_ledger_line (file_sha256, line, ledger_id, entry_date, invoice_number, invoice_id,"
        " amount, currency, status) values (%s, %s, %s, %s, %s, %s, %s::numeric / 100, %s, %s)",
        [
            (SHA, n, f"L-{n}", date(2026, 1, e.day), e.number, id_of(e), e.cents, e.currency, e.status)
            for n, e in enumerate(lines, start=2)
        ],
    )
    conn.execute("select backfill.seal_rows('staging.finance_ledger_line', %s)", [SHA])
    conn.execute("select backfill.finish_run()")
    write_invoices(conn, invoices)


def write_invoices(conn: psycopg.Connection, invoices: Iterable[Entry]) -> None:
    invoices = list(invoices)
    for company in {entry.company for entry in invoices}:
        conn.execute("insert into billing.companies (id, name) values (%s, %s)", [UUID(int=company), f"C{company}"])
        conn.execute(
            "insert into billing.facilities (id, company_id, name) values (%s, %s, 'F')",
            [UUID(int=company), UUID(int=company)],
        )
    conn.cursor().executemany(
        "insert into billing.invoices (id, company_id, facility_id, invoice_number, period_start, period_end, status,"
        " sent_at, due_date, total_cents, currency) values (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
        [
            (id_of(e), UUID(int=e.company), UUID(int=e.company), e.number, DAY, DAY, e.status,
             f"2026-01-{e.day:02} 12:00Z", DAY, e.cents, e.currency)
            for e in invoices
        ],
    )  # fmt: skip


def money_of(entries: Iterable[Entry]) -> Money:
    """What they are worth, by currency."""
    return add_money({}, *({entry.currency or NO_CURRENCY: entry.cents} for entry in entries)) or {}


def compare(
    conn: psycopg.Connection, tolerance: Decimal | int = 0, *scope: object
) -> dict[str, tuple[int, Money, int, Money]]:
    """Compare in a read-only subtransaction: class to (lines, their money, invoices, their money)."""
    conn.execute("select staging.begin_comparison()")
    asked = [SHA, Decimal(tolerance), *scope, *[None] * (4 - len(scope))]
    with conn.transaction():
        conn.execute("set transaction read only")
        found = conn.execute("select * from staging.compare_finance_ledger(%s, %s, %s, %s, %s, %s)", asked).fetchall()
    return {row[0]: row[1:5] for row in found}


def of(totals: dict[str, tuple[int, Money, int, Money]]) -> dict[str, tuple[int, int]]:
    """Lines and invoices of the classes that hold any."""
    return {name: (t[0], t[2]) for name, t in totals.items() if t[0] or t[2]}
