"""A lender's book in the words of the field, on an open connection; money in cents."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

Row = dict[str, Any]


@dataclass(frozen=True)
class Book:
    """Nothing is committed unless a test does so, but for what spans transactions."""

    conn: psycopg.Connection

    def fetch(
        self,
        *,
        customers: list[Row] | None = None,
        schedules: dict[int, list[Row]] | None = None,
        transactions: list[Row] | None = None,
    ) -> uuid.UUID:
        """One whole fetch: customers, schedules by customer, one page of transactions."""
        fetch = self.begin_fetch()
        if customers is not None:
            self.row("select * from staging.take_rotessa_customers(%s, %s)", fetch, Jsonb(customers))
        for customer, rows in (schedules or {}).items():
            self.row("select * from staging.take_rotessa_schedules(%s, %s, %s)", fetch, customer, Jsonb(rows))
        if transactions is not None:
            self.page(fetch, 1, transactions)
        self.value("select staging.finish_rotessa_fetch(%s)", fetch)
        return fetch

    def begin_fetch(self, since: str = "2025-01-01") -> uuid.UUID:
        found = self.value("select fetch_id from staging.begin_rotessa_fetch(%s)", since)
        assert isinstance(found, uuid.UUID)
        return found

    def page(self, fetch: uuid.UUID, number: int, rows: list[Row]) -> tuple[int, ...]:
        """(created, changed, unchanged, rejected)."""
        taken = self.row("select * from staging.take_rotessa_transactions(%s, %s, %s)", fetch, number, Jsonb(rows))
        return tuple(taken.values())

    def mortgage(self, number: str, customer: int | None, cents: int = 100_000, name: str = "Ada") -> uuid.UUID:
        """A mortgage of a borrower, who is made where there is none yet."""
        borrower = self.value(
            "with b as (insert into lending.borrowers (name, rotessa_customer_id) values (%s, %s)"
            " on conflict (rotessa_customer_id) do update set name = excluded.name returning id) select id from b",
            name, customer,
        )  # fmt: skip
        found = self.value(
            "insert into lending.mortgages (number, borrower_id, payment_cents) values (%s, %s, %s) returning id",
            number, borrower, cents,
        )  # fmt: skip
        assert isinstance(found, uuid.UUID)
        return found

    def linked(self, *transactions: Row) -> uuid.UUID:
        """Mortgage M-1 of customer 1, linked to schedule 7 of 1,000.00, with these transactions."""
        mortgage = self.mortgage("M-1", 1)
        self.fetch(customers=[customer(1)], schedules={1: [schedule(7)]}, transactions=list(transactions))
        self.link(7, "M-1")
        return mortgage

    def link(self, number: int, mortgage: str, why: str | None = None) -> Row:
        return self.row("select * from lending.link_schedule(%s, %s, %s)", number, mortgage, why)

    def backfill(self, number: int | None = None) -> Row:
        """The backfill as one run of the engine: its row of the log."""
        parameters = Jsonb({} if number is None else {"schedule": number})
        return self.row("select * from backfill.run('lending_payments', %s)", parameters)

    def payment(self, reference: str) -> Row:
        return self.row("select * from lending.payments where source_reference = %s", reference)

    def live(self, number: int, mortgage: uuid.UUID, cents: int = 100_000, **more: object) -> uuid.UUID:
        """A payment as live sync writes it, approved and settled in February 2025."""
        values = {"status": "approved", "settlement_date": "2025-02-03", **more}
        found = self.value(
            "insert into lending.payments (mortgage_id, source_reference, rotessa_customer_id, amount_cents, status,"
            " settlement_date) values (%s, %s, 1, %s, %s, %s) returning id",
            mortgage, f"rotessa:tx:{number}", cents, values["status"], values["settlement_date"],
        )  # fmt: skip
        assert isinstance(found, uuid.UUID)
        return found

    def balances(self, as_of: str = "infinity") -> dict[str, int]:
        rows = self.rows("select account, balance from ledger.balances(%s)", as_of)
        return {row["account"]: row["balance"] for row in rows}

    def entries(self) -> dict[str, str]:
        """Effective time, in UTC, of each ledger transaction by reference."""
        rows = self.rows("select reference, (effective_at at time zone 'UTC')::text as at from ledger.transactions")
        return {row["reference"]: row["at"] for row in rows}

    def value(self, query: str, *parameters: object) -> Any:
        row = self.conn.execute(query.encode(), parameters).fetchone()
        assert row is not None, query
        return row[0]

    def row(self, query: str, *parameters: object) -> Row:
        rows = self.rows(query, *parameters)
        assert len(rows) == 1, rows
        return rows[0]

    def rows(self, query: str, *parameters: object) -> list[Row]:
        with self.conn.cursor(row_factory=dict_row) as cursor:
            return cursor.execute(query.encode(), parameters).fetchall()

    def do(self, query: str, *parameters: object) -> None:
        self.conn.execute(query.encode(), parameters)


def customer(number: int, name: str = "Ada", **more: object) -> Row:
    return {"id": number, "name": name, "custom_identifier": f"C{number}", "active": True, **more}


def schedule(number: int, amount: str = "1000.00", **more: object) -> Row:
    return {
        "id": number, "amount": amount, "frequency": "Monthly", "installments": None,
        "process_date": "2025-01-01", "next_process_date": "2027-01-01", **more,
    }  # fmt: skip


def transaction(number: int, settled: str | None = "2025-02-03", **more: object) -> Row:
    """A transaction of schedule 7 and customer 1, of 1,000.00, Approved unless said otherwise."""
    return {
        "id": number, "customer_id": 1, "transaction_schedule_id": 7, "amount": "1000.00", "status": "Approved",
        "status_reason": None, "process_date": "2025-02-01", "settlement_date": settled, **more,
    }  # fmt: skip
