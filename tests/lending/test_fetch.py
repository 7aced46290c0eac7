"""`runner fetch rotessa` against a stub with Rotessa's traps: what is landed, what is not, and what a kill leaves."""

from __future__ import annotations

import re
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from tests.lending.stubs.formance import Formance
from tests.lending.stubs.rotessa import KEY, SECRETS, Rotessa
from tests.lending.stubs.service import Fault
from tests.lending.world import mortgage
from tests.story import command, environment, lock_holders, run, shell, sql, until

FROM = ("fetch", "rotessa", "--from", "2024-01-01")
Toml = Callable[..., Sequence[str]]


def fill(stub: Rotessa) -> None:
    """Two customers, three schedules, twelve transactions: three pages of five with the empty one."""
    stub.customer(1, "Ada")
    stub.customer(2, "Bo & Sons", customer_type="Business")
    stub.customer(3, "Cyn")
    stub.schedule(10, 1, "1200.00")
    stub.schedule(11, 1, "50.5", "Every Other Week")
    stub.schedule(20, 2, "850.00", next_process_date=None)
    for number in range(12):
        stub.transaction(100 + number, 10, "1200.00", f"2024-{number % 9 + 1:02}-01")


def landed(url: str) -> list[Any]:
    """All that is staged, without times and ids of fetches; versions too."""
    versions = (
        "select kind, id, version, content - 'fetch_id' - 'changed_at' from staging.rotessa_version order by 1, 2"
    )
    return [
        sql(url, f"select to_jsonb(t) - 'fetch_id' - 'changed_at' from staging.{name} as t order by 1")
        for name in ("rotessa_customer", "rotessa_schedule", "rotessa_transaction")
    ] + [sql(url, versions)]


def test_everything_is_landed_once(database_url: str, rotessa: Rotessa, toml: Toml) -> None:
    fill(rotessa)
    options = toml(rotessa.base)
    first = run(database_url, *FROM, *options, "--json").json
    assert {row["kind"]: row["created"] for row in first["rows"]} == {
        "customers": 3, "schedules": 3, "transactions": 12
    }  # fmt: skip
    assert rotessa.paths()[0] == "GET /v1/customers"
    assert sorted(rotessa.paths()[1:4]) == [f"GET /v1/customers/{number}" for number in (1, 2, 3)]
    assert [request.query.get("page") for request in rotessa.requests[4:]] == ["1", "2", "3", "4"]
    schedules = "select amount_cents, frequency, customer_id from staging.rotessa_schedule order by id"
    assert sql(database_url, schedules) == [
        (120_000, "Monthly", 1), (5_050, "Every Other Week", 1), (85_000, "Monthly", 2)
    ]  # fmt: skip
    before = landed(database_url)
    again = run(database_url, *FROM, *options, "--json").json
    assert {(row["created"], row["changed"], row["rejected"]) for row in again["rows"]} == {(0, 0, 0)}
    assert landed(database_url) == before


def test_the_look_back_reads_again_what_may_have_changed(database_url: str, rotessa: Rotessa, toml: Toml) -> None:
    """Approved became Chargeback after settlement: a new version, and the old one is kept."""
    fill(rotessa)
    options = toml(rotessa.base)
    run(database_url, *FROM, *options)
    rotessa.transactions[3] |= {"status": "Chargeback", "status_reason": "NSF"}
    fetched = run(
        database_url, "fetch", "rotessa", "--from", "2024-05-01", "--to", "2024-12-31", *options, "--json"
    ).json
    assert fetched["scan_from"] == "2024-02-01"
    asked = rotessa.requests[-1].query
    assert (asked["start_date"], asked["end_date"], asked["status"]) == ("2024-02-01", "2024-12-31", "All")
    assert [row["changed"] for row in fetched["rows"]] == [0, 0, 1]
    row = "select status, status_reason, version from staging.rotessa_transaction where id = 103"
    assert sql(database_url, row) == [
        ("Chargeback", "NSF", 2)
    ]  # fmt: skip
    assert sql(database_url, "select content ->> 'status' from staging.rotessa_version") == [("Approved",)]


def test_pages_overlap_when_rows_arrive_meanwhile(database_url: str, rotessa: Rotessa, toml: Toml) -> None:
    fill(rotessa)
    for number in (50, 51, 52):
        rotessa.arriving.append(rotessa.transaction(number, 10, "1.00", "2024-01-02"))
        rotessa.transactions.pop()
    fetched = run(database_url, *FROM, *toml(rotessa.base), "--json").json
    assert fetched["rows"][2] == {"kind": "transactions", "created": 12, "changed": 0, "unchanged": 3, "rejected": 0}
    # The three that came in front of the first page are read by the next fetch.
    assert run(database_url, *FROM, *toml(rotessa.base), "--json").json["rows"][2]["created"] == 3


def test_future_rows_and_unpadded_dates_and_impossible_times(database_url: str, rotessa: Rotessa, toml: Toml) -> None:
    """A settlement date says nothing by itself; 2019-03-7 is a day; 2019-02-29T… is in a field that is not used."""
    rotessa.customer(1, "Ada")
    rotessa.schedule(10, 1, "10.00", process_date="2024-03-7")
    rotessa.transaction(1, 10, "10.00", "2024-03-7", status="Future", settlement_date="2024-03-9")
    rotessa.transaction(2, 10, "10.00", "2024-03-07", status="Pending", settlement_date="2024-03-09")
    rotessa.transaction(3, 10, "10.00", "2024-3-07")
    done = run(database_url, *FROM, *toml(rotessa.base))
    assert "Landed." in done.out
    rows = "select id, status, process_date::text, settlement_date::text from staging.rotessa_transaction order by 1"
    assert sql(database_url, rows) == [
        (1, "Future", "2024-03-07", "2024-03-09"), (2, "Pending", "2024-03-07", "2024-03-09"),
        (3, "Approved", "2024-03-07", "2024-03-07"),
    ]  # fmt: skip
    assert sql(database_url, "select process_date::text from staging.rotessa_schedule") == [("2024-03-07",)]


def test_rows_that_cannot_be_taken_are_named_and_the_others_are_landed(
    database_url: str, rotessa: Rotessa, toml: Toml
) -> None:
    fill(rotessa)
    rotessa.transactions[1]["amount"] = "12.345"
    rotessa.transactions[2]["settlement_date"] = "2024-02-30"
    rotessa.transactions[4]["status"] = "Unheard"
    done = run(database_url, *FROM, *toml(rotessa.base), code=3)
    assert "12.345" in done.text
    assert "2024-02-30" in done.text
    assert "3 rows could not be taken; all others are landed." in done.text
    assert sql(database_url, "select count(*) from staging.rotessa_transaction") == [(9,)]
    run(database_url, *FROM, *toml(rotessa.base), "--allow-rejects", "3")


def test_bank_numbers_are_nowhere(database_url: str, rotessa: Rotessa, toml: Toml, dump: Callable[..., str]) -> None:
    """Not in the database, rejects and log among it, not on the terminal, not in an error, not with --debug."""
    fill(rotessa)
    rotessa.transactions[1]["amount"] = "12.345"
    rotessa.schedules[11]["amount"] = "none"
    options = toml(rotessa.base)
    seen = [run(database_url, *FROM, *options, "--json", code=3).text]
    # Any four digits are in some hash.
    seen.append(re.sub(r"\b[0-9a-f]{32,}\b", "", dump(database_url, "--inserts", "--exclude-table-data=public._yoyo*")))
    assert "12.345" in seen[0]
    said = {"errors": [{"error_code": "invalid", "error_message": f"account {SECRETS[0]}, key {KEY}"}]}
    rotessa.faults.append(Fault("/v1/transaction_report", 422, body=said, times=2))
    seen.append(run(database_url, *FROM, *options, code=1).text)
    assert "HTTP 422: invalid account ########" in seen[-1]
    seen.append(shell(database_url, *FROM, *options, "--debug", code=1).text)
    seen.append(shell(database_url, *FROM, *options, code=1, ROTESSA_TOKEN="other-key").text)
    assert "refuses the token" in seen[-1]
    secrets = (*SECRETS, "other-key")
    assert [(secret, text[:200]) for secret in secrets for text in seen if secret in text] == []


def test_without_a_token_nothing_is_asked_or_begun(
    database_url: str, rotessa: Rotessa, toml: Toml, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ROTESSA_TOKEN")
    done = run(database_url, *FROM, *toml(rotessa.base), code=2)
    assert "ROTESSA_TOKEN is not set: nothing was asked" in done.err
    assert rotessa.requests == []
    assert sql(database_url, "select count(*) from backfill.backfill_log") == [(0,)]


def test_usage(database_url: str, rotessa: Rotessa, toml: Toml) -> None:
    for dates in (["--from", "1.2.2024"], ["--from", "2024-02-30"], ["--from", "2024-02-01", "--to", "2024-01-01"]):
        done = run(database_url, "fetch", "rotessa", *dates, *toml(rotessa.base), code=2)
        assert dates[-1] in done.err
    assert rotessa.requests == []


def test_it_gives_up_keeps_what_is_landed_and_goes_on_later(database_url: str, rotessa: Rotessa, toml: Toml) -> None:
    fill(rotessa)
    options = toml(rotessa.base)

    def fail_from_the_second_page(number: int) -> None:
        if rotessa.requests[number - 1].query.get("page") == "1":
            rotessa.faults.append(Fault("/v1/transaction_report", 503, times=4))

    rotessa.on_request = fail_from_the_second_page
    done = run(database_url, *FROM, *options, code=1)
    assert "HTTP 503, after 4 tries" in done.text
    assert "again in" in done.err
    assert sql(database_url, "select count(*) from staging.rotessa_transaction") == [(5,)]
    assert sql(database_url, "select status from backfill.backfill_log") == [("running",)]
    asked = len(rotessa.requests)
    resumed = run(database_url, *FROM, *options)
    assert "going on with one that was broken off" in resumed.text
    assert [request.query.get("page") for request in rotessa.requests[asked:]] == [None, "2", "3", "4"]
    assert sql(database_url, "select count(*) from staging.rotessa_transaction") == [(12,)]


def test_an_api_that_does_not_page_is_found_out(database_url: str, rotessa: Rotessa, toml: Toml) -> None:
    fill(rotessa)
    rotessa.faults.append(Fault("/v1/transaction_report", body=rotessa.transactions, times=99))
    done = run(database_url, *FROM, *toml(rotessa.base), code=1)
    assert "page 2 of the transaction report is page 1 again" in done.text


def test_a_customer_that_is_gone_meanwhile_stops_nobody(database_url: str, rotessa: Rotessa, toml: Toml) -> None:
    fill(rotessa)
    rotessa.faults.append(Fault("/v1/customers/1", 404, body={"errors": []}))
    run(database_url, *FROM, *toml(rotessa.base))
    assert sql(database_url, "select id from staging.rotessa_schedule") == [(20,)]


def test_schedules_of_a_customer_who_is_no_longer_listed_are_gone(
    database_url: str, rotessa: Rotessa, toml: Toml
) -> None:
    """Only where the processor says so: an empty list of customers by mistake makes nothing go."""
    fill(rotessa)
    run(database_url, *FROM, *toml(rotessa.base))
    rotessa.faults.append(Fault("/v1/customers", body=[]))
    run(database_url, *FROM, *toml(rotessa.base))
    assert sql(database_url, "select count(*) from lending.schedules where not gone") == [(3,)]
    del rotessa.customers[2]
    run(database_url, *FROM, *toml(rotessa.base))
    assert sql(database_url, "select schedule_id from lending.schedules where gone") == [(20,)]


def test_an_operator_may_fetch_and_push_and_only_an_admin_may_link(
    database_url: str, rotessa: Rotessa, formance: Formance, toml: Toml
) -> None:
    """Roles of the project, no superuser: what a verb needs is granted, and linking to lending_admin alone."""
    fill(rotessa)
    mortgage(database_url, "M-1", 1, 120_000)
    options = toml(rotessa.base, formance.url)
    for role in ("operator", "admin"):
        granted = "backfill_operator" if role == "operator" else "lending_admin"
        sql(database_url, f"drop role if exists some_{role}", f"create role some_{role} login in role {granted}")
    operator, admin = (database_url.replace("user=postgres", f"user=some_{role}") for role in ("operator", "admin"))
    try:
        run(operator, *FROM, *options)
        run(operator, "schedules", "list", *options)
        assert "permission denied" in run(operator, "schedules", "link", "10", "M-1", *options, code=1).text
        run(admin, "schedules", "link", "10", "M-1", "--backfill", *options)
        assert "12 sent, 12 confirmed" in run(operator, "ledger", "push", *options).out
        run(operator, "ledger", "verify", *options)
        run(admin, "schedules", "unlink", "10", "--reason", "why", "--keep-payments", *options)
    finally:
        sql(database_url, "drop role some_operator", "drop role some_admin")


def test_no_two_fetches_at_once(database_url: str, rotessa: Rotessa, toml: Toml) -> None:
    """The second is refused by name (exit 5); a killed one leaves no lock."""
    fill(rotessa)
    options = toml(rotessa.base, lock_wait="100ms")
    rotessa.on_request = lambda _: time.sleep(60) if len(rotessa.requests) == 1 else None
    with subprocess.Popen(command(*FROM, *options), env=environment(database_url), stderr=subprocess.PIPE) as process:
        until(lambda: rotessa.requests, "the first request")
        done = run(database_url, *FROM, *options, code=5)
        assert "another `runner fetch rotessa` is at work: process" in done.text
        process.kill()
    rotessa.on_request = lambda _: None
    until(lambda: not lock_holders(database_url), "the lock to go")
    run(database_url, *FROM, *options)


def test_killed_after_each_request_and_run_again_ends_in_the_same_state(
    database_url: str, twin_url: str, rotessa: Rotessa, toml: Toml
) -> None:
    """kill -9 at the n-th request of the n-th run, its work done and its answer not read: until one run is left alone.

    The rerun goes on, so that the kills walk through the whole fetch; staged rows, versions and the counts of the log
    are those of one fetch that nobody disturbed.
    """
    fill(rotessa)
    options = toml(rotessa.base)
    run(twin_url, *FROM, *options)
    undisturbed = len(rotessa.requests)
    killed = 0
    for nth in range(1, undisturbed + 1):
        first = len(rotessa.requests)
        with subprocess.Popen(
            command(*FROM, *options),
            env=environment(database_url),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as process:

            def kill(number: int, process: subprocess.Popen[bytes] = process, at: int = first + nth) -> None:
                if number == at:
                    process.kill()
                    process.wait()

            rotessa.on_request = kill
            process.wait(timeout=60)
        if process.returncode == 0:
            break
        assert process.returncode == -signal.SIGKILL
        killed += 1
        until(lambda: not lock_holders(database_url), "the lock of a killed fetch to go", 30)
    assert process.returncode == 0
    assert killed >= 4
    assert landed(database_url) == landed(twin_url)
    counts = "select metrics, status, errors from backfill.backfill_log where backfill = 'fetch rotessa'"
    for url in (database_url, twin_url):
        [(metrics, status, errors)] = sql(url, counts)
        assert (metrics["schedules"]["created"], metrics["transactions"]["created"]) == (3, 12)
        assert (metrics["transactions"]["rejected"], status, errors) == (0, "succeeded", [])
