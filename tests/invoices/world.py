"""A company with facilities, contractors and checks, in the words of the field; money in cents."""

from __future__ import annotations

import datetime as dt
import uuid
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

Line = dict[str, Any]


@dataclass(frozen=True)
class World:
    """One company on an open connection; nothing is committed unless a test does so."""

    conn: psycopg.Connection
    company: uuid.UUID

    @classmethod
    def create(cls, conn: psycopg.Connection, *, next_number: int = 1, interest_bps: int = 0) -> World:
        company = value(
            conn, "insert into billing.companies (name) values (%s) returning id", f"Example {uuid.uuid4()}"
        )
        conn.execute(
            "insert into billing.settings (company_id, next_invoice_number, interest_annual_bps) values (%s, %s, %s)",
            [company, next_number, interest_bps],
        )
        return cls(conn, company)

    def facility(self, name: str = "Hillside") -> uuid.UUID:
        return self.id(
            "insert into billing.facilities (company_id, name) values (%s, %s) returning id", self.company, name
        )

    def contractor(self, name: str = "R. Baker") -> uuid.UUID:
        return self.id(
            "insert into billing.contractors (company_id, name) values (%s, %s) returning id", self.company, name
        )

    def assignment(self, contractor: uuid.UUID, facility: uuid.UUID, since: str, until: str | None = None) -> uuid.UUID:
        return self.id(
            "insert into billing.assignments (company_id, contractor_id, facility_id, effective_from, effective_to,"
            " rate_cents) values (%s, %s, %s, %s, %s, 5000) returning id",
            self.company, contractor, facility, since, until,
        )  # fmt: skip

    def backfill(
        self,
        facility: uuid.UUID,
        number: str,
        *,
        week: int = 1,
        total: int = 10_000,
        due: str | None = None,
        lines: list[Line] | None = None,
        sent: str | None = None,
        actor: str = "ada",
        currency: str | None = None,
    ) -> dict[str, Any]:
        """backfill.backfill_invoice for the week-th week of 2023, due 30 days after its end unless said otherwise."""
        start, end = week_of(week)
        return self.row(
            "select * from backfill.backfill_invoice(%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
            self.company, facility, number, start, end, sent or f"{end} 00:00+00",
            due or end + dt.timedelta(days=30), total, Jsonb([line(total)] if lines is None else lines), actor,
            currency,
        )  # fmt: skip

    def forward(self, facility: uuid.UUID, *, week: int = 60, total: int = 10_000) -> dict[str, Any]:
        """billing.create_facility_invoice for the week-th week counted from 2023."""
        start, end = week_of(week)
        return self.row(
            "select * from billing.create_facility_invoice(%s, %s, %s, %s, %s)",
            self.company, facility, start, end, Jsonb([line(total)]),
        )  # fmt: skip

    def send(self, invoice: dict[str, Any], *, due: str | None = "2024-04-01") -> None:
        """What the application does with a draft of its own."""
        self.conn.execute(
            "update billing.invoices set status = 'sent', sent_at = '2024-03-01 00:00+00', due_date = %s where id = %s",
            [due, invoice["id"]],
        )

    def check(self, facility: uuid.UUID | None, cents: int, *refs: str, on: str = "2024-05-01") -> uuid.UUID:
        return self.id(
            "insert into billing.check_payments (company_id, facility_id, check_number, received_on, amount_cents,"
            " ocr_invoice_refs) values (%s, %s, %s, %s, %s, %s) returning id",
            self.company, facility, str(self.value("select count(*) + 1 from billing.check_payments")), on, cents,
            list(refs),
        )  # fmt: skip

    def customer(self, name: str = "Ada") -> uuid.UUID:
        return self.id(
            "insert into billing.customers (company_id, name) values (%s, %s) returning id", self.company, name
        )

    def payment(
        self, customer: uuid.UUID | None, cents: int, reference: str | None = None, *, on: str = "2024-05-01",
        currency: str = "USD",
    ) -> uuid.UUID:  # fmt: skip
        return self.id(
            "insert into billing.payments (company_id, customer_id, amount_cents, currency, status, reference, paid_at)"
            " values (%s, %s, %s, %s, 'succeeded', %s, %s) returning id",
            self.company, customer, cents, currency, reference, f"{on} 12:00Z",
        )  # fmt: skip

    def issue(
        self, facility: uuid.UUID, number: str, cents: int, *, customer: uuid.UUID | None = None,
        on: str = "2024-01-01", due: str | None = None, currency: str | None = "USD",
    ) -> uuid.UUID:  # fmt: skip
        """An invoice of the application as it stands once it is sent, with one line."""
        made = self.id(
            "insert into billing.invoices (company_id, facility_id, customer_id, currency, invoice_number,"
            " period_start, period_end, status, sent_at, due_date, total_cents, origin)"
            " values (%s, %s, %s, %s, %s, %s, %s::date + 6, 'sent', %s, coalesce(%s, %s::date + 30), %s, 'app')"
            " returning id",
            self.company, facility, customer, currency, number, on, on, f"{on} 00:00Z", due, on, cents,
        )  # fmt: skip
        self.conn.execute(
            "insert into billing.invoice_lines (company_id, invoice_id, line_no, description, amount_cents)"
            " values (%s, %s, 1, 'Services', %s)",
            [self.company, made, cents],
        )
        return made

    def apply(self, source: uuid.UUID, invoice: uuid.UUID, cents: int | None = None, reason: str = "so it is") -> Any:
        return self.row("select * from billing.apply(%s, %s, %s, %s)", source, invoice, cents, reason)

    def open(self, number: str) -> int:
        """What is open of an invoice, as every reader of it sees it."""
        cents: int = self.value(
            "select open_cents from billing.invoice_balances where company_id = %s and invoice_number = %s",
            self.company, number,
        )  # fmt: skip
        return cents

    def left(self, source: uuid.UUID) -> int:
        """What of a check, payment or credit is not applied."""
        cents: int = self.value("select unapplied_cents from billing.source_balances where source_id = %s", source)
        return cents

    def allocate(self, check: uuid.UUID) -> dict[str, int]:
        """billing.allocate_check: cents by invoice number."""
        rows = self.rows("select * from billing.allocate_check(%s)", check)
        return {row["invoice_number"]: row["amount_cents"] for row in rows}

    def unapply(self, check: uuid.UUID) -> dict[str, int]:
        rows = self.rows("select * from billing.unapply_check(%s)", check)
        return {row["invoice_number"]: row["amount_cents"] for row in rows}

    def reviews(self, check: uuid.UUID) -> dict[str, str]:
        """Reason by reference."""
        rows = self.rows("select * from billing.check_reference_reviews where check_payment_id = %s", check)
        return {row["reference"]: row["reason"] for row in rows}

    def unapplied(self, check: uuid.UUID) -> int:
        cents: int = self.value("select unapplied_cents from billing.check_balances where check_payment_id = %s", check)
        return cents

    def invoice(self, number: str) -> dict[str, Any]:
        return self.row(
            "select * from billing.invoices where company_id = %s and invoice_number = %s", self.company, number
        )

    @property
    def next_number(self) -> int:
        number: int = self.value("select next_invoice_number from billing.settings where company_id = %s", self.company)
        return number

    def faults(self) -> list[dict[str, Any]]:
        return self.rows("select invoice_number, fault from billing.invoice_faults")

    def id(self, query: str, *parameters: object) -> uuid.UUID:
        found = self.value(query, *parameters)
        assert isinstance(found, uuid.UUID)
        return found

    def value(self, query: str, *parameters: object) -> Any:
        return value(self.conn, query, *parameters)

    def row(self, query: str, *parameters: object) -> dict[str, Any]:
        rows = self.rows(query, *parameters)
        assert len(rows) == 1, rows
        return rows[0]

    def rows(self, query: str, *parameters: object) -> list[dict[str, Any]]:
        with self.conn.cursor(row_factory=dict_row) as cursor:
            return cursor.execute(query, parameters).fetchall()


def value(conn: psycopg.Connection, query: str, *parameters: object) -> Any:
    """The first column of the first row."""
    row = conn.execute(query, parameters).fetchone()
    assert row is not None
    return row[0]


def week_of(week: int) -> tuple[dt.date, dt.date]:
    """First and last day of the week-th week, 1 being 2023-01-02 to 2023-01-08."""
    start = dt.date(2023, 1, 2) + dt.timedelta(weeks=week - 1)
    return start, start + dt.timedelta(days=6)


def line(cents: int, **more: object) -> Line:
    return {"description": "Services", "amount_cents": cents, **more}
