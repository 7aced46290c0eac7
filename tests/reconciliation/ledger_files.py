"""Finance's ledger as a file for a test, and what came of it in staging."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import psycopg

from runner.reconciliation.finance_ledger import COLUMNS
from runner.settings import Settings

HEADER = ",".join(COLUMNS)
UUID = "8a6e0804-2bd0-4672-b79d-d97027f9071a"
INSERT_RAW = (
    f"insert into staging.finance_ledger_raw ({', '.join(COLUMNS)}) values ({', '.join(['%s'] * len(COLUMNS))})"
).encode()
FAULTS = "select staging.finance_ledger_fault(r) from staging.finance_ledger_raw as r"


def line(**fields: str) -> str:
    """One CSV line; fields that are not given are those of a good one."""
    good = {"ledger_id": "L-1", "date": "2026-01-31", "amount": "1234.56", "currency": "USD", "status": "sent"}
    row = {**dict.fromkeys(COLUMNS, ""), **good, **fields}
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerow([row[name] for name in COLUMNS])
    return out.getvalue().removesuffix("\n")


def write(path: Path, *lines: str, header: str = HEADER, end: str = "\n") -> Path:
    path.write_bytes((end.join([header, *lines]) + end).encode())
    return path


def staged(settings: Settings) -> list[tuple[object, ...]]:
    with psycopg.connect(settings.conninfo) as conn:
        return conn.execute(
            "select line, ledger_id, entry_date::text, invoice_number, amount_cents, currency, status,"
            " (paid_at at time zone 'UTC')::text from staging.current_finance_ledger order by line"
        ).fetchall()


def rejected(settings: Settings) -> list[tuple[object, ...]]:
    with psycopg.connect(settings.conninfo) as conn:
        return conn.execute("select line, reason, amount from backfill.reject order by line").fetchall()


def nothing_is_left(settings: Settings) -> bool:
    with psycopg.connect(settings.conninfo) as conn:
        row = conn.execute(
            "select (select count(*) from staging.finance_ledger_line) + (select count(*) from staging.file)"
            " + (select count(*) from staging.finance_ledger_raw) + (select count(*) from backfill.reject)"
            " + (select count(*) from backfill.backfill_log)"
        ).fetchone()
    return row == (0,)


BAD = {
    "ledger_id": ["", "  "],
    "date": ["", "31.01.2026", "01/02/2026", "2026-1-5", "2026-02-30", "0000-01-01", "now", "infinity", "2026-01-31 x"],
    "amount": ["", "1.234,56", "1,234.56", "12.345", "1e3", "NaN", "Infinity", "+5", "$5", "5.", ".5", "0x10", "1 0",
               "9" * 16, "9" * 15],
    "currency": ["", "US", "EURO", "€"],
    "status": ["", " "],
    "invoice_id": ["17", UUID.replace("-", ""), "{" + UUID + "}", "8a6e-08042bd04672b79d-d97027f9-071a-x"],
    "paid_at": ["2026-02-01 10:00", "2026-02-30", "yesterday", "2026-02-01 25:00Z", "01.02.2026"],
}  # fmt: skip
