"""`runner log`: the runs, or one run with its rows by business key."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg import IsolationLevel
from psycopg.rows import class_row

from runner.apply import sample_changes, stream_changes, table_changes
from runner.database import Connection, connect, transaction
from runner.errors import UnknownNameError
from runner.result import Change, TableChanges
from runner.settings import Settings


@dataclass(frozen=True, slots=True)
class Run:
    """A row of backfill.backfill_log."""

    run_id: uuid.UUID
    backfill: str
    mode: str
    status: str
    actor: str
    started_at: datetime
    completed_at: datetime | None
    subject: dict[str, Any]
    parameters: dict[str, Any]
    metrics: dict[str, Any]
    errors: list[Any]
    digest: str | None
    reverses: uuid.UUID | None
    reversed_by: uuid.UUID | None

    @property
    def tables(self) -> tuple[TableChanges, ...]:
        """Rows and cents by table."""
        return table_changes(self.metrics)


@dataclass(frozen=True, slots=True)
class RunDetail:
    """One run with a sample of its changes."""

    run: Run
    changes: tuple[Change, ...]


_COLUMNS = """run_id, backfill, mode, status, actor, started_at, completed_at, subject, parameters, metrics, errors,
    digest, reverses, reversed_by"""


def list_runs(conn: Connection, limit: int) -> list[Run]:
    """The latest runs, newest first."""
    with conn.cursor(row_factory=class_row(Run)) as cursor:
        query = f"select {_COLUMNS} from backfill.backfill_log order by started_at desc, run_id limit %s"  # noqa: S608 - constant columns
        return cursor.execute(query, [limit]).fetchall()


def find_run(conn: Connection, given: str) -> Run:
    """The run whose id begins with `given`. Raises UnknownNameError for none, several, or no beginning."""
    if not given.strip():  # a variable of a script that was never set must not name the only run there is
        raise UnknownNameError("no run is named: `runner log` lists them")
    with conn.cursor(row_factory=class_row(Run)) as cursor:
        query = f"select {_COLUMNS} from backfill.backfill_log where starts_with(run_id::text, %s) limit 3"  # noqa: S608
        found = cursor.execute(query, [given.lower()]).fetchall()
    if not found:
        raise UnknownNameError(f"there is no run {given} in database {conn.info.dbname}: `runner log` lists them")
    if len(found) > 1:
        raise UnknownNameError(
            f"{given} is the beginning of several runs: {', '.join(str(run.run_id) for run in found)}"
        )
    return found[0]


def log(settings: Settings, *, limit: int = 20) -> list[Run]:
    """The latest `limit` runs."""
    with connect(settings, application_name="runner log") as conn, transaction(conn, settings):
        return list_runs(conn, limit)


def log_run(
    settings: Settings, given: str, *, sample: int = 20, every_row: Callable[[Change], None] | None = None
) -> RunDetail:
    """One run, and its changes: a sample of them, or all through `every_row`."""
    with connect(settings, application_name="runner log") as conn:
        with transaction(conn, settings, isolation=IsolationLevel.REPEATABLE_READ):
            run = find_run(conn, given)
            if every_row is not None:
                for change in stream_changes(conn, run.run_id):
                    every_row(change)
                return RunDetail(run, ())
            return RunDetail(run, tuple(sample_changes(conn, run.run_id, sample)))
