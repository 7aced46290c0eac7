"""Formance Ledger v2: transactions in, one outcome each out; no database.

Within a bulk the order is the only thing that says which answer belongs to which transaction, and a failed atomic
bulk lists successes that were rolled back: what cannot be trusted is looked up by its reference.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal
from urllib.parse import quote

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

TOKEN: Final = "FORMANCE_TOKEN"  # noqa: S105 - the variable's name
BULK: Final = 100
"""Elements of a bulk that a server takes unless it is configured otherwise."""
PAGE: Final = 100

REFUSALS: Final = frozenset({
    "INSUFFICIENT_FUND", "NO_POSTINGS", "VALIDATION", "COMPILATION_FAILED", "METADATA_OVERRIDE", "INTERPRETER_PARSE",
    "INTERPRETER_RUNTIME",
})  # fmt: skip
"""Codes that say no to this transaction, whoever asks again. CONFLICT is none: it says to look."""

_LEDGER = re.compile(r"[0-9A-Za-z_-]{1,63}")
_CODE = re.compile(r"[A-Z_]{1,40}")


@dataclass(frozen=True, slots=True)
class Configuration:
    """Where the ledger is and how it is written: `atomic` bulks are all or nothing, others element by element."""

    access: Access
    ledger: str
    atomic: bool


@dataclass(frozen=True, slots=True)
class Item:
    """A transaction to be sent; `body` is the same at every try: the key's hash covers all of it."""

    reference: str
    key: str
    body: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one item: `confirmed` with the ledger's own id, or `refused` with code and reason.

    `hard`: there is another transaction under this reference, which nobody may paper over.
    """

    reference: str
    state: Literal["confirmed", "refused"]
    remote_id: str | None = None
    code: str = ""
    reason: str = ""
    hard: bool = False
    found: bool = False
    """It was there already."""


def configure(settings: Settings, *, environment: Mapping[str, str] = os.environ) -> Configuration:
    """From `[lending.formance]` of runner.toml and FORMANCE_TOKEN, if any. Raises ConfigurationError without it."""
    table = table_of(settings, "formance")
    manners = manners_of("lending.formance", table, ("url", "ledger", "atomic"))
    url, ledger, atomic = table.get("url"), table.get("ledger", "main"), table.get("atomic", False)
    if url is None:
        raise ConfigurationError(
            "no Formance is configured: PostgreSQL is the ledger, complete, and nothing has to be pushed. Where there "
            'is one, say so in runner.toml: [lending.formance] url = "https://…", ledger = "…"'
        )
    if not isinstance(url, str):
        raise ConfigurationError("[lending.formance] url: expected https://host[:port][/path]")
    if not isinstance(ledger, str) or not _LEDGER.fullmatch(ledger):
        raise ConfigurationError(f"[lending.formance] ledger = {ledger!r}: expected letters, digits, _ and -")
    if not isinstance(atomic, bool):
        raise ConfigurationError(f"[lending.formance] atomic = {atomic!r}: expected true or false")
    token = token_of(TOKEN, environment)
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    return Configuration(
        Access(
            "Formance", checked_url("[lending.formance] url", url, secret=token is not None), headers, manners, token
        ),
        ledger,
        atomic,
    )


class Formance:
    """One ledger. Raises RemoteError and its kinds where nothing can be said about an item."""

    def __init__(self, configuration: Configuration, *, progress: Callable[[str], None] = lambda _: None) -> None:
        self.configuration = configuration
        self.client = Client(configuration.access, progress=progress)
        self._path = f"/v2/{quote(configuration.ledger)}"
        self._most = BULK

    def __enter__(self) -> Formance:
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()

    def post(self, items: Sequence[Item]) -> list[Outcome]:
        """Send transactions in their order and say of each what became of it, in that order.

        Sending any of them again is safe. An atomic bulk that fails has left nothing behind, whatever it lists: it is
        sent again element by element.
        """
        most = self._most  # which may become fewer on the way
        if len(items) > most:
            parts = (items[first : first + most] for first in range(0, len(items), most))
            return [outcome for part in parts for outcome in self.post(part)]
        if not items:
            return []
        atomic = self.configuration.atomic
        answer = self._bulk(items, atomic=atomic)
        if answer.status == 400 and atomic and _results(answer) is not None:
            answer = self._bulk(items, atomic=False)
        if answer.status == 413 and len(items) > 1:
            self._most = len(items) // 2  # the server takes fewer than is usual
            return self.post(items)
        results = _results(answer)
        if answer.status not in (200, 400) or results is None:
            raise self._refusal(answer, f"a bulk of {len(items)}")
        if len(results) != len(items):
            # Nothing says which answer is whose.
            return [self._alone(item) for item in items]
        return [self._outcome(item, result) for item, result in zip(items, results, strict=True)]

    def transactions(self) -> Iterator[list[Mapping[str, Any]]]:
        """Every transaction of the ledger, page by page, by cursor."""
        asked: dict[str, str | int] = {"pageSize": PAGE}
        seen: set[str] = set()
        while True:
            cursor = self._page(asked)
            yield cursor["data"]
            following = cursor.get("next")
            if not cursor.get("hasMore") or not following:
                return
            if following in seen:
                raise RemoteError(f"Formance's pages go round in a circle after {len(seen):,} pages")
            seen.add(following)
            asked = {"cursor": following}

    def find(self, reference: str) -> Mapping[str, Any] | None:
        """The transaction of this reference, or None."""
        import json

        found = self._page({"query": json.dumps({"$match": {"reference": reference}})})["data"]
        mine = [row for row in found if row.get("reference") == reference]
        return mine[0] if mine else None

    def _bulk(self, items: Sequence[Item], *, atomic: bool) -> Answer:
        elements = [{"action": "CREATE_TRANSACTION", "ik": item.key, "data": item.body} for item in items]
        # Never parallel: the order maps answers to items, and makes the funds that later items need.
        how = {"atomic": str(atomic).lower(), "continueOnFailure": str(not atomic).lower(), "parallel": "false"}
        return self.client.ask("POST", f"{self._path}/_bulk", params=how, body=elements)

    def _outcome(self, item: Item, result: Mapping[str, Any]) -> Outcome:
        data = result.get("data")
        if result.get("responseType") == "CREATE_TRANSACTION" and isinstance(data, dict):
            if data.get("reference", item.reference) == item.reference and "id" in data:
                return Outcome(item.reference, "confirmed", str(data["id"]))
            return self._alone(item)
        code = _code(result.get("errorCode"))
        if code in REFUSALS:
            return Outcome(
                item.reference,
                "refused",
                None,
                code,
                self.configuration.access.spoken(result.get("errorDescription", "")),
            )
        if code == "CONFLICT":
            return self._conflict(item)
        # INTERNAL is also what a bulk makes of a key that was used with another body: alone it says which.
        return self._alone(item)

    def _alone(self, item: Item) -> Outcome:
        answer = self.client.ask(
            "POST", f"{self._path}/transactions", body=item.body, headers={"Idempotency-Key": item.key}
        )
        if answer.status == 200 and isinstance(answer.body, dict) and isinstance(answer.body.get("data"), dict):
            data = answer.body["data"]
            return Outcome(
                item.reference, "confirmed", str(data["id"]), found=bool(answer.headers.get("Idempotency-Hit"))
            )
        code, said = self._error(answer)
        if answer.status == 409:
            return self._conflict(item)
        if answer.status == 400:
            there = self.find(item.reference)  # a key used with another body: what is in the ledger under our name?
            if there is not None:
                return self._compared(item, there)
            return Outcome(item.reference, "refused", None, code or "VALIDATION", said)
        raise self._refusal(answer, item.reference)

    def _conflict(self, item: Item) -> Outcome:
        there = self.find(item.reference)
        if there is None:
            return Outcome(
                item.reference, "refused", None, "CONFLICT",
                "a conflict, but no transaction has this reference: its idempotency key was used for another one",
            )  # fmt: skip
        return self._compared(item, there)

    def _compared(self, item: Item, there: Mapping[str, Any]) -> Outcome:
        different = differences(item.body, there)
        if different:
            return Outcome(
                item.reference, "refused", str(there.get("id")), "CONFLICT",
                f"Formance holds another transaction under this reference (id {there.get('id')}): {different}",
                hard=True,
            )  # fmt: skip
        return Outcome(item.reference, "confirmed", str(there["id"]), found=True)

    def _page(self, asked: Mapping[str, str | int]) -> Mapping[str, Any]:
        answer = self.client.ask("GET", f"{self._path}/transactions", params=asked)
        if answer.status != 200:
            raise self._refusal(answer, "GET transactions")
        cursor = answer.body.get("cursor") if isinstance(answer.body, dict) else None
        if not isinstance(cursor, dict) or not isinstance(cursor.get("data"), list):
            raise RemoteError("Formance listed its transactions without a cursor: is this a v2 ledger?")
        return cursor

    def _refusal(self, answer: Answer, what: str) -> RemoteError:
        configuration = self.configuration
        where = f"Formance ({configuration.access.url}, ledger {configuration.ledger})"
        code, said = self._error(answer)
        words = " ".join(filter(None, (f"HTTP {answer.status}", code, said)))
        if answer.status in (401, 403):
            return RemoteAccessError(f"{where} refuses the token: {words}. Check {TOKEN}")
        if answer.status == 404:
            return RemoteNotFoundError(
                f"{where} does not know the ledger: {words}. Check [lending.formance] url and ledger"
            )
        if answer.status in (400, 413, 422):
            return RemoteRefusedError(f"{where} cannot take {what}: {words}")
        return RemoteError(f"{where} answered {what} with {words}, which its contract does not know")

    def _error(self, answer: Answer) -> tuple[str, str]:
        body = answer.body if isinstance(answer.body, dict) else {}
        return _code(body.get("errorCode")), self.configuration.access.spoken(body.get("errorMessage", ""))


def differences(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> str:
    """In what two transactions of one reference differ, in words; empty where postings and timestamp are the same."""
    found = []
    mine, other = _postings(ours), _postings(theirs)
    if mine != other:
        found.append(f"postings {_shown(other)} there, {_shown(mine)} here")
    if _instant(ours.get("timestamp")) != _instant(theirs.get("timestamp")):
        found.append(f"timestamp {theirs.get('timestamp')} there, {ours.get('timestamp')} here")
    return "; ".join(found)


def _postings(body: Mapping[str, Any]) -> list[tuple[str, str, str, int]]:
    return [
        (str(p.get("source")), str(p.get("destination")), str(p.get("asset")), int(p.get("amount", 0)))
        for p in body.get("postings") or []
    ]


def _shown(postings: list[tuple[str, str, str, int]]) -> str:
    return ", ".join(f"{source} → {destination} {amount} {asset}" for source, destination, asset, amount in postings)


def _instant(text: object) -> datetime | str:
    """A time as a point in time: 00:00:00Z, 00:00:00.000Z and 00:00:00+00:00 are the same."""
    try:
        return datetime.fromisoformat(str(text))
    except ValueError:
        return str(text)


def _results(answer: Answer) -> list[Mapping[str, Any]] | None:
    data = answer.body.get("data") if isinstance(answer.body, dict) else None
    return data if isinstance(data, list) and all(isinstance(row, dict) for row in data) else None


def _code(value: object) -> str:
    return value if isinstance(value, str) and _CODE.fullmatch(value) else ""
