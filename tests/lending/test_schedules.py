"""`runner schedules`: what is unlinked is shown, people decide, and a history comes with its true dates."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable, Sequence

import pytest

from tests.lending.stubs.rotessa import Rotessa
from tests.lending.stubs.service import Fault
from tests.lending.world import history, mortgage
from tests.story import ended, run, sql, start

Toml = Callable[..., Sequence[str]]
FETCH = ("fetch", "rotessa", "--from", "2024-06-01")


@pytest.fixture
def options(database_url: str, rotessa: Rotessa, toml: Toml) -> Sequence[str]:
    """Ada with two schedules and one mortgage, Bo with one of each, Cyn without a customer; fetched from June on."""
    rotessa.customer(1, "Ada Lovelace")
    rotessa.customer(2, "Bo")
    rotessa.schedule(10, 1, "1200.00")
    rotessa.schedule(11, 1, "75.00", "Every Other Week")
    rotessa.schedule(20, 2, "850.00")
    history(rotessa, 10, "1200.00", ["2024-01", "2024-02", "2024-07", "2024-08"])
    mortgage(database_url, "M-1", 1, 120_000, "Ada Lovelace")
    mortgage(database_url, "M-2", 2, 85_500, "Bo")
    mortgage(database_url, "M-3", None, 85_000, "Cyn")
    options = toml(rotessa.base)
    run(database_url, *FETCH, *options)
    return options


def links(url: str) -> dict[str, int | None]:
    return dict(sql(url, "select number, rotessa_schedule_id from lending.mortgages order by number"))


def test_both_sides_are_shown_side_by_side(database_url: str, options: Sequence[str]) -> None:
    done = run(database_url, "schedules", "list", *options)
    lines = [" ".join(line.split()) for line in done.out.splitlines()]
    assert lines[0] == "Mortgages without a schedule 3 Unlinked schedules 3"
    assert lines[2:8] == [
        "M-1 Ada Lovelace 1,200.00 10 Ada Lovelace 1,200.00 Monthly = M-1",
        "M-2 Bo 855.00 2026-12-01",
        "M-3 Cyn 850.00 11 Ada Lovelace 75.00 2 weeks c M-1",
        "2026-12-01",
        "20 Bo 850.00 Monthly c M-2",
        "2026-12-01 a M-3",
    ]
    assert max(map(len, done.out.splitlines())) <= 100
    found = run(database_url, "schedules", "list", *options, "--json").json
    assert [(s["schedule_id"], s["customer_name"], s["amount_cents"], s["frequency"]) for s in found["schedules"]] == [
        (10, "Ada Lovelace", 120_000, "Monthly"), (11, "Ada Lovelace", 7_500, "Every Other Week"),
        (20, "Bo", 85_000, "Monthly"),
    ]  # fmt: skip
    assert [s["mortgage"] for s in found["schedules"][2]["suggestions"]] == ["M-2", "M-3"]
    assert links(database_url) == {"M-1": None, "M-2": None, "M-3": None}


def test_a_link_asks_the_processor_and_a_schedule_that_is_gone_there_is_refused(
    database_url: str, rotessa: Rotessa, options: Sequence[str]
) -> None:
    done = run(database_url, "schedules", "link", "10", "M-1", *options)
    assert "Schedule 10 is linked to mortgage M-1 (active)." in done.out
    assert rotessa.paths()[-1] == "GET /v1/transaction_schedules/10"
    del rotessa.schedules[20]
    done = run(database_url, "schedules", "link", "20", "M-2", *options, code=1)
    assert "schedule 20 does not exist at Rotessa" in done.text
    assert links(database_url) == {"M-1": 10, "M-2": None, "M-3": None}


def test_without_a_token_it_says_that_it_relied_on_the_staged_copy(
    database_url: str, rotessa: Rotessa, options: Sequence[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ROTESSA_TOKEN")
    asked = len(rotessa.requests)
    done = run(database_url, "schedules", "link", "10", "M-1", "--backfill", *options)
    assert "known from the staged copy only" in done.out
    assert "the staged copy was used" in done.out
    assert "Backfill succeeded: 2 payments" in done.out
    assert len(rotessa.requests) == asked
    assert "needs ROTESSA_TOKEN" in run(
        database_url, "schedules", "link", "20", "M-2", "--host", "sandbox", *options, code=2
    ).text  # fmt: skip


def test_another_customer_needs_a_reason_which_is_kept(database_url: str, options: Sequence[str]) -> None:
    done = run(database_url, "schedules", "link", "20", "M-3", *options, code=1)
    assert "--override-mismatch REASON" in done.text
    assert links(database_url)["M-3"] is None
    run(database_url, "schedules", "link", "20", "M-3", "--override-mismatch", "Bo pays for Cyn", *options)
    assert sql(database_url, "select parameters ->> 'override_mismatch' from lending.runs"
                             " where backfill = 'link_schedule'") == [("Bo pays for Cyn",)]  # fmt: skip
    done = run(database_url, "schedules", "link", "20", "M-2", *options, code=1)
    assert "it is linked to mortgage M-3" in done.text


def test_a_backfill_brings_the_whole_history_with_its_true_dates(
    database_url: str, rotessa: Rotessa, options: Sequence[str]
) -> None:
    """January and February were never fetched: they come with the schedule's own history. Future rows do not."""
    rotessa.transaction(1900, 10, "1200.00", "2026-09-01", status="Future")
    done = run(database_url, "schedules", "link", "10", "M-1", "--backfill", *options)
    assert "Backfill succeeded: 4 payments" in done.out
    assert "4,800.00 in all; 0 failed" in done.text
    assert sql(database_url, "select t.reference, to_char(t.effective_at at time zone 'UTC', 'YYYY-MM-DD HH24:MI')"
                             " from ledger.transactions as t order by 2") == [
        ("rotessa:tx:1000", "2024-01-03 00:00"), ("rotessa:tx:1001", "2024-02-03 00:00"),
        ("rotessa:tx:1002", "2024-07-03 00:00"), ("rotessa:tx:1003", "2024-08-03 00:00"),
    ]  # fmt: skip
    again = run(database_url, "schedules", "link", "10", "M-1", "--backfill", *options, "--json").json
    assert (again["backfill"]["payments"], again["backfill"]["fetched"]["created"]) == (0, 0)
    assert sql(database_url, "select sum(amount)::bigint, count(*) from ledger.postings") == [(0, 16)]


def test_the_log_has_the_backfill_before_its_first_fetch(
    database_url: str, rotessa: Rotessa, options: Sequence[str]
) -> None:
    """Rotessa goes down between link and history: the link stands, the run is seen, the same command goes on."""
    seen: list[list[tuple[object, ...]]] = []
    runs = (
        "select status, mortgage, schedule_id, triggered_by <> '' from lending.runs where backfill = 'lending_payments'"
    )
    before = len(rotessa.requests)

    def look(number: int) -> None:
        seen.append(sql(database_url, runs))
        if number == before + 1:
            rotessa.faults.append(Fault("/v1/transaction_schedules", 500, times=4))

    rotessa.on_request = look
    run(database_url, "schedules", "link", "10", "M-1", "--backfill", *options, code=1)
    assert seen == [[], *[[("running", "M-1", 10, True)]] * 4]
    assert links(database_url)["M-1"] == 10
    rotessa.on_request = lambda _: None
    done = run(database_url, "schedules", "link", "10", "M-1", "--backfill", *options, "--json").json
    assert (done["backfill"]["resumed"], done["backfill"]["payments"]) == (True, 4)
    assert sql(database_url, runs) == [("succeeded", "M-1", 10, True)]


def test_killed_at_each_request_of_a_link_and_run_again(
    database_url: str, rotessa: Rotessa, options: Sequence[str]
) -> None:
    """kill -9 while it asks whether the schedule exists: nothing. While it fetches the history: link and run."""
    link = ("schedules", "link", "10", "M-1", "--backfill", *options)
    state = """
        select (select count(rotessa_schedule_id) from lending.mortgages), array(
            select backfill || ' ' || status from lending.runs where backfill <> 'fetch rotessa' order by started_at
        )
    """
    before = len(rotessa.requests)
    for at, wanted in (
        (before + 1, (0, [])),
        (before + 3, (1, ["link_schedule succeeded", "lending_payments running"])),
    ):
        with start(database_url, *link) as process:

            def kill(number: int, process: subprocess.Popen[str] = process, at: int = at) -> None:
                if number == at:
                    process.kill()
                    process.wait()

            rotessa.on_request = kill
            assert ended(process).code == -signal.SIGKILL
        assert sql(database_url, state) == [wanted]
    rotessa.on_request = lambda _: None
    assert run(database_url, *link, "--json").json["backfill"]["payments"] == 4
    assert sql(database_url, state) == [(1, ["link_schedule succeeded", "lending_payments succeeded"])]
    assert sql(database_url, "select count(*) from ledger.transactions") == [(4,)]


def test_one_payment_that_cannot_be_written_stops_no_other(
    database_url: str, rotessa: Rotessa, options: Sequence[str]
) -> None:
    sql(database_url, "select ledger.close_period('2024-02', 'filed')")
    done = run(database_url, "schedules", "link", "10", "M-1", "--backfill", *options, code=3)
    assert "3 payments" in done.out
    assert "rotessa:tx:1001: 2024-02 was closed" in done.text
    assert "What failed stays due" in done.out
    assert sql(database_url, "select count(*) from lending.payments") == [(3,)]


def test_a_link_is_taken_back_by_a_reversal(database_url: str, options: Sequence[str]) -> None:
    run(database_url, "schedules", "link", "10", "M-1", "--backfill", *options)
    done = run(database_url, "schedules", "unlink", "10", "--reason", "wrong mortgage", *options, code=6)
    assert "has 4 payments on mortgage M-1" in done.text
    run(database_url, "schedules", "unlink", "10", "--reason", "replaced", "--keep-payments", *options)
    assert links(database_url)["M-1"] is None
    assert sql(database_url, "select status from backfill.backfill_log where backfill = 'link_schedule'"
                             " and mode = 'manual'") == [
        ("reversed",)
    ]  # fmt: skip
    run(database_url, "schedules", "unlink", "10", "--reason", "again", *options, code=6)


def test_usage(database_url: str, options: Sequence[str]) -> None:
    run(database_url, "schedules", "link", "0", "M-1", *options, code=2)
    run(database_url, "schedules", "link", "10", "M-9", *options, code=2)
    run(database_url, "schedules", "unlink", "10", *options, code=2)
