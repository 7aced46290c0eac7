"""Formance Ledger v2 as contracts say it behaves: keys, references, funds, bulks and their traps, a paged list."""

from __future__ import annotations

import copy
import hashlib
import json
import re
from collections import defaultdict
from typing import Any

from tests.lending.stubs.service import Reply, Request, Service

_SEGMENTS = re.compile(r"[a-zA-Z0-9_-]+(:[a-zA-Z0-9_-]+)*")


class Refusal(Exception):  # noqa: N818 - what a service says, no error of the test
    """A transaction that is not taken: HTTP status when alone, code, words."""

    def __init__(self, status: int, code: str, text: str) -> None:
        super().__init__(text)
        self.status, self.code, self.text = status, code, text


class Formance(Service):
    """One ledger. `in_bulk` is how many elements a bulk may have."""

    def __init__(self, *, in_bulk: int = 100, ledger: str = "main") -> None:
        super().__init__()
        self.in_bulk, self.ledger = in_bulk, ledger
        self.rows: list[dict[str, Any]] = []
        self.next_id = 0
        self.keys: dict[str, tuple[str, dict[str, Any]]] = {}
        self.references: dict[str, dict[str, Any]] = {}
        self.balances: defaultdict[tuple[str, str], int] = defaultdict(int)

    def seed(self, body: dict[str, Any]) -> dict[str, Any]:
        """A transaction that somebody else has posted."""
        return self._create(body, None)[0]

    def handle(self, request: Request) -> Reply:
        prefix = f"/v2/{self.ledger}"
        if not request.path.startswith(prefix):
            return Reply(404, {"errorCode": "LEDGER_NOT_FOUND", "errorMessage": "ledger not found"})
        match (request.method, request.path.removeprefix(prefix)):
            case ("POST", "/_bulk"):
                return self._bulk(request)
            case ("POST", "/transactions"):
                try:
                    row, hit = self._create(request.body, request.headers.get("Idempotency-Key"))
                except Refusal as refusal:
                    return Reply(refusal.status, {"errorCode": refusal.code, "errorMessage": refusal.text})
                return Reply(200, {"data": row}, {"Idempotency-Hit": "true"} if hit else {})
            case ("GET", "/transactions"):
                return self._list(request)
        return Reply(404, {"errorCode": "NOT_FOUND", "errorMessage": request.path})

    def _bulk(self, request: Request) -> Reply:
        if len(request.body) > self.in_bulk:
            text = f"bulk size exceeded, max size is {self.in_bulk}"
            return Reply(413, {"errorCode": "BULK_SIZE_EXCEEDED", "errorMessage": text})
        atomic, onward = (request.query.get(name) == "true" for name in ("atomic", "continueOnFailure"))
        assert request.query.get("parallel") != "true", "the order of answers means nothing then"
        kept = copy.deepcopy((self.rows, self.keys, self.references, self.balances)) if atomic else None
        results: list[dict[str, Any]] = []
        failed = False
        for element in request.body:
            if failed and not onward:
                results.append(_failure("INTERNAL", "context canceled"))
                continue
            try:
                row, _ = self._create(element["data"], element.get("ik"))
                results.append({"responseType": "CREATE_TRANSACTION", "logID": row["id"] + 1, "data": row})
            except Refusal as refusal:
                failed = True
                # As the Go source: in a bulk whatever is about keys is INTERNAL.
                code = "INTERNAL" if refusal.text.startswith("key") else refusal.code
                results.append(_failure(code, refusal.text))
        if failed and kept is not None:
            self.rows, self.keys, self.references, self.balances = kept  # the successes stay in the list
        return Reply(400 if failed else 200, {"data": results})

    def _create(self, body: dict[str, Any], key: str | None) -> tuple[dict[str, Any], bool]:
        digest = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
        if key and key in self.keys:
            if self.keys[key][0] != digest:
                raise Refusal(400, "VALIDATION", "key was used with another body")
            return self.keys[key][1], True
        if "metadata" not in body:
            raise Refusal(400, "VALIDATION", "metadata is required")
        if not body.get("postings"):
            raise Refusal(400, "NO_POSTINGS", "transaction has no postings")
        for posting in body["postings"]:
            if not all(_SEGMENTS.fullmatch(posting[end]) for end in ("source", "destination")):
                raise Refusal(400, "VALIDATION", f"invalid address {posting['source']} → {posting['destination']}")
        reference = body.get("reference")
        if reference in self.references:
            raise Refusal(409, "CONFLICT", "reference is taken")
        after = copy.copy(self.balances)
        for posting in body["postings"]:
            source, asset = posting["source"], posting["asset"]
            after[source, asset] -= posting["amount"]
            if source != "world" and after[source, asset] < 0:
                raise Refusal(400, "INSUFFICIENT_FUND", f"account {source} had insufficient funds")
            after[posting["destination"], asset] += posting["amount"]
        self.balances = after
        row = {
            "id": self.next_id, "timestamp": body["timestamp"].replace("+00:00", "Z"), "reverted": False,
            "insertedAt": "2026-01-01T00:00:00.000000Z", "updatedAt": "2026-01-01T00:00:00.000000Z",
            "postings": body["postings"], "reference": reference, "metadata": body["metadata"],
        }  # fmt: skip
        self.next_id += 1
        self.rows.append(row)
        if reference is not None:
            self.references[reference] = row
        if key:
            self.keys[key] = (digest, row)
        return row, False

    def _list(self, request: Request) -> Reply:
        asked = json.loads(request.query["query"]) if "query" in request.query else request.body
        rows = self.rows
        if asked:
            rows = [row for row in rows if row["reference"] == asked["$match"]["reference"]]
        size = int(request.query.get("pageSize", 15))
        first = 0
        if "cursor" in request.query:
            first, size = map(int, request.query["cursor"].split("-"))
        more = first + size < len(rows)
        cursor = {"pageSize": size, "hasMore": more, "data": rows[first : first + size]}
        return Reply(200, {"cursor": cursor | ({"next": f"{first + size}-{size}"} if more else {})})


def _failure(code: str, text: str) -> dict[str, Any]:
    return {"responseType": "ERROR", "errorCode": code, "errorDescription": text}
