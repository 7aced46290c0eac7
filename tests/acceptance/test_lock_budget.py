"""The lock budget: nobody waits for a run longer, whatever for; and what ends a verb ends it at once."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from runner import gates
from runner.settings import Settings
from runner.systems import SYSTEMS
from tests.story import (
    QUICK,
    SAMPLE_CHARGES,
    SLOW,
    adopt,
    charges,
    config,
    ended,
    last_run,
    progress,
    run,
    sleeping,
    sql,
    start,
    until,
)

RENT = (
    "insert into property.charges (tenant_user_id, unit_id, type, description, amount_cents, billing_period)"
    " select tenant_user_id, unit_id, 'rent', 'by the application', cents, billing_period"
    " from backfill.charges_due order by tenant_user_id, unit_id, billing_period limit 1"
)
"""The application charges a period that the run is about to charge."""


@pytest.fixture
def url(database_url: str) -> str:
    return adopt(database_url)


def slowly(url: str, what: str = SLOW) -> None:
    """A trigger of the application; what the capture needs beside it is put there now, and not by the run."""
    sql(url, what, "select backfill.refresh_tracked()")


@pytest.fixture
def slow(url: str) -> str:
    """A backfill's statement takes long, once all its rows are written."""
    slowly(url)
    return url


@contextmanager
def writing(url: str, statement: str, name: str = "billing") -> Iterator[threading.Event]:
    """The application, whose one statement waits; the event says that it got through."""
    through = threading.Event()

    def write() -> None:
        with psycopg.connect(url, autocommit=True, application_name=name) as conn:
            conn.execute("set session_replication_role = replica")  # the slow trigger is not the application's
            conn.execute(statement.encode())
            through.set()

    thread = threading.Thread(target=write)
    thread.start()
    yield through
    thread.join(30)
    assert through.is_set()


def test_a_key_that_the_run_has_written_is_waited_for_no_longer_than_the_budget(
    slow: str, dump: Callable[..., str]
) -> None:
    """No lock on a table would show it: the application waits for a row that it cannot see."""
    with start(slow, "apply", "--yes") as process:
        until(lambda: sleeping(slow), "the rehearsal's slow statement")
        with writing(slow, RENT, "bil\x1b[31mling"):
            pass
        done = ended(process)
    assert done.code == 5, done
    assert "application" not in done.err.partition("error:")[2].partition("(")[0]
    assert "waited 0." in done.err
    assert "for a row or a key of property.charges that the run has written and not committed" in done.err
    assert "its query: insert into property.charges" in done.err
    assert "the lock budget is 1 s" in done.err
    assert "\x1b" not in done.err
    assert "`apply --as-of '1 hour ago'` leaves to the application" in done.err
    assert "--lock-budget" in done.err
    assert done.err.count("rehearsing: migrations") == 1  # not tried again
    assert len(charges(slow)) == 1
    sql(slow, QUICK)
    run(slow, "apply", "--yes")
    assert len(charges(slow)) == SAMPLE_CHARGES


def test_a_table_is_waited_for_no_longer_and_the_message_says_which_lock(slow: str) -> None:
    with start(slow, "apply", "--dry-run") as process:
        until(lambda: sleeping(slow), "the slow statement")
        with writing(slow, "alter table property.charges add column note text"):
            pass
        done = ended(process)
    assert done.code == 5, done
    assert "(billing, role postgres)" in done.err
    assert "for AccessExclusiveLock on property.charges, where the run holds" in done.err
    assert "RowExclusiveLock" in done.err
    assert "`runner migrate` first" in done.err


def test_without_a_limit_they_wait_as_long_as_it_takes(url: str) -> None:
    sql(url, SLOW.replace("30", "3"))
    with start(url, "apply", "--yes", "--lock-budget", "0") as process:
        until(lambda: sleeping(url), "the rehearsal's slow statement")
        with writing(url, "begin; lock table property.charges in share mode; commit"):
            pass
        assert ended(process).code == 0
    assert len(charges(url)) == SAMPLE_CHARGES
    assert "lock_budget is 0" in run(url, "doctor", "--lock-budget", "0").text
    assert run(url, "apply", "--lock-budget", "soon", code=2).err.startswith("error: --lock-budget soon: expected")


def test_who_waits_for_another_run_is_nobody_who_waits(url: str) -> None:
    """The second runner waits for the first one's advisory lock, longer than the budget, as it should."""
    sql(url, SLOW.replace("30", "2"))
    with start(url, "apply", "--yes") as first:
        until(lambda: sleeping(url), "the rehearsal's slow statement")
        sql(url, "set lock_timeout = '30s'", "begin; select backfill.take_lock(); rollback")
        assert ended(first).code == 0
    assert len(charges(url)) == SAMPLE_CHARGES


def test_a_runner_that_stands_still_in_a_transaction_is_terminated(url: str) -> None:
    """Stopped between two statements: no cancel reaches it, and it cannot watch itself."""
    with start(url, "apply", "--yes") as process:
        progress(process, "rehearsing: gates")
        os.kill(process.pid, signal.SIGSTOP)
        idle = (
            "select 1 from pg_stat_activity where application_name = 'runner apply' and state = 'idle in transaction'"
        )
        try:
            until(lambda: sql(url, idle), "the transaction that nobody goes on with")
            with writing(url, "begin; lock table property.charges, property.payments; commit"):
                pass
        finally:
            os.kill(process.pid, signal.SIGCONT)
        done = ended(process)
    assert done.code == 5, done
    assert "terminated (its client left it open)" in done.err
    assert charges(url) == []


def test_a_runner_that_stands_still_while_its_statement_runs_is_ended_too(slow: str) -> None:
    with start(slow, "apply", "--yes") as process:
        until(lambda: sleeping(slow), "the slow statement")
        os.kill(process.pid, signal.SIGSTOP)
        try:
            with writing(slow, RENT):
                pass
        finally:
            os.kill(process.pid, signal.SIGCONT)
        done = ended(process)
    assert done.code == 5, done
    assert "that the run has written and not committed" in done.err


def test_a_reversal_keeps_to_it(url: str) -> None:
    run(url, "apply", "--yes")
    slowly(url, SLOW.replace("after insert", "after delete"))
    with start(url, "rollback", last_run(url), "--yes") as process:
        until(lambda: sleeping(url), "the reversal's slow statement")
        with writing(url, "update property.charges set description = 'mine' where created_by is null"):
            pass
        done = ended(process)
    assert done.code == 5, done
    assert "for a row or a key of property.charges" in done.err
    assert "--as-of" not in done.err  # a reversal has none
    assert {row[4] for row in charges(url)} == {"mine"}


def test_a_load_keeps_to_it(url: str, tmp_path: Path) -> None:
    """Who waits for staging is as much somebody who waits as the application is."""
    bills = tmp_path / "bills.txt"
    bills.write_text("# Vattenfall\n2023-02-28 1632 kr\n2023-03-31 1467 kr\n")
    words = ("load", "electricity", str(bills), *config(tmp_path, systems=["rent"]))
    run(url, "migrate", *words[3:])
    sql(url, SLOW.replace("property.charges", "staging.electricity_bill"))
    with start(url, *words) as process:
        until(lambda: sleeping(url), "the load's slow statement")
        with writing(url, "begin; lock table staging.electricity_bill in share mode; commit"):
            pass
        done = ended(process)
    assert done.code == 5, done
    assert "for ShareLock on staging.electricity_bill, where the run holds" in done.err
    assert sql(url, "select count(*) from staging.file") == [(0,)]
    sql(url, QUICK.replace("property.charges", "staging.electricity_bill"))
    run(url, *words)
    assert sql(url, "select count(*) from staging.electricity_bill") == [(2,)]


def test_max_time_bounds_the_whole_verb(slow: str, tmp_path: Path) -> None:
    """Where nobody waits, too; and what has not begun is not begun."""
    gates.compile(Settings(conninfo=slow, systems=SYSTEMS))  # which would take the time
    done = run(slow, "apply", "--yes", "--max-time", "3s", code=1)
    assert "max_time of 3 s is over: the run was ended. Nothing of the open transaction was kept" in done.err
    assert charges(slow) == []
    done = run(slow, "apply", "--yes", *config(tmp_path, max_time="1ms"), code=1)
    assert "max_time of 0.001 s is over: nothing more was begun" in done.err


@pytest.mark.parametrize("verb", [("apply", "--yes"), ("apply", "--dry-run"), ("rollback",)])
def test_a_statement_that_somebody_cancels_ends_the_verb(url: str, verb: tuple[str, ...]) -> None:
    """It is tried no more, and it is not for the budget: exit 1, in the server's words."""
    if verb == ("rollback",):
        run(url, "apply", "--yes")
        verb = ("rollback", last_run(url), "--yes")
        sql(url, SLOW.replace("after insert", "after delete"))
    else:
        sql(url, SLOW)
    with start(url, *verb) as process:
        until(lambda: sleeping(url), "the slow statement")
        sql(url, "select pg_cancel_backend(pid) from pg_stat_activity where wait_event = 'PgSleep'"
                 " and application_name in ('runner apply', 'runner rollback')")  # fmt: skip
        done = ended(process)
    assert done.code == 1, done
    assert "a statement was cancelled" in done.err
    assert sql(url, "select count(*) from pg_stat_activity where application_name like 'runner%'") == [(0,)]


def test_a_role_that_may_not_see_others_is_told_so(slow: str) -> None:
    """It sees that somebody waits and who, not with which words."""
    sql(
        slow,
        "do $$ begin create role plain_operator login; exception when duplicate_object then null; end $$",
        "grant backfill_operator to plain_operator",
        "grant select on all tables in schema property to plain_operator",
        "grant usage on schema property to plain_operator",
    )
    operator = slow.replace("user=postgres", "user=plain_operator")
    assert "the query of who waited is hidden from this role" in run(operator, "doctor", code=None).text
    with start(operator, "apply", "charges", "--dry-run") as process:
        until(lambda: sleeping(slow), "the slow statement")
        with writing(slow, RENT):
            pass
        done = ended(process)
    assert done.code == 5, done
    assert "(billing, role postgres)" in done.err
    assert "hidden from this role (grant pg_read_all_stats shows it)" in done.err


PRICES = (
    "create schema shop",
    "create table shop.price (id integer primary key, cents bigint not null, corrected boolean not null default false)",
    "insert into shop.price select i, i from generate_series(1, 3000) as i",
    "create view shop.price_due as select id, cents from shop.price where not corrected",
    """create function shop.correct(p jsonb) returns jsonb language sql as $$
        update shop.price set cents = cents * 100, corrected = true where not corrected; select '{}'::jsonb $$""",
    """create function public.slow() returns trigger language plpgsql as $$
        begin perform pg_sleep(3); return null; end $$""",
    "create trigger slow after update on shop.price for each statement execute function public.slow()",
    "select backfill.track('shop.price', p_money => 'cents')",
    """select backfill.register(
        'prices', 'shop', 'Prices in cents', 1000, 'shop.price_due', 'shop.correct', '{shop.price}')""",
    "do $$ begin create role plain_operator login; exception when duplicate_object then null; end $$",
    "grant backfill_operator to plain_operator",
)


def test_an_operators_own_correction_of_rows_that_are_written_meanwhile(url: str, tmp_path: Path) -> None:
    """By somebody who owns nothing. By default the application goes first; where it may wait, the run gets through."""
    sql(url, *PRICES)
    gate = tmp_path / "dbt_project" / "tests" / "prices" / "prices_that_are_not_corrected.sql"
    gate.parent.mkdir(parents=True)
    gate.write_text("select 1 as price from (select 1) as nothing where false\n")
    (tmp_path / "dbt_project" / "dbt_project.yml").write_text("name: shop_gates\n")
    operator = url.replace("user=postgres", "user=plain_operator")
    words = ("apply", "prices", "--yes", *config(tmp_path, systems=[]))
    with start(operator, *words) as process:
        until(lambda: sleeping(url), "the slow statement")
        began = time.monotonic()
        with writing(url, "update shop.price set cents = cents + 1 where id = 7"):
            pass
        waited, done = time.monotonic() - began, ended(process)
    assert done.code == 5, done
    assert "for a row or a key of shop.price that the run has written" in done.err
    assert waited < 3  # the statement that it waited for takes 3 s, and would have come twice
    assert sql(url, "select count(*) filter (where corrected), min(cents) filter (where id = 7) from shop.price") == [
        (0, 8)
    ]
    with start(operator, *words, "--lock-budget", "0") as process:
        until(lambda: sleeping(url), "the slow statement")
        with writing(url, "update shop.price set cents = cents + 1 where id = 7"):
            pass
        assert ended(process).code in (0, 4)
    # What the application wrote between the rehearsal and the apply makes it another apply, once.
    run(operator, *words, "--lock-budget", "0")
    assert sql(url, "select count(*) filter (where corrected) from shop.price") == [(3000,)]
