"""`runner ledger push` and `verify` against a stub with Formance's traps: nothing is ever posted twice."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.lending.stubs.formance import Formance
from tests.lending.stubs.service import Fault
from tests.lending.world import payments
from tests.story import command, environment, lock_holders, run, sql, until

PUSH = ("ledger", "push")
VERIFY = ("ledger", "verify")
Toml = Callable[..., Sequence[str]]
STATES = "select state, code, hard, transactions from ledger.push_state order by 1, 2"


def body(number: int, cents: int = 10_000, day: int = 3) -> dict[str, object]:
    """What payment `number` of world.payments() is at Formance, whoever posts it."""
    postings = [
        {"source": "world", "destination": "borrower:1:rotessa", "asset": "CAD/2", "amount": cents},
        {"source": "borrower:1:rotessa", "destination": "mortgage:m:trust", "asset": "CAD/2", "amount": cents},
    ]
    stamp = f"2024-01-{day + number:02}T00:00:00Z"
    return {"timestamp": stamp, "reference": f"rotessa:tx:{number}", "postings": postings, "metadata": {}}


def test_everything_is_sent_once_in_order_and_confirmed(database_url: str, formance: Formance, toml: Toml) -> None:
    payments(database_url, 250)
    options = toml(formance=formance.url)
    done = run(database_url, *PUSH, *options)
    assert "250 sent, 250 confirmed (0 were there already), 0 refused" in done.out
    assert formance.paths() == ["POST /v2/main/_bulk"] * 3
    assert all(request.query["parallel"] == "false" for request in formance.requests)
    assert [len(request.body) for request in formance.requests] == [100, 100, 50]
    assert [row["reference"] for row in formance.rows] == [f"rotessa:tx:{n}" for n in range(1, 251)]
    [(mortgage,)] = sql(database_url, "select id::text from lending.mortgages")
    assert formance.rows[0]["timestamp"] == "2024-01-04T00:00:00Z"
    assert formance.rows[0]["postings"] == [
        {"source": "world", "destination": "borrower:1:rotessa", "asset": "CAD/2", "amount": 10_000},
        {
            "source": "borrower:1:rotessa",
            "destination": f"mortgage:{mortgage}:trust",
            "asset": "CAD/2",
            "amount": 10_000,
        },
    ]
    assert formance.balances[f"mortgage:{mortgage}:trust", "CAD/2"] == 2_500_000
    assert "Everything in this ledger is confirmed." in run(database_url, *PUSH, *options).out
    assert len(formance.requests) == 3
    assert "The ledgers are the same." in run(database_url, *VERIFY, *options).out


def test_nothing_in_the_ledger_is_nothing_to_push_and_no_verdict(
    database_url: str, formance: Formance, toml: Toml
) -> None:
    options = toml(formance=formance.url)
    assert "Nothing to push." in run(database_url, *PUSH, *options).out
    done = run(database_url, *VERIFY, *options, code=3)
    assert "both ledgers are empty" in done.err


def test_without_formance_nothing_has_to_be_pushed(database_url: str, toml: Toml) -> None:
    for verb in (PUSH, VERIFY):
        assert "PostgreSQL is the ledger, complete" in run(database_url, *verb, *toml(), code=2).text


def test_what_cannot_be_taken_stays_with_its_reason_and_the_rest_goes_on(
    database_url: str, formance: Formance, toml: Toml
) -> None:
    """A 409 that is ours is done already; one with other postings is a hard error; funds are a reason that can go."""
    payments(database_url, 4)
    [(mortgage,)] = sql(database_url, "select id::text from lending.mortgages")
    ours = sql(database_url, "select body from ledger.formance_body where reference = 'rotessa:tx:1'")[0][0]
    formance.seed({**ours, "timestamp": "2024-01-04T00:00:00.000Z", "metadata": {"by": "live sync"}})
    formance.seed({**body(2), "reference": "rotessa:tx:2"})
    for reverse in ("rotessa:tx:3",):  # its chargeback needs funds that somebody took away
        sql(database_url, "select ledger.record_payment_chargeback(id) from lending.payments"
                          f" where source_reference = '{reverse}'")  # fmt: skip
    options = toml(formance=formance.url)
    first = run(database_url, *PUSH, *options, "--json", code=3).json
    assert (first["sent"], first["confirmed"], first["found"], first["refusals"]) == (5, 4, 1, 1)
    [refused] = first["refused"]
    assert (refused["reference"], refused["code"], refused["hard"]) == ("rotessa:tx:2", "CONFLICT", True)
    assert "mortgage:m:trust 10000 CAD/2 there" in refused["reason"]
    assert [row["reference"] for row in formance.rows][2:] == [
        "rotessa:tx:3", "rotessa:tx:4", "rotessa:tx:3:chargeback"
    ]  # fmt: skip
    # It is not sent again by itself, and keeps the exit code.
    asked = len(formance.requests)
    assert run(database_url, *PUSH, *options, "--json", code=3).json["sent"] == 0
    assert len(formance.requests) == asked
    assert f"mortgage:{mortgage}:trust" in run(database_url, *VERIFY, *options, code=3).text


def test_insufficient_funds_wait_for_the_next_try(database_url: str, formance: Formance, toml: Toml) -> None:
    payments(database_url, 2)
    options = toml(formance=formance.url)
    run(database_url, *PUSH, *options)
    [(mortgage,)] = sql(database_url, "select id::text from lending.mortgages")
    trust = f"mortgage:{mortgage}:trust", "CAD/2"
    formance.balances[trust] = 500  # paid out meanwhile
    sql(database_url, "select ledger.record_payment_chargeback(id) from lending.payments"
                      " where source_reference = 'rotessa:tx:2'")  # fmt: skip
    done = run(database_url, *PUSH, *options, code=3)
    assert "rotessa:tx:2:chargeback: INSUFFICIENT_FUND account mortgage:" in done.text
    assert sql(database_url, STATES) == [
        ("confirmed", None, False, 2), ("refused", "INSUFFICIENT_FUND", False, 1)
    ]  # fmt: skip
    formance.balances[trust] = 10_000
    run(database_url, *PUSH, *options, "--retry-refused")
    assert formance.balances[trust] == 0
    assert sql(database_url, STATES) == [("confirmed", None, False, 3)]


def test_a_failed_atomic_bulk_confirms_nothing_that_it_lists(database_url: str, formance: Formance, toml: Toml) -> None:
    payments(database_url, 3)
    formance.seed(body(2, 77))
    file = toml(formance=formance.url)[1]
    Path(file).write_text(Path(file).read_text() + "atomic = true\n")
    run(database_url, *PUSH, "--config", file, code=3)
    assert [request.query.get("atomic") for request in formance.requests[:2]] == ["true", "false"]
    ids = {row["reference"]: str(row["id"]) for row in formance.rows}
    assert sql(database_url, "select t.reference, p.formance_id from ledger.push as p join ledger.transactions as t"
                             " on t.id = p.transaction_id where p.state = 'confirmed' order by 1") == [
        ("rotessa:tx:1", ids["rotessa:tx:1"]), ("rotessa:tx:3", ids["rotessa:tx:3"])
    ]  # fmt: skip
    assert len(formance.rows) == 3


def test_a_service_that_is_down_ends_the_push_and_nothing_is_lost(
    database_url: str, formance: Formance, toml: Toml
) -> None:
    """The first bulk was even posted; only its answers never came."""
    payments(database_url, 120)
    options = toml(formance=formance.url)
    formance.faults.append(Fault("/v2/main/_bulk", 500, times=4, after_the_work=True))
    done = run(database_url, *PUSH, *options, code=1)
    assert "HTTP 500, after 4 tries" in done.text
    assert sql(database_url, STATES) == [("pending", None, None, 20), ("sent", None, False, 100)]
    run(database_url, *PUSH, *options)
    assert len(formance.rows) == 120
    assert sql(database_url, STATES) == [("confirmed", None, False, 120)]


def test_no_two_pushes_at_once(database_url: str, formance: Formance, toml: Toml) -> None:
    payments(database_url, 2)
    options = toml(formance=formance.url, lock_wait="100ms")
    formance.on_request = lambda _: time.sleep(60) if len(formance.requests) == 1 else None
    with subprocess.Popen(command(*PUSH, *options), env=environment(database_url), stderr=subprocess.PIPE) as process:
        until(lambda: formance.requests, "the first request")
        done = run(database_url, *PUSH, *options, code=5)
        assert "another `runner ledger push` is at work: process" in done.text
        process.kill()
    until(lambda: not lock_holders(database_url), "the lock to go")
    run(database_url, *PUSH, *options)
    assert len(formance.rows) == 2


def test_killed_after_each_request_nothing_is_posted_twice(database_url: str, formance: Formance, toml: Toml) -> None:
    """kill -9 at the n-th request of the n-th push, posted and not answered; with a conflict and a chargeback."""
    payments(database_url, 210)
    ours = sql(database_url, "select body from ledger.formance_body where reference = 'rotessa:tx:150'")[0][0]
    formance.seed({**ours, "metadata": {}})
    sql(database_url, "select ledger.record_payment_chargeback(id) from lending.payments"
                      " where source_reference = 'rotessa:tx:7'")  # fmt: skip
    options = toml(formance=formance.url)
    killed = 0
    for nth in range(1, 12):
        first = len(formance.requests)
        with subprocess.Popen(
            command(*PUSH, *options),
            env=environment(database_url),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as process:

            def kill(number: int, process: subprocess.Popen[bytes] = process, at: int = first + nth) -> None:
                if number == at:
                    process.kill()
                    process.wait()

            formance.on_request = kill
            process.wait(timeout=60)
        if process.returncode == 0:
            break
        assert process.returncode == -signal.SIGKILL
        killed += 1
        until(lambda: not lock_holders(database_url), "the lock of a killed push to go", 30)
    assert process.returncode == 0
    assert killed >= 3
    references = [row["reference"] for row in formance.rows]
    assert len(references) == len(set(references)) == 211
    assert sum(formance.balances.values()) == 0
    assert sql(database_url, STATES) == [("confirmed", None, False, 211)]
    formance.on_request = lambda _: None
    assert "The ledgers are the same." in run(database_url, *VERIFY, *options).out


def test_every_difference_between_the_ledgers_is_a_finding(database_url: str, formance: Formance, toml: Toml) -> None:
    """Both ways, over several pages, and nothing is written to either."""
    payments(database_url, 230)
    options = toml(formance=formance.url)
    run(database_url, *PUSH, *options)
    formance.rows[3] = {**formance.rows[3], "timestamp": "2024-06-01T00:00:00Z"}
    formance.rows[205] = {**formance.rows[205], "postings": []}
    gone = formance.rows.pop(110)
    formance.seed({**body(1), "reference": "somebody:else:1", "timestamp": "2024-01-01T00:00:00Z"})
    before = sql(database_url, "select * from ledger.push order by 1")
    asked = len(formance.requests)
    found = run(database_url, *VERIFY, *options, "--json", code=3).json
    assert (found["here"], found["there"]) == (230, 230)
    assert dict(found["counts"]) == {"confirmed, and missing in Formance": 1, "differs": 2, "only in Formance": 1}
    assert {item["reference"] for item in found["findings"]} == {
        "rotessa:tx:4", "rotessa:tx:206", gone["reference"], "somebody:else:1"
    }  # fmt: skip
    assert formance.paths()[asked:] == ["GET /v2/main/transactions"] * 3
    assert sql(database_url, "select * from ledger.push order by 1") == before
