"""Several at once: two runners, an application that goes on writing, and somebody who holds a lock."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest

from runner.systems import SYSTEMS
from tests.story import (
    LOCK,
    QUICK,
    SAMPLE_CHARGES,
    SLOW,
    UNIT,
    adopt,
    charges,
    config,
    duplicates,
    ended,
    holding,
    lock_holders,
    run,
    shell,
    sleeping,
    sql,
    start,
    until,
)


@pytest.fixture
def url(database_url: str) -> str:
    return adopt(database_url)


def test_the_second_runner_waits_and_then_finds_nothing(url: str) -> None:
    sql(url, SLOW.replace("30", "1"))
    with start(url, "apply", "--yes") as first:
        until(lambda: sleeping(url), "the first runner's rehearsal")
        until(lambda: not sleeping(url), "its end")
        until(lambda: sleeping(url), "the first runner's apply")
        second = shell(url, "apply", "--yes")
        done = ended(first)
    assert (done.code, "Applied and committed." in done.out) == (0, True)
    assert "Nothing is due." in second.out
    assert len(charges(url)) == SAMPLE_CHARGES
    assert sql(url, "select count(*) from backfill.backfill_log") == [(1,)]


def test_who_waited_long_enough_is_told_who_holds_the_lock(url: str, tmp_path: Path) -> None:
    with holding(url, LOCK) as other:
        for verb in (("apply", "--yes"), ("apply", "--dry-run")):
            done = run(url, *verb, *config(tmp_path, lock_wait="200ms"), code=5)
            assert f"process {other.info.backend_pid} (somebody else, role postgres)" in done.err
            assert "waited 0.2 s" in done.err
        run(url, "status")  # only looks: it needs no lock
        assert "another run holds the lock" in run(url, "doctor").out
    assert lock_holders(url) == []


def test_many_runners_started_at_once_do_it_once(url: str) -> None:
    """Whoever rehearsed before another's apply finds nothing left to do after it; nobody does it twice."""
    with (
        start(url, "apply", "--yes") as one,
        start(url, "apply", "--yes") as two,
        start(url, "apply", "--yes") as three,
    ):
        codes = sorted(ended(process).code for process in (one, two, three))
    assert codes == [0, 0, 0]
    assert len(charges(url)) == SAMPLE_CHARGES
    assert sql(url, "select count(*) from backfill.backfill_log") == [(1,)]


def test_a_table_locked_by_somebody_is_exit_5_and_says_what_to_do(
    url: str, tmp_path: Path, dump: Callable[..., str]
) -> None:
    before = dump(url, "--inserts")
    limits = config(tmp_path, lock_timeout="100ms", retries=1)
    with holding(url, "lock table property.charges in exclusive mode"):
        done = run(url, "apply", "--yes", *limits, code=5)
        assert "could not get the lock within lock_timeout" in done.err
        assert "raise lock_timeout in runner.toml" in done.err
        assert done.err.count("rehearsing: migrations") == 2  # tried again as often as configured, no more
    assert dump(url, "--inserts") == before
    run(url, "apply", "--yes")


def test_a_lock_that_is_let_go_in_time_is_only_a_wait(url: str, tmp_path: Path) -> None:
    with holding(url, "lock table property.charges in exclusive mode") as other:
        with start(url, "apply", "--yes", *config(tmp_path, lock_timeout="100ms", retries=50)) as process:
            until(
                lambda: sql(url, "select pid from pg_stat_activity where wait_event_type = 'Lock'"
                                 " and datname = current_database()"),
                "the runner's wait",
            )  # fmt: skip
            other.rollback()
            assert ended(process).code == 0
    assert len(charges(url)) == SAMPLE_CHARGES


def test_a_conflict_with_a_concurrent_writer_is_tried_again(url: str) -> None:
    """The application charges a period while the runner's snapshot is older: 40001, then again, then as rehearsed."""
    tries: list[str] = []
    again = threading.Event()

    def step(words: str) -> None:
        tries.append(words)
        if words.startswith("applying: backfill") and not again.is_set():
            again.set()
            sql(url, f"update property.units set rent_amount_cents = rent_amount_cents where id = '{UNIT}'")

    from runner import apply as apply_
    from runner.settings import Settings

    # The runner writes that row too, by a trigger: its snapshot is older than the application's update.
    sql(
        url,
        "create function public.touch() returns trigger language plpgsql as $$ begin"
        f" update property.units set rent_amount_cents = rent_amount_cents where id = '{UNIT}'; return null; end; $$",
        "create trigger touch after insert on property.charges for each statement execute function public.touch()",
    )
    report = apply_.apply(
        Settings(conninfo=url, systems=SYSTEMS), apply_.Plan(), confirm=lambda report: True, progress=step
    )
    assert report.verdict == "applied"
    assert sum(words.startswith("applying: backfill") for words in tries) == 2
    assert len(charges(url)) == SAMPLE_CHARGES


class Application(threading.Thread):
    """Writes payments with their charges, in transactions of its own, until it is stopped; keeps its errors."""

    def __init__(self, url: str, *, charge_first: bool) -> None:
        super().__init__()
        self.url, self.charge_first = url, charge_first
        self.enough, self.errors, self.written = threading.Event(), list[Exception](), 0

    def run(self) -> None:
        with psycopg.connect(self.url, application_name="application") as conn:
            while not self.enough.wait(0.05):
                try:
                    self.write(conn)
                except Exception as exc:
                    self.errors.append(exc)
                    conn.rollback()

    def write(self, conn: psycopg.Connection[Any]) -> None:
        """A new month of somebody's rent, and a month that the backfill may be charging right now."""
        self.written += 1
        new = f"{2100 + self.written // 12}-{self.written % 12 + 1:02}"
        old = f"{2023 + self.written % 2}-{self.written % 12 + 1:02}"
        steps = [(self.pay, new), (self.charge, new), (self.charge, old)]
        for step, period in reversed(steps) if self.charge_first else steps:
            step(conn, period)
        conn.commit()

    def pay(self, conn: psycopg.Connection[Any], period: str) -> None:
        conn.execute(
            "insert into property.payments (tenant_user_id, unit_id, amount_cents, payment_method, status,"
            " billing_period) values ('ada', %s, 120000, 'ach', 'succeeded', %s)",
            [UNIT, period],
        )

    def charge(self, conn: psycopg.Connection[Any], period: str) -> None:
        conn.execute(
            "insert into property.charges (tenant_user_id, unit_id, type, description, amount_cents, billing_period,"
            " created_by) select 'ada', %s, 'rent', 'Rent for ' || %s::text, 120000, %s, 'app' where not exists (select"
            " from property.charges where tenant_user_id = 'ada' and type = 'rent' and billing_period = %s)"
            " on conflict do nothing",
            [UNIT, period, period, period],
        )


@pytest.mark.parametrize("charge_first", [False, True], ids=["payment first", "charge first"])
def test_an_application_that_goes_on_writing_sees_no_error_and_no_duplicates(
    empty_database_url: str, charge_first: bool
) -> None:
    """From before the first migration: it pays and charges, in either order, while the runner adopts its tables.

    How long it waits is not judged here: on a busy machine that is longer than any budget.
    """
    patient = ("apply", "--yes", "--lock-budget", "0")
    url = adopt(empty_database_url)
    application = Application(url, charge_first=charge_first)
    application.start()
    try:
        until(lambda: application.written > 20, "the application's first months")
        # 4: it charged one of the due months in between, so that what was shown is no longer what would be done.
        run(url, "migrate", "--lock-budget", "0")
        codes = [run(url, *patient, code=None).code]
        while codes[-1] != 0 and len(codes) < 20:
            codes.append(run(url, *patient, code=None).code)
        before = application.written
        until(lambda: application.written > before + 20, "the application's last months")
    finally:
        application.enough.set()
        application.join(timeout=30)
    assert application.errors == []
    assert set(codes) <= {0, 4, 5}
    assert codes[-1] == 0
    assert duplicates(url) == []
    run(url, "apply", "--yes")
    assert sql(url, "select count(*) from backfill.charges_due") == [(0,)]
    assert sql(url, "select tenant_user_id from property.tenant_balance where balance_cents is null") == []


def test_two_months_charged_at_once_in_opposite_order_do_not_fail_the_application(url: str) -> None:
    """Both sides wait for the other's month: the runner gives way, tries again, and the application notices nothing."""
    sql(
        url,
        # The backfill's rows come in any order: it writes the last due month first, and then waits for a while.
        SLOW.replace("30", "0.8").replace("for each statement", "for each row when (new.tenant_user_id = 'dmitri'"
                     " and new.billing_period = '2024-12')").replace("after insert", "before insert")
        .replace("return null", "return new"),
    )  # fmt: skip
    with start(url, "apply", "--yes", "--lock-budget", "0") as process:
        until(lambda: sleeping(url), "the rehearsal's insert")
        with psycopg.connect(url) as conn:
            for tenant, unit, period in (("farid", "6", "2024-12"), ("ada", "1", "2023-01")):
                conn.execute(
                    "insert into property.charges (tenant_user_id, unit_id, type, description, amount_cents,"
                    " billing_period, created_by) values (%s, %s, 'rent', 'x', 1, %s, 'app') on conflict do nothing",
                    [tenant, UNIT[:-1] + unit, period],
                )
        done = ended(process)
    assert done.code in (0, 3, 4)
    sql(url, QUICK)
    assert duplicates(url) == []
