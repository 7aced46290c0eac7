"""`runner status`: what is pending, what is due, what ran. Writes nothing and takes no lock."""

from __future__ import annotations

from dataclasses import dataclass

from psycopg.rows import class_row

from runner import migrations
from runner.database import connect, transaction
from runner.log import Run, list_runs
from runner.settings import Settings


@dataclass(frozen=True, slots=True)
class Due:
    """What a backfill would still write, in rows and cents, and source rows that it cannot take."""

    backfill: str
    system: str
    due_rows: int
    due_cents: int
    rejects: int
    description: str


@dataclass(frozen=True, slots=True)
class StatusReport:
    """The state of a database. `due` and `runs` are empty before the first apply."""

    database: str
    server: str
    pending: tuple[str, ...]
    edited: tuple[str, ...]
    due: tuple[Due, ...]
    runs: tuple[Run, ...]


def status(settings: Settings, *, runs: int = 5) -> StatusReport:
    """Look at migrations, due views and the log in one snapshot."""
    with connect(settings, application_name="runner status") as conn, transaction(conn, settings):
        pending = tuple(migration.id for migration in migrations.pending(conn, settings.migrations))
        edited = tuple(str(item) for item in migrations.edited(conn, settings.migrations))
        installed = conn.execute("select to_regprocedure('backfill.due(text[])') is not null").fetchone()
        due: list[Due] = []
        last: list[Run] = []
        if installed and installed[0]:
            with conn.cursor(row_factory=class_row(Due)) as cursor:
                due = cursor.execute("select * from backfill.due()").fetchall()
            last = list_runs(conn, runs)
        server = conn.info.parameter_status("server_version") or ""
        return StatusReport(settings.shown, server, pending, edited, tuple(due), tuple(last))
