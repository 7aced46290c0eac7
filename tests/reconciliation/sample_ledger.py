"""The sample of system 4: a billing database and Finance's ledger with planted defects, made the same every time.

`python -m tests.reconciliation.sample_ledger` writes both to runner/reconciliation/sample; a test proves that they
are these.
"""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass, replace
from datetime import date, timedelta
from typing import Final
from uuid import UUID

from runner.reconciliation.finance_ledger import COLUMNS
from tests.place import ROOT

FOLDER: Final = ROOT / "runner" / "reconciliation" / "sample"
COMPANY: Final = UUID(int=0x5)
CUSTOMERS: Final = ("Alder", "Birch", "Cedar", "Dogwood", "Elm")
PLANTED: Final = {
    "number differs": 3,
    "currency differs": 3,
    "amount differs": 3,
    "date differs": 3,
    "status differs": 3,
    "missing in the database": 3,
    "missing in the ledger": 4,
    "duplicate key": 3,
    "matched by number only": 4,
    "no receivable": 3,
}
"""Class to rows. One whose amount differs has another status, too: its class is the first of both."""
PASSES: Final = ("matched by number only", "no receivable")
IDENTICAL: Final = 30
PARTS: Final = 4
"""Of the identical ones so many are two lines in the ledger, which make the invoice together."""


@dataclass(frozen=True)
class Invoice:
    """An invoice, or the ledger's line of it. Cents; `plant` is the class that it is meant to end in."""

    number: str
    id: UUID | None
    day: date
    cents: int
    currency: str
    status: str
    customer: int
    plant: str


def both_sides() -> tuple[list[Invoice], list[Invoice]]:
    """The ledger's lines and the database's invoices."""
    plants = ["identical"] * IDENTICAL + [name for name, count in PLANTED.items() for _ in range(count)]
    lines: list[Invoice] = []
    invoices: list[Invoice] = []
    for place, plant in enumerate(plants):
        invoice = Invoice(
            number=f"INV-{2001 + place}",
            id=UUID(int=(0x5 << 96) + (8 << 76) + (8 << 60) + place),
            day=date(2026, 1, 2) + timedelta(days=place),
            cents=10_000 + 137 * place * place,
            currency="CAD" if place % 7 == 3 else "USD",
            status="void"
            if plant == "no receivable" or (place % 5 == 4 and plant != "missing in the ledger")
            else "sent",
            customer=place % len(CUSTOMERS),
            plant=plant,
        )
        line = {
            "number differs": replace(invoice, number=f"INV-{9001 + place}"),
            "amount differs": replace(
                invoice,
                cents=invoice.cents + (1, 100_000, -7)[place % 3],
                status="paid" if place % 3 == 0 else invoice.status,
            ),
            "date differs": replace(invoice, day=invoice.day + timedelta(days=1)),
            "status differs": replace(invoice, status="paid"),
            "currency differs": replace(invoice, currency="EUR"),
            "matched by number only": replace(invoice, id=None, number=f"inv {invoice.number[4:]}"),
        }.get(plant, invoice)
        if plant != "missing in the database":
            invoices.append(replace(invoice, plant="identical") if plant == "duplicate key" else invoice)
        if place < PARTS:
            lines.append(replace(line, cents=line.cents - 2_000))
            line = replace(line, cents=2_000)
        if plant not in ("missing in the ledger", "no receivable"):
            lines.append(replace(line, plant="identical") if plant == "duplicate key" else line)
        if plant == "duplicate key":
            lines.append(line)
    return lines, invoices


def ledger_csv() -> str:
    """The ledger as Finance would send it."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    for place, line in enumerate(both_sides()[0], start=1):
        paid = line.day + timedelta(days=20) if line.status == "paid" else ""
        writer.writerow([
            f"L-{place:04}", line.day, f"Invoice {line.number}, {CUSTOMERS[line.customer]}", f"R{place}", line.number,
            line.id or "", f"{line.cents / 100:.2f}", line.currency, line.status, "ach" if paid else "", paid, "",
        ])  # fmt: skip
    return out.getvalue()


def billing_sql() -> str:
    """The billing database: company, customers, invoices."""
    values = ",\n".join(
        f"    ('{i.id}', '{COMPANY}', '{COMPANY}', '{i.number}', '{i.day}', '{i.day}', '{i.status}', '{i.day} 09:00Z',"
        f" '{i.day + timedelta(days=30)}', {i.cents}, '{i.currency}', '{UUID(int=0x50 + i.customer)}')"
        for i in both_sides()[1]
    )
    customers = ",\n".join(f"    ('{UUID(int=0x50 + n)}', '{COMPANY}', '{name}')" for n, name in enumerate(CUSTOMERS))
    return f"""\
-- A billing application's data before its promotion. Written by tests/reconciliation/sample_ledger.py.
insert into billing.companies (id, name) values ('{COMPANY}', 'Northwind Billing');
insert into billing.settings (company_id, next_invoice_number) values ('{COMPANY}', 3001);
insert into billing.facilities (id, company_id, name) values ('{COMPANY}', '{COMPANY}', 'Main');
insert into billing.customers (id, company_id, name) values
{customers};
insert into billing.invoices (id, company_id, facility_id, invoice_number, period_start, period_end, status, sent_at,
    due_date, total_cents, currency, customer_id) values
{values};
"""


if __name__ == "__main__":
    FOLDER.mkdir(parents=True, exist_ok=True)
    (FOLDER / "ledger.csv").write_text(ledger_csv(), encoding="utf-8")
    (FOLDER / "billing.sql").write_text(billing_sql(), encoding="utf-8")
