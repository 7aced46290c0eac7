"""Connections, guards, the advisory lock and retries, with real sessions."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest

from runner import embedded
from runner.database import connect, guard, locked_transaction, retrying, take_lock, transaction
from runner.errors import ConnectError, LockedError, RunnerError, ServerGoneError
from runner.holders import holders_of_lock
from runner.settings import Settings
from tests.engine.words import refusal

SECRET = "hunter2secret"


def show(conn: psycopg.Connection, name: str) -> str:
    row = conn.execute("select current_setting(%s)", [name]).fetchone()
    assert row is not None
    return str(row[0])


def test_guards_hold_for_the_transaction_and_end_with_it(empty_settings: Settings) -> None:
    names = ("lock_timeout", "statement_timeout", "idle_in_transaction_session_timeout", "row_security")
    with connect(empty_settings) as conn:
        before = [show(conn, name) for name in names]
        conn.rollback()
        with transaction(conn, replace(empty_settings, statement_timeout=60_000)):
            assert [show(conn, name) for name in names] == ["500ms", "1min", "5min", "off"]
            assert show(conn, "transaction_isolation") == "repeatable read"
            assert show(conn, "client_connection_check_interval") == "5s"
        assert [show(conn, name) for name in names] == before


def test_a_transaction_commits_or_rolls_back(empty_settings: Settings) -> None:
    with connect(empty_settings) as conn:
        with transaction(conn, empty_settings):
            conn.execute("create table public.kept ()")
        with pytest.raises(ZeroDivisionError):
            with transaction(conn, empty_settings):
                conn.execute("create table public.lost ()")
                raise ZeroDivisionError
        with transaction(conn, empty_settings):
            conn.execute("create table public.rehearsed ()")
            conn.rollback()
        found = conn.execute("select relname from pg_class where relnamespace = 'public'::regnamespace").fetchall()
    assert found == [("kept",)]


def test_a_second_runner_is_told_who_holds_the_lock(empty_settings: Settings) -> None:
    with connect(empty_settings, application_name="runner apply") as first, connect(empty_settings) as second:
        with locked_transaction(first, empty_settings):
            started = time.monotonic()
            with pytest.raises(LockedError) as caught:
                take_lock(second, empty_settings)
            assert time.monotonic() - started < 5
            [holder] = holders_of_lock(second)
            assert holder.pid == first.info.backend_pid
            second.rollback()
        assert caught.value.exit_code == 5
        assert f"process {first.info.backend_pid} (runner apply, role postgres) since 2" in str(caught.value)
        assert "waited 0.5 s" in str(caught.value)
        take_lock(second, empty_settings)


def test_the_lock_is_the_one_that_sql_takes(empty_settings: Settings) -> None:
    with connect(empty_settings) as conn, psycopg.connect(empty_settings.conninfo) as editor:
        editor.execute("select pg_advisory_xact_lock(hashtextextended('backfill', 0))")
        with pytest.raises(LockedError):
            take_lock(conn, empty_settings)


def test_the_lock_is_one_per_database(empty_settings: Settings, settings: Settings) -> None:
    with connect(empty_settings) as first, connect(settings) as second:
        with locked_transaction(first, empty_settings), locked_transaction(second, settings):
            assert [holder.pid for holder in holders_of_lock(second)] == [second.info.backend_pid]


def test_whoever_waited_sees_what_the_holder_committed(empty_settings: Settings) -> None:
    patient = replace(empty_settings, lock_wait=20_000)
    seen: list[int] = []
    with connect(patient) as holder, connect(patient) as waiter:
        with transaction(holder, patient):
            holder.execute("create table public.work (id int)")

        def wait() -> None:
            with locked_transaction(waiter, patient):
                row = waiter.execute("select count(*) from public.work").fetchone()
                seen.append(row[0] if row else -1)

        with locked_transaction(holder, patient):
            thread = threading.Thread(target=wait)
            thread.start()
            time.sleep(0.5)
            holder.execute("insert into public.work values (1)")
        thread.join(timeout=20)
    assert seen == [1]


def test_many_runners_take_turns_and_none_works_on_an_old_snapshot(empty_settings: Settings) -> None:
    patient = replace(empty_settings, lock_wait=60_000)
    with psycopg.connect(empty_settings.conninfo) as conn:
        conn.execute("create table public.counter as select 0 as n")

    def work() -> None:
        with connect(patient) as conn:
            for _ in range(5):
                with locked_transaction(conn, patient):
                    # Fails with 40001 when the snapshot is older than the lock.
                    conn.execute("update public.counter set n = n + 1")

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=120)
    with psycopg.connect(empty_settings.conninfo) as conn:
        assert conn.execute("select n from public.counter").fetchone() == (20,)


def test_a_killed_runner_leaves_no_lock_and_no_rows(empty_settings: Settings, tmp_path: Path) -> None:
    with psycopg.connect(empty_settings.conninfo) as conn:
        conn.execute("create table public.work (id int)")
    script = tmp_path / "holder.py"
    script.write_text(
        "import sys, time\n"
        "from runner.database import connect, locked_transaction\n"
        "from runner.settings import Settings\n"
        "settings = Settings(conninfo=sys.argv[1])\n"
        "with connect(settings) as conn, locked_transaction(conn, settings):\n"
        "    conn.execute('insert into public.work values (1)')\n"
        "    print('holding', flush=True)\n"
        "    conn.execute('select pg_sleep(60)')\n"
    )
    with subprocess.Popen([sys.executable, str(script), empty_settings.conninfo], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"holding\n"
        process.kill()
    # The statement was still running: the server notices through client_connection_check_interval, 5 s.
    patient = replace(empty_settings, lock_wait=20_000)
    with connect(patient) as conn, locked_transaction(conn, patient):
        assert conn.execute("select count(*) from public.work").fetchone() == (0,)


def test_a_server_that_goes_away_is_one_clear_error() -> None:
    with embedded.running(options=embedded.UNSAFE_BUT_FAST) as server:
        settings = Settings(conninfo=server.url())
        with pytest.raises(ServerGoneError, match="Nothing of the open transaction was kept"):
            with connect(settings) as conn, transaction(conn, settings):
                server.kill()
                conn.execute("select 1")
        with pytest.raises(ConnectError, match="check host, and that the server runs"):
            with connect(settings):
                pass


def test_serialization_failures_are_retried_a_bounded_number_of_times(empty_settings: Settings) -> None:
    with psycopg.connect(empty_settings.conninfo) as setup:
        setup.execute("create table public.counter as select 0 as n")
    waits: list[float] = []
    with connect(empty_settings) as conn, psycopg.connect(empty_settings.conninfo, autocommit=True) as other:

        def disturbed(times: list[int]) -> int:
            with transaction(conn, empty_settings):
                conn.execute("select n from public.counter")
                if times:
                    times.pop()
                    other.execute("update public.counter set n = n + 10")
                row = conn.execute("update public.counter set n = n + 1 returning n").fetchone()
                assert row is not None
                return int(row[0])

        twice = [1, 2]
        assert retrying(lambda: disturbed(twice), empty_settings, sleep=waits.append) == 21
        assert len(waits) == 2
        assert all(0 < wait <= 7.5 for wait in waits)
        always = list(range(100))
        with refusal("40001") as caught:
            retrying(lambda: disturbed(always), empty_settings, sleep=waits.append)
        assert len(always) == 100 - empty_settings.retries - 1
        assert caught.value.exit_code == 5


def test_other_errors_are_not_retried(empty_settings: Settings) -> None:
    calls = []

    def wrong() -> None:
        calls.append(1)
        with transaction(conn, empty_settings):
            conn.execute("select 1 / 0")

    with connect(empty_settings) as conn, pytest.raises(psycopg.errors.DivisionByZero):
        retrying(wrong, empty_settings)
    assert calls == [1]


def test_a_lock_needs_an_idle_connection(empty_settings: Settings) -> None:
    with connect(empty_settings) as conn:
        guard(conn, empty_settings)
        with pytest.raises(AssertionError, match="open already"):
            take_lock(conn, empty_settings)


@pytest.mark.parametrize(
    ("conninfo", "words"),
    [
        (f"host=127.0.0.1 port=1 password={SECRET}", "check host and port"),
        (f"host=nosuch.invalid password={SECRET}", "check the host's name"),
        (f"host=/nosuch password={SECRET}", "check host, and that the server runs"),
        (f"postgresql://me:{SECRET}@127.0.0.1:1/money", "dbname=money"),
        (f"postgresql://me:p@{SECRET}@127.0.0.1:1/money", "%40"),
        (f"postgresql://me:12/{SECRET}@127.0.0.1:1/money", "%40"),
        (f"postgresql://me:{SECRET}/x@127.0.0.1:1/money", "%40"),
        (f"hots=127.0.0.1 password={SECRET}", "cannot be read"),
    ],
)
def test_a_wrong_url_is_explained_without_its_password(conninfo: str, words: str) -> None:
    with pytest.raises(ConnectError) as caught:
        with connect(Settings(conninfo=conninfo)):
            pass
    chain: list[BaseException] = [caught.value]
    assert caught.value.__cause__ is None
    assert words in str(chain[0])
    assert SECRET not in str(chain[0])


def test_a_missing_database_and_a_missing_role_are_named(server: embedded.Server) -> None:
    for conninfo in (server.url("nosuch"), server.url().replace("user=postgres", "user=nosuch")):
        with pytest.raises(RunnerError, match='"nosuch" does not exist'):
            with connect(Settings(conninfo=conninfo)):
                pass
