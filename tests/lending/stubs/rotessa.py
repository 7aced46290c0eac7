"""Rotessa as its contract says it behaves, with its traps: bank secrets everywhere, odd dates, overlapping pages."""

from __future__ import annotations

from datetime import date
from typing import Any

from tests.lending.stubs.service import Reply, Request, Service

KEY = "KEY-that-is-never-shown"
SECRETS = ("70770770", "00412", "9021")
"""Account, transit and institution number, in every place where the API has them."""


class Rotessa(Service):
    """Customers by id, schedules by id, `transactions` as the report lists them; the API's `page_size` is 1000.

    `arriving` rows come in front of the report after its first page was read: the pages overlap.
    """

    def __init__(self, *, page_size: int = 1000) -> None:
        super().__init__()
        self.page_size = page_size
        self.customers: dict[int, dict[str, Any]] = {}
        self.schedules: dict[int, dict[str, Any]] = {}
        self.transactions: list[dict[str, Any]] = []
        self.arriving: list[dict[str, Any]] = []

    @property
    def base(self) -> str:
        """What --host takes."""
        return f"{self.url}/v1"

    def customer(self, id_: int, name: str, **more: Any) -> None:
        """Add a customer."""
        self.customers[id_] = {
            "id": id_, "name": name, "active": True, "bank_name": "Bank", "customer_type": "Personal",
            "created_at": "2019-02-29T10:00:00.000-05:00",  # impossible, as in its own samples
            "updated_at": "2024-01-01T10:00:00.000Z", "custom_identifier": f"C{id_}", "identifier": f"C{id_}",
            "email": f"c{id_}@example.com", "home_phone": "555", "phone": "555", **more,
        }  # fmt: skip

    def schedule(self, id_: int, customer: int, amount: str, frequency: str = "Monthly", **more: Any) -> None:
        """Add a schedule to a customer."""
        self.schedules[id_] = {
            "id": id_, "amount": amount, "comment": f"account {SECRETS[0]}", "frequency": frequency,
            "installments": None, "process_date": "2024-01-01", "next_process_date": "2026-12-01",
            "created_at": "2023-12-20T10:00:00.000Z", "updated_at": "2024-01-01T10:00:00.000Z",
            "_customer": customer, **more,
        }  # fmt: skip

    def transaction(self, id_: int, schedule: int, amount: str, day: str, **more: Any) -> dict[str, Any]:
        """Add a row to the report: Approved and settled unless told otherwise."""
        row = {
            "id": id_, "account_number": SECRETS[0], "transit_number": SECRETS[1], "institution_number": SECRETS[2],
            "amount": amount, "comment": f"from {SECRETS[0]}", "created_at": "2019-02-29T10:00:00.000-05:00",
            "updated_at": "2024-01-01T10:00:00.000Z", "custom_identifier": "x",
            "customer_id": self.schedules[schedule]["_customer"] if schedule in self.schedules else 1,
            "earliest_approval_date": day, "process_date": day, "settlement_date": day, "status": "Approved",
            "status_reason": None, "transaction_number": f"T{id_}", "transaction_schedule_id": schedule, **more,
        }  # fmt: skip
        self.transactions.append(row)
        return row

    def handle(self, request: Request) -> Reply:
        if request.headers.get("Authorization") != f'Token token="{KEY}"':
            return _error(401, "unauthorized", f"Bad key {request.headers.get('Authorization')}")
        match request.path.removeprefix("/v1").strip("/").split("/"):
            case ["customers"]:
                return Reply(200, [*self.customers.values()])
            case ["customers", id_] if int(id_) in self.customers:
                return Reply(200, self._detail(int(id_)))
            case ["transaction_schedules", id_] if int(id_) in self.schedules:
                rows = [row for row in self.transactions if row["transaction_schedule_id"] == int(id_)]
                return Reply(200, {**_public(self.schedules[int(id_)]), "financial_transactions": rows})
            case ["transaction_report"]:
                return self._report(request.query or request.body or {})
        return _error(404, "not_found", f"nothing at {request.path}")

    def _detail(self, id_: int) -> dict[str, Any]:
        account, transit, institution = SECRETS
        return {
            **self.customers[id_], "account_number": account, "transit_number": transit,
            "institution_number": institution, "routing_number": account, "address": {"city": "Calgary"},
            "authorization_type": "Online", "bank_account_type": "Savings", "financial_transactions": [],
            "transaction_schedules": [_public(s) for s in self.schedules.values() if s["_customer"] == id_],
        }  # fmt: skip

    def _report(self, asked: dict[str, Any]) -> Reply:
        if "start_date" not in asked:
            return _error(422, "validation", f"start_date is missing for account {SECRETS[0]}")
        rows = [
            row
            for row in self.transactions
            if asked["start_date"] <= _padded(row["process_date"]) <= asked.get("end_date", "9999")
        ]
        first = (int(asked.get("page", 1)) - 1) * self.page_size
        reply = Reply(200, rows[first : first + self.page_size])
        if self.arriving:
            self.transactions[:0] = self.arriving
            self.arriving = []
        return reply


def _padded(text: str) -> str:
    year, month, day = map(int, text.split("-"))
    return date(year, month, day).isoformat()


def _public(schedule: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in schedule.items() if not name.startswith("_")}


def _error(status: int, code: str, message: str) -> Reply:
    return Reply(status, {"errors": [{"error_code": code, "error_message": message}]})
