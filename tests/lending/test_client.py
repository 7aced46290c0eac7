"""Clients against stubs on loopback: retries, bounds, secrets; no database."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from email.utils import format_datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from runner.errors import ConfigurationError, RunnerError
from runner.lending import formance as formance_
from runner.lending import rotessa as rotessa_
from runner.lending.client import (
    RemoteAccessError,
    RemoteError,
    RemoteNotFoundError,
    RemoteRefusedError,
    RemoteUnavailableError,
    in_parallel,
    retry_after,
)
from runner.lending.formance import Formance, Item
from runner.settings import Settings, load_settings
from tests.lending.stubs.formance import Formance as FormanceStub
from tests.lending.stubs.rotessa import KEY, SECRETS
from tests.lending.stubs.rotessa import Rotessa as RotessaStub
from tests.lending.stubs.service import Fault

DAY = date(2024, 1, 1)
QUICK: dict[str, Any] = {"first_wait": "5ms", "tries": 3}


@pytest.fixture
def stub() -> Iterator[RotessaStub]:
    with RotessaStub(page_size=2) as service:
        service.customer(1, "Ada")
        service.schedule(10, 1, "100.00")
        for number in range(3):
            service.transaction(100 + number, 10, "100.00", f"2024-0{number + 1}-01")
        yield service


def rotessa(stub: RotessaStub, key: str = KEY, **table: Any) -> rotessa_.Rotessa:
    settings = Settings(tables={"lending": {"rotessa": {"host": stub.base, **QUICK, **table}}})
    return rotessa_.Rotessa(rotessa_.configure(settings, environment={"ROTESSA_TOKEN": key}))


def test_only_named_fields_leave_the_client(stub: RotessaStub) -> None:
    """Every place where the API has bank numbers, comments among them; none comes through."""
    with rotessa(stub) as api:
        row, history = api.schedule(10)
        everything = repr(
            [api.customers(), api.schedules_of(1), api.transactions(1, start=DAY, end=None), row, history]
        )
    assert "2024-03-01" in everything
    assert not [secret for secret in SECRETS if secret in everything]


def test_amounts_keep_every_digit() -> None:
    """A number where the contract has a text is no float on its way."""
    with RotessaStub() as stub:
        stub.customer(1, "Ada")
        stub.schedule(10, 1, "1.00")
        stub.schedules[10]["amount"] = 1234567.15
        with rotessa(stub) as api:
            assert api.schedules_of(1)[0]["amount"] == "1234567.15"


@pytest.mark.parametrize("dates", ["query", "body"])
def test_dates_are_sent_as_configured(stub: RotessaStub, dates: str) -> None:
    with rotessa(stub, dates=dates) as api:
        assert [row["id"] for row in api.transactions(1, start=date(2024, 2, 1), end=date(2024, 2, 9))] == [101]
    [request] = stub.requests
    asked = {"start_date": "2024-02-01", "end_date": "2024-02-09", "status": "All", "page": 1}
    if dates == "body":
        assert (request.query, request.body) == ({}, asked)
    else:
        assert (request.query, request.raw) == ({name: str(value) for name, value in asked.items()}, b"")


@pytest.mark.parametrize("asks", [str, lambda s: format_datetime(datetime.now(UTC) + timedelta(seconds=s + 1), True)])
def test_retry_after_is_honoured_as_seconds_and_as_a_date(stub: RotessaStub, asks: Any) -> None:
    stub.faults.append(Fault("/v1/customers", 429, {"Retry-After": asks(1)}))
    started = time.monotonic()
    with rotessa(stub) as api:
        assert [row["name"] for row in api.customers()] == ["Ada"]
    assert 1 <= time.monotonic() - started < 5
    assert len(stub.requests) == 2


def test_retry_after_as_it_may_be_written() -> None:
    now = datetime(2024, 1, 1, tzinfo=UTC)
    assert retry_after("120", now=now) == 120
    assert retry_after("Mon, 01 Jan 2024 00:01:30 GMT", now=now) == 90
    assert retry_after("Sun, 31 Dec 2023 00:00:00 GMT", now=now) == 0
    assert retry_after("soon", now=now) is None
    assert retry_after(None) is None


def test_a_wait_that_is_too_long_is_named_and_not_waited_for(stub: RotessaStub) -> None:
    stub.faults.append(Fault("/v1/customers", 429, {"Retry-After": "86400"}))
    with rotessa(stub) as api, pytest.raises(RemoteUnavailableError, match="86,400 s, after 1 try"):
        api.customers()
    assert len(stub.requests) == 1


@pytest.mark.parametrize(
    "fault", [{"status": 500}, {"status": 503}, {"cut": 40}, {"cut": 0}, {"cut": 40, "announced": False}]
)
def test_a_service_that_fails_now_and_then_is_asked_again_and_not_for_ever(
    stub: RotessaStub, fault: dict[str, Any]
) -> None:
    """500s, and a connection that is cut in the middle of a page or before it."""
    stub.faults.append(Fault("/v1/transaction_report", times=2, **fault))
    with rotessa(stub) as api:
        assert [row["id"] for row in api.transactions(1, start=DAY, end=None)] == [100, 101]
        assert len(stub.requests) == 3
        stub.faults.append(Fault("/v1/transaction_report", times=9, **fault))
        with pytest.raises(RemoteUnavailableError, match=r"after 3 tries.*run the same command again"):
            api.transactions(1, start=DAY, end=None)
    assert len(stub.requests) == 6


def test_nobody_listens() -> None:
    with RotessaStub() as stub:
        base = stub
    with rotessa(base) as api, pytest.raises(RemoteUnavailableError, match="no connection"):
        api.customers()


@pytest.mark.parametrize(
    ("status", "kind"),
    [(400, RemoteRefusedError), (401, RemoteAccessError), (404, RemoteNotFoundError), (406, RemoteRefusedError),
     (418, RemoteError), (422, RemoteRefusedError)],
)  # fmt: skip
def test_errors_are_named_and_hold_no_secret(stub: RotessaStub, status: int, kind: type[RunnerError]) -> None:
    said = {"errors": [{"error_code": "bad_thing", "error_message": f"account {SECRETS[0]} with key 9{KEY}\x1b[31m"}]}
    stub.faults.append(Fault("/v1/customers", status, body=said))
    with rotessa(stub) as api, pytest.raises(kind) as caught:
        api.customers()
    assert f"HTTP {status}: bad_thing account ########" in str(caught.value)
    assert SECRETS[0] not in str(caught.value)
    assert "\x1b" not in str(caught.value)
    assert len(stub.requests) == 1


def test_a_wrong_key_is_refused_without_being_shown(stub: RotessaStub) -> None:
    with rotessa(stub, key="secret-key-1234") as api, pytest.raises(RemoteAccessError) as caught:
        api.customers()
    assert "ROTESSA_TOKEN" in str(caught.value)
    assert "1234" not in str(caught.value)
    assert "secret-key" not in repr(api.configuration)


@pytest.mark.parametrize(
    ("table", "key", "words"),
    [
        ({}, "", "ROTESSA_TOKEN is not set"),
        ({}, 'a"b', "ROTESSA_TOKEN holds"),
        ({"host": "staging"}, KEY, "expected production, sandbox or an address"),
        ({"host": "http://rotessa.example"}, KEY, "https only"),
        ({"host": "https://u:p@rotessa.example"}, KEY, "no user or password"),
        ({"token": "tell-nobody"}, KEY, "from the environment only"),
        ({"dates": "header"}, KEY, "expected query or body"),
        ({"concurrency": 0}, KEY, "from 1 to 16"),
        ({"tries": True}, KEY, "from 1 to 20"),
        ({"timeout": "soon"}, KEY, "expected milliseconds"),
        ({"look_back_days": -1}, KEY, "from 0 to 3660"),
        ({"wurst": 1}, KEY, "unknown key 'wurst'"),
    ],
)
def test_settings_are_checked_before_the_first_request(table: dict[str, Any], key: str, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words) as caught:
        rotessa_.configure(
            Settings(tables={"lending": {"rotessa": table}}), environment={"ROTESSA_TOKEN": key} if key else {}
        )
    assert caught.value.exit_code == 2
    assert "tell-nobody" not in str(caught.value)
    assert '"b' not in str(caught.value)


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ("[lending]\nrotessa = 'tell-nobody'\n", r"expected a table, \[lending\.rotessa\]"),
        ("[lending]\nformance = 'tell-nobody'\n", r"expected a table, \[lending\.formance\]"),
        ("lending = 'tell-nobody'\n", r"expected a table, \[lending\]"),
        ("[lending.rotesa]\nhost = 'tell-nobody'\n", r"\[lending\]: unknown key 'rotesa'; known are rotessa, formance"),
    ],
)
def test_a_table_is_wanted_and_its_value_is_not_repeated(tmp_path: Path, written: str, words: str) -> None:
    file = tmp_path / "runner.toml"
    file.write_text(written)
    for configure in (rotessa_.configure, formance_.configure):
        with pytest.raises(ConfigurationError, match=words) as caught:
            configure(load_settings(config=file, environ={}), environment={})
        assert "tell-nobody" not in str(caught.value)


def test_both_hosts() -> None:
    urls = [
        rotessa_.configure(Settings(), host=host, environment={"ROTESSA_TOKEN": KEY}).access.url
        for host in (None, "production", "sandbox")
    ]
    assert urls == ["https://api.rotessa.com/v1", *urls[:1], "https://sandbox-api.rotessa.com/v1"]


def test_never_more_at_once_than_allowed(stub: RotessaStub) -> None:
    for number in range(2, 30):
        stub.customer(number, "x")
    stub.on_request = lambda _: time.sleep(0.01)
    with rotessa(stub, concurrency=3) as api:
        found = dict(in_parallel(api.schedules_of, range(1, 30), workers=3))
    assert len(found) == 29
    assert stub.most_at_work == 3


def test_when_one_is_told_to_wait_all_wait(stub: RotessaStub) -> None:
    for number in range(2, 9):
        stub.customer(number, "x")
    stub.faults.append(Fault("/v1/customers/1", 429, {"Retry-After": "1"}))
    times: list[float] = []
    stub.on_request = lambda _: times.append(time.monotonic())
    with rotessa(stub, concurrency=2) as api:
        assert len(dict(in_parallel(api.schedules_of, range(1, 9), workers=2))) == 8
    pauses = [after - before for before, after in pairwise(times)]
    assert max(pauses) > 0.9
    assert pauses.index(max(pauses)) <= 2  # at most the request that was under way came in between


# Formance


def item(number: int, cents: int = 100, source: str = "world", day: str = "2024-01-31") -> Item:
    body = {
        "timestamp": f"{day}T00:00:00Z",
        "reference": f"rotessa:tx:{number}",
        "postings": [{"source": source, "destination": "borrower:1:rotessa", "asset": "CAD/2", "amount": cents}],
        "metadata": {},
    }
    return Item(str(body["reference"]), f"key-{number}", body)


def formance(stub: FormanceStub, **table: Any) -> Formance:
    return Formance(
        formance_.configure(
            Settings(tables={"lending": {"formance": {"url": stub.url, **QUICK, **table}}}), environment={}
        )
    )


@pytest.fixture
def ledger() -> Iterator[FormanceStub]:
    with FormanceStub() as service:
        yield service


def states(outcomes: list[formance_.Outcome]) -> list[tuple[str, str, bool]]:
    return [(outcome.state, outcome.code, outcome.hard) for outcome in outcomes]


def test_each_of_a_bulk_stands_alone(ledger: FormanceStub) -> None:
    with formance(ledger) as api:
        outcomes = api.post([item(1), item(2, 500, "borrower:2:rotessa"), item(3, source="not a name"), item(4)])
    assert states(outcomes) == [
        ("confirmed", "", False), ("refused", "INSUFFICIENT_FUND", False), ("refused", "VALIDATION", False),
        ("confirmed", "", False),
    ]  # fmt: skip
    assert outcomes[1].reason == "account borrower:2:rotessa had insufficient funds"
    assert [row["reference"] for row in ledger.rows] == ["rotessa:tx:1", "rotessa:tx:4"]


def test_a_failed_atomic_bulk_that_lists_successes_is_not_believed(ledger: FormanceStub) -> None:
    """The trap: two of three are listed with an id, and none of them is there."""
    items = [item(1), item(2, 500, "borrower:2:rotessa"), item(3)]
    with formance(ledger, atomic=True) as api:
        listed = api._bulk(items, atomic=True)
        assert listed.body["data"][0]["responseType"] == "CREATE_TRANSACTION"
        assert ledger.rows == []
        outcomes = api.post(items)
    assert states(outcomes)[1] == ("refused", "INSUFFICIENT_FUND", False)
    there = {row["reference"]: str(row["id"]) for row in ledger.rows}
    assert {o.reference: o.remote_id for o in outcomes if o.state == "confirmed"} == there
    assert list(there) == ["rotessa:tx:1", "rotessa:tx:3"]


def test_an_atomic_bulk_that_holds_is_one_request(ledger: FormanceStub) -> None:
    with formance(ledger, atomic=True) as api:
        api.post([item(number) for number in range(100)])
    assert ledger.paths() == ["POST /v2/main/_bulk"]
    assert len(ledger.rows) == 100


def test_a_409_is_compared_and_only_the_same_is_done_already(ledger: FormanceStub) -> None:
    """Postings and timestamp decide, not the metadata; the same point in time may be written otherwise."""
    same, later, other = item(1), item(2), item(3)
    ledger.seed({**same.body, "timestamp": "2024-01-31T00:00:00.000Z", "metadata": {"by": "live sync"}})
    ledger.seed({**later.body, "timestamp": "2024-02-01T00:00:00Z"})
    ledger.seed({**item(3, 999).body})
    with formance(ledger) as api:
        outcomes = api.post([same, later, other, item(4)])
    assert states(outcomes) == [
        ("confirmed", "", False), ("refused", "CONFLICT", True), ("refused", "CONFLICT", True), ("confirmed", "", False)
    ]  # fmt: skip
    assert outcomes[0].found
    assert "timestamp 2024-02-01T00:00:00Z there, 2024-01-31T00:00:00Z here" in outcomes[1].reason
    assert "borrower:1:rotessa 999 CAD/2 there" in outcomes[2].reason
    assert len(ledger.rows) == 4


def test_a_key_that_was_used_with_another_body_is_told_apart(ledger: FormanceStub) -> None:
    """In a bulk that is INTERNAL, which could be anything: alone the service says what it is."""
    with formance(ledger) as api:
        api.post([item(1)])
        changed = Item("rotessa:tx:1", "key-1", {**item(1, 7).body})
        stranger = Item("rotessa:tx:9", "key-1", {**item(9).body})
        assert states(api.post([changed, stranger])) == [
            ("refused", "CONFLICT", True),
            ("refused", "VALIDATION", False),
        ]
    assert len(ledger.rows) == 1


def test_sent_again_with_its_key_it_is_posted_once(ledger: FormanceStub) -> None:
    """The answer was lost; the client asks again by itself."""
    for fault in (Fault("/v2/main/_bulk", 502, after_the_work=True), Fault("/v2/main/_bulk", cut=20)):
        ledger.faults.append(fault)
    with formance(ledger) as api:
        assert states(api.post([item(1), item(2)])) == [("confirmed", "", False)] * 2
    assert len(ledger.rows) == 2
    assert len({request.raw for request in ledger.requests}) == 1


def test_a_server_that_takes_fewer_gets_fewer_in_the_same_order() -> None:
    with FormanceStub(in_bulk=30) as ledger, formance(ledger) as api:
        outcomes = api.post([item(number) for number in range(100)])
        assert [outcome.reference for outcome in outcomes] == [row["reference"] for row in ledger.rows]
        assert [len(request.body) for request in ledger.requests] == [100, 50, 25, 25, 25, 25]
        api.post([item(number) for number in range(100, 150)])
        assert [len(request.body) for request in ledger.requests[6:]] == [25, 25]


def test_answers_that_cannot_be_mapped_are_not_guessed_at(ledger: FormanceStub) -> None:
    first, second = ledger.seed({**item(1).body}), ledger.seed({**item(2).body})
    swapped = [{"responseType": "CREATE_TRANSACTION", "data": row} for row in (second, first)]
    ledger.faults.append(Fault("/v2/main/_bulk", body={"data": swapped}))
    ledger.faults.append(Fault("/v2/main/_bulk", body={"data": swapped[:1]}))
    with formance(ledger) as api:
        for _ in range(2):
            assert [outcome.remote_id for outcome in api.post([item(1), item(2)])] == ["0", "1"]


def test_a_service_that_is_broken_inside_is_no_refusal(ledger: FormanceStub) -> None:
    """INTERNAL for an element, and 500 when it is asked for alone: nothing is said about the transaction."""
    broken = {"data": [{"responseType": "ERROR", "errorCode": "INTERNAL", "errorDescription": "context canceled"}]}
    ledger.faults += [Fault("/v2/main/_bulk", 400, body=broken), Fault("/v2/main/transactions", 500, times=3)]
    with formance(ledger) as api, pytest.raises(RemoteUnavailableError, match="HTTP 500, after 3 tries"):
        api.post([item(1)])


def test_no_such_ledger(ledger: FormanceStub) -> None:
    with formance(ledger, ledger="other") as api, pytest.raises(RemoteNotFoundError, match="LEDGER_NOT_FOUND"):
        api.post([item(1)])


def test_every_page_of_a_ledger(ledger: FormanceStub) -> None:
    for number in range(250):
        ledger.seed({**item(number).body})
    with formance(ledger) as api:
        assert [len(page) for page in api.transactions()] == [100, 100, 50]


def test_without_formance_postgresql_is_the_ledger() -> None:
    with pytest.raises(ConfigurationError, match="PostgreSQL is the ledger, complete"):
        formance_.configure(Settings(), environment={})
