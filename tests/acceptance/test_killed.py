"""The runner killed, its session ended, its server stopped: nothing half-done, no lock left, the same final state."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator

import pytest

from runner import embedded
from runner.systems import SYSTEMS
from tests.story import (
    QUICK,
    SAMPLE_CHARGES,
    SLOW,
    adopt,
    charges,
    ended,
    lock_holders,
    progress,
    run,
    shell,
    sleeping,
    sql,
    start,
    until,
)

POINTS = (
    "compiling the gates",
    "rehearsing: migrations",
    "rehearsing: backfill charges",
    "rehearsing: gates",
    "applying: migrations",
    "applying: counting what is due",
    "applying: backfill charges",
    "applying: gates",
    "committing",
)


def free(url: str) -> None:
    """No session of the killed runner is left, and so none of its locks."""
    until(lambda: not lock_holders(url), "the lock of a killed runner to go", 30)
    until(
        lambda: not sql(url, "select pid from pg_stat_activity where datname = current_database()"
                             " and application_name = 'runner apply'"),
        "the session of a killed runner to go",
        30,
    )  # fmt: skip


@pytest.mark.parametrize("stride", [3, 1])
def test_killed_anywhere_and_run_again_ends_in_the_same_state(
    empty_database_url: str, database_url: str, dump: Callable[..., str], stride: int
) -> None:
    """Invariant 6. One database, from before its first migration: the runner is killed (-9) at every step (or every
    third), also during the backfill's long statement, and then left alone."""
    url = adopt(empty_database_url)
    before = dump(url, "--inserts")
    for point in [*POINTS[:-1:stride], POINTS[-1]]:
        with start(url, "apply", "--yes") as process:
            progress(process, point)
            process.kill()
            assert ended(process).code == -signal.SIGKILL
        free(url)
        if point != POINTS[-1]:
            assert dump(url, "--inserts") == before, point
    # The last one was killed while it committed: all of it is there, or nothing.
    assert dump(url, "--inserts") == before or len(charges(url)) == SAMPLE_CHARGES
    done = run(url, "apply", "--yes")
    assert "Applied and committed." in done.out or "Nothing is due." in done.out
    assert sql(url, "select status, count(*) from backfill.backfill_log group by 1") == [("succeeded", 1)]
    run(adopt(database_url), "apply", "--yes")
    assert charges(url) == charges(database_url)


@pytest.mark.parametrize("verb", ["--dry-run", "--yes"])
def test_killed_during_the_backfills_own_statement(database_url: str, verb: str, dump: Callable[..., str]) -> None:
    """The server goes on with a statement whose client is gone, for at most the five seconds it looks after it."""
    url = adopt(database_url)
    sql(url, SLOW)
    before = dump(url, "--inserts")
    with start(url, "apply", verb) as process:
        until(lambda: sleeping(url), "the backfill's statement")
        process.kill()
        ended(process)
    free(url)
    assert dump(url, "--inserts") == before
    sql(url, QUICK)
    run(url, "apply", "--yes")
    assert len(charges(url)) == SAMPLE_CHARGES


def test_interrupted_at_the_keyboard_it_says_so_and_keeps_nothing(database_url: str, dump: Callable[..., str]) -> None:
    url = adopt(database_url)
    sql(url, SLOW)
    before = dump(url, "--inserts")
    with start(url, "apply", "--yes") as process:
        until(lambda: sleeping(url), "the backfill's statement")
        process.send_signal(signal.SIGINT)
        done = ended(process)
    assert done.code == 1
    assert "interrupted" in done.err or "cancelled" in done.err
    assert "Traceback" not in done.err
    free(url)
    assert dump(url, "--inserts") == before


def test_a_session_that_the_server_ends_is_one_clear_message(database_url: str, dump: Callable[..., str]) -> None:
    url = adopt(database_url)
    sql(url, SLOW)
    before = dump(url, "--inserts")
    with start(url, "apply", "--yes") as process:
        until(lambda: sleeping(url), "the backfill's statement")
        sql(
            url,
            "select pg_terminate_backend(pid) from pg_stat_activity"
            " where datname = current_database() and application_name = 'runner apply'",
        )
        done = ended(process)
    assert done.code == 1
    assert "error: the server ended the connection" in done.err
    assert "Nothing of the open transaction was kept" in done.err
    assert done.err.count("error:") == 1
    assert "Traceback" not in done.err
    assert dump(url, "--inserts") == before
    assert lock_holders(url) == []


@pytest.fixture
def own_server(server: embedded.Server) -> Iterator[embedded.Server]:
    """A server that a test may stop, of the session's version."""
    with embedded.running(version=server.version, options=embedded.UNSAFE_BUT_FAST) as started:
        yield started


@pytest.mark.parametrize("how", ["stopped", "crashed"])
def test_a_server_that_goes_away_loses_nothing(own_server: embedded.Server, how: str) -> None:
    url = adopt(own_server.url())
    sql(url, SLOW)
    with start(url, "apply", "--yes") as process:
        until(lambda: sleeping(url), "the backfill's statement")
        own_server.stop() if how == "stopped" else own_server.kill()
        done = ended(process)
    assert done.code == 1
    assert "error: the server ended the connection" in done.err
    assert "Traceback" not in done.err
    down = shell(url, "apply", "--yes", code=1)
    assert "cannot connect to" in down.err
    assert "the server runs" in down.err
    again = embedded.start(own_server.data, version=own_server.version, options=embedded.UNSAFE_BUT_FAST)
    try:
        assert charges(url) == []
        assert sql(url, "select to_regnamespace('backfill')::text") == [(None,)]
        sql(url, QUICK)
        run(url, "apply", "--yes")
        assert len(charges(url)) == SAMPLE_CHARGES
    finally:
        again.stop()


def test_an_idle_session_that_the_server_ended_while_a_person_thought(database_url: str) -> None:
    """The question is asked outside any transaction; whoever answers late is told, or served."""
    from runner import apply as apply_
    from runner.errors import ServerGoneError
    from runner.result import Report
    from runner.settings import Settings

    url = adopt(database_url)

    def think(report: Report) -> bool:
        assert report.verdict == "rehearsed"
        sql(url, "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'runner apply'")
        return True

    with pytest.raises(ServerGoneError):
        apply_.apply(Settings(conninfo=url, systems=SYSTEMS), apply_.Plan(), confirm=think, progress=lambda step: None)
    assert charges(url) == []


def test_a_killed_undo_leaves_every_row(database_url: str, dump: Callable[..., str]) -> None:
    url = adopt(database_url)
    run(url, "apply", "--yes")
    [(run_id,)] = sql(url, "select run_id::text from backfill.backfill_log")
    sql(url, SLOW.replace("after insert", "after delete"))
    before = dump(url, "--inserts")
    with start(url, "rollback", run_id, "--yes") as process:
        until(lambda: sleeping(url), "the undo's statement")
        process.kill()
        ended(process)
    until(lambda: not lock_holders(url), "the lock of a killed runner to go", 30)
    assert dump(url, "--inserts") == before
    sql(url, QUICK)
    run(url, "rollback", run_id, "--yes")
    assert charges(url) == []
