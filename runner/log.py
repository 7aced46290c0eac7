"""`runner log`: the runs, or one run with its rows by business key."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from psycopg import IsolationLevel

from runner.database import connect, transaction
from runner.pinned import place_in_words
from runner.result import Change, Dimension, LeftOut
from runner.runs import (
    Run,
    by_dimension,
    chain_head,
    count_left_out,
    find_run,
    left_out,
    list_runs,
    sample_changes,
    stream_changes,
)
from runner.settings import Settings


@dataclass(frozen=True, slots=True)
class RunList:
    """The latest runs, newest first; `head` of the chain, N:hash, is the anchor to keep."""

    runs: tuple[Run, ...]
    head: str


@dataclass(frozen=True, slots=True)
class RunDetail:
    """One run with a sample of its changes, and of the `rejects` source rows that it left out."""

    run: Run
    changes: tuple[Change, ...]
    rejects: int = 0
    left_out: tuple[LeftOut, ...] = ()
    dimensions: tuple[Dimension, ...] = ()
    """By month and by whom it is about; only of a report."""
    description: str = ""
    """What its backfill is for; empty of what is none."""
    where: str = ""
    """`billing on db.example:5432 as alice`."""
    head: str = ""
    """Head of the chain now, N:hash."""


def log(settings: Settings, *, limit: int = 20) -> RunList:
    """The latest `limit` runs."""
    with connect(settings, application_name="runner log") as conn, transaction(conn, settings):
        return RunList(tuple(list_runs(conn, limit)), chain_head(conn))


def log_run(
    settings: Settings, given: str, *, sample: int = 20, every_row: Callable[[Change], None] | None = None
) -> RunDetail:
    """One run, and its changes: a sample of them, or all through `every_row`."""
    with connect(settings, application_name="runner log") as conn:
        with transaction(conn, settings, isolation=IsolationLevel.REPEATABLE_READ):
            run = find_run(conn, given)
            rejects = count_left_out(conn, run.run_id)
            left = tuple(left_out(conn, run.run_id, sample if every_row is None else None))
            if every_row is not None:
                for change in stream_changes(conn, run.run_id):
                    every_row(change)
                return RunDetail(run, (), rejects, left)
            return RunDetail(run, tuple(sample_changes(conn, run.run_id, sample)), rejects, left)


def report_run(settings: Settings, given: str, *, every_row: Callable[[Change], None] | None = None) -> RunDetail:
    """One run with all that a page says of it; its rows through `every_row`."""
    with connect(settings, application_name="runner report") as conn:
        where = place_in_words(conn)
        with transaction(conn, settings, isolation=IsolationLevel.REPEATABLE_READ):
            run = find_run(conn, given)
            entry = conn.execute(
                "select description from backfill.catalog where backfill = %s", [run.backfill]
            ).fetchone()
            found = RunDetail(
                run, tuple(sample_changes(conn, run.run_id, 20)), count_left_out(conn, run.run_id),
                tuple(left_out(conn, run.run_id, None)), by_dimension(conn, run.run_id, now=False),
                str(entry[0]) if entry else "", where, chain_head(conn),
            )  # fmt: skip
            if every_row is not None:
                for change in stream_changes(conn, run.run_id):
                    every_row(change)
            return found
