"""`runner status`: what is pending, what is due, what ran. Writes nothing and takes no lock."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from psycopg.rows import dict_row

from runner import migrations
from runner.database import Connection, connect, transaction
from runner.fit import Fit, fits
from runner.migration_files import Migration, read, rule_file
from runner.money import Money
from runner.pinned import place
from runner.runs import Run, list_runs
from runner.settings import Settings


@dataclass(frozen=True, slots=True)
class Due:
    """What a backfill would still write, in rows and money, and source rows that it cannot take.

    The SELECT that decides it is the view `due_relation`, which the migration `rule_file` makes.
    """

    backfill: str
    system: str
    due_rows: int
    due_money: Money | None
    rejects: int
    description: str
    due_relation: str
    rule_file: str


@dataclass(frozen=True, slots=True)
class StatusReport:
    """The state of a database. `due` and `runs` are empty before the first apply.

    `systems` are those that runner.toml chooses, `unselected` installed ones that it does not. `fits` says, where it
    chooses none, which of ours the tables that are there would fit; else which of the chosen ones do not fit.
    """

    database: str
    server: str
    systems: tuple[str, ...]
    unselected: tuple[str, ...]
    fits: tuple[Fit, ...]
    sources: tuple[str, ...]
    pending: tuple[str, ...]
    edited: tuple[str, ...]
    due: tuple[Due, ...]
    runs: tuple[Run, ...]


def status(settings: Settings, *, runs: int = 5) -> StatusReport:
    """Look at migrations, due views and the log in one snapshot."""
    with connect(settings, application_name="runner status") as conn, transaction(conn, settings):
        pending = tuple(_shown(migration) for migration in migrations.pending(conn, settings.sources))
        edited = tuple(str(item) for item in migrations.edited(conn, settings.sources))
        installed = conn.execute("select to_regprocedure('backfill.due(text[])') is not null").fetchone()
        due: tuple[Due, ...] = ()
        last: list[Run] = []
        unselected: tuple[str, ...] = ()
        if installed and installed[0]:
            unselected = unselected_systems(conn, settings)
            due = _due(conn, settings, unselected)
            last = list_runs(conn, runs)
        return StatusReport(
            database=place(conn),
            server=conn.info.parameter_status("server_version") or "",
            systems=settings.systems,
            unselected=unselected,
            fits=_fits(conn, settings, installed=bool(due or unselected)),
            sources=tuple(str(folder) for folder in settings.sources.folders),
            pending=pending,
            edited=edited,
            due=due,
            runs=tuple(last),
        )


def _fits(conn: Connection, settings: Settings, *, installed: bool) -> tuple[Fit, ...]:
    if settings.systems:
        done = set(migrations.applied(conn))
        missing = [name for name in settings.systems if not any(m.id in done for m in _of(settings, name))]
        return tuple(fit for fit in fits(conn, missing) if fit.misfits)
    return () if installed else fits(conn)


def _of(settings: Settings, system: str) -> list[Migration]:
    return [migration for migration in read(settings.sources) if migration.system == system]


def unselected_systems(conn: Connection, settings: Settings) -> tuple[str, ...]:
    """Systems of ours that are installed and that runner.toml does not choose; their log and undo go on working."""
    done = set(migrations.applied(conn))
    return tuple(
        folder.name for folder in settings.sources.others if any(path.stem in done for path in folder.glob("*.sql"))
    )


def _shown(migration: Migration) -> str:
    return f"{migration.path.parent.name}/{migration.id}"


def _due(conn: Connection, settings: Settings, unselected: Collection[str]) -> tuple[Due, ...]:
    names = [
        name
        for name, system in conn.execute("select backfill, system from backfill.catalog").fetchall()
        if system not in unselected
    ]
    with conn.cursor(row_factory=dict_row) as cursor:
        rows = cursor.execute("select * from backfill.due(%s)", [names]).fetchall()
    return tuple(Due(**row, rule_file=rule_file(settings.sources, row["due_relation"])) for row in rows)
