"""Rotessa's API: bytes in, rows with named fields out; no database.

A row keeps the fields that are named here and nothing else: account, transit, institution and routing numbers,
addresses, mail and telephone numbers end in this module. What an error of the service says is shown with its
digits masked, because it may quote such a number.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any, Final, Literal, NoReturn, TypeAlias

from runner.errors import ConfigurationError
from runner.lending.client import (
    Access,
    Answer,
    Client,
    RemoteAccessError,
    RemoteError,
    RemoteNotFoundError,
    RemoteRefusedError,
    checked_url,
    manners_of,
    table_of,
    token_of,
)
from runner.settings import Settings

HOSTS: Final = {
    "production": "https://api.rotessa.com/v1",
    "sandbox": "https://sandbox-api.rotessa.com/v1",
}
TOKEN: Final = "ROTESSA_TOKEN"  # noqa: S105 - the variable's name

CUSTOMER: Final = (
    "id", "name", "customer_type", "active", "identifier", "custom_identifier", "created_at", "updated_at",
)  # fmt: skip
SCHEDULE: Final = (
    "id", "amount", "frequency", "installments", "process_date", "next_process_date", "created_at", "updated_at",
)  # fmt: skip
TRANSACTION: Final = (
    "id", "amount", "status", "status_reason", "process_date", "settlement_date", "earliest_approval_date",
    "customer_id", "custom_identifier", "transaction_schedule_id", "transaction_number", "created_at", "updated_at",
)  # fmt: skip

Row: TypeAlias = dict[str, Any]
"""Named fields of a customer, schedule or transaction: texts, whole numbers, booleans or None, as they were sent."""


@dataclass(frozen=True, slots=True)
class Configuration:
    """Where Rotessa is, how it is asked and how far back a fetch looks again."""

    access: Access
    dates: Literal["query", "body"]
    look_back_days: int


def configure(
    settings: Settings, *, host: str | None = None, environment: Mapping[str, str] = os.environ
) -> Configuration:
    """From --host, `[lending.rotessa]` and ROTESSA_TOKEN. Raises ConfigurationError, never with the token."""
    table = table_of(settings, "rotessa")
    manners = manners_of("lending.rotessa", table, ("host", "dates", "look_back_days", "concurrency"))
    given = host or table.get("host", "production")
    origin = "--host" if host else "[lending.rotessa] host"
    if not isinstance(given, str) or (given not in HOSTS and "://" not in given):
        raise ConfigurationError(f"{origin} = {given!r}: expected {', '.join(HOSTS)} or an address")
    dates = table.get("dates", "query")
    if dates not in ("query", "body"):
        raise ConfigurationError(f"[lending.rotessa] dates = {dates!r}: expected query or body")
    days = table.get("look_back_days", 90)
    if isinstance(days, bool) or not isinstance(days, int) or not 0 <= days <= 3660:
        raise ConfigurationError(f"[lending.rotessa] look_back_days = {days!r}: expected a whole number from 0 to 3660")
    token = token_of(TOKEN, environment)
    if token is None:
        raise ConfigurationError(
            f"{TOKEN} is not set: nothing was asked. Set it to the API key of {given}, in the environment only"
        )
    url = HOSTS.get(given) or checked_url(origin, given, secret=True)
    access = Access("Rotessa", url, {"Authorization": f'Token token="{token}"'}, manners, token)
    return Configuration(access, dates, days)


class Rotessa:
    """The few questions that a fetch asks. Threads may share it. Raises RemoteError and its kinds."""

    def __init__(self, configuration: Configuration, *, progress: Callable[[str], None] = lambda _: None) -> None:
        self.configuration = configuration
        self.client = Client(configuration.access, progress=progress)

    def __enter__(self) -> Rotessa:
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()

    def customers(self) -> list[Row]:
        """Every customer; the service does not page them."""
        return [only(row, CUSTOMER) for row in self._rows("/customers")]

    def schedules_of(self, customer: int) -> list[Row]:
        """The schedules of a customer, each with its customer_id, which the service leaves out."""
        found = self._object(f"/customers/{int(customer)}")
        return [{**only(row, SCHEDULE), "customer_id": customer} for row in _list(found, "transaction_schedules")]

    def schedule(self, schedule: int) -> tuple[Row, list[Row]]:
        """A schedule and its history; these transactions bear the schedule's id, whatever they say themselves.

        Raises RemoteNotFoundError where Rotessa does not know it.
        """
        found = self._object(f"/transaction_schedules/{int(schedule)}")
        rows = _list(found, "financial_transactions")
        return only(found, SCHEDULE), [{**only(row, TRANSACTION), "transaction_schedule_id": schedule} for row in rows]

    def transactions(self, page: int, *, start: date, end: date | None) -> list[Row]:
        """A page of the transaction report, all statuses, by process date; the page after the last is empty."""
        asked: dict[str, str | int] = {"start_date": start.isoformat()}
        if end is not None:
            asked["end_date"] = end.isoformat()
        asked |= {"status": "All", "page": page}
        in_body = self.configuration.dates == "body"
        answer = self.client.ask(
            "GET", "/transaction_report", params=None if in_body else asked, body=asked if in_body else None
        )
        return [only(row, TRANSACTION) for row in self._array(answer, "/transaction_report")]

    def _rows(self, path: str) -> list[Any]:
        return self._array(self.client.ask("GET", path), path)

    def _array(self, answer: Answer, path: str) -> list[Any]:
        self._check(answer, path)
        if not isinstance(answer.body, list) or not all(isinstance(row, dict) for row in answer.body):
            raise RemoteError(f"Rotessa answered GET {path} with something that is not an array of objects")
        return answer.body

    def _object(self, path: str) -> Mapping[str, Any]:
        answer = self.client.ask("GET", path)
        self._check(answer, path)
        if not isinstance(answer.body, dict):
            raise RemoteError(f"Rotessa answered GET {path} with something that is not an object")
        return answer.body

    def _check(self, answer: Answer, path: str) -> None:
        if answer.status != 200:
            _refuse(answer, self.configuration.access, path)


def only(row: Mapping[str, Any], fields: tuple[str, ...]) -> Row:
    """The named fields of a row; whatever is not a plain value is left out."""
    return {name: row[name] for name in fields if isinstance(row.get(name), str | int | None) and name in row}


def _list(found: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
    rows = found.get(key)
    if rows is None:
        return []
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise RemoteError(f"Rotessa answered with {key} that are not an array of objects")
    return rows


def _refuse(answer: Answer, access: Access, path: str) -> NoReturn:
    url, said = access.url, _error(access, answer.body)
    words = f"HTTP {answer.status}{f': {said}' if said else ''}"
    if answer.status in (401, 403):
        raise RemoteAccessError(
            f"Rotessa ({url}) refuses the token: {words}. Check {TOKEN}; production and sandbox have keys of their own"
        )
    if answer.status == 404:
        raise RemoteNotFoundError(f"Rotessa ({url}) does not know {path}: {words}")
    if answer.status in (400, 406, 422):
        raise RemoteRefusedError(f"Rotessa ({url}) cannot take GET {path}: {words}")
    raise RemoteError(f"Rotessa ({url}) answered GET {path} with {words}, which its contract does not know")


def _error(access: Access, body: object) -> str:
    errors = body.get("errors") if isinstance(body, dict) else None
    if not isinstance(errors, list):
        return ""
    return "; ".join(
        f"{access.masked(error.get('error_code', ''))} {access.masked(error.get('error_message', ''))}".strip()
        for error in errors[:3]
        if isinstance(error, dict)
    )
