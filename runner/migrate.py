"""`runner migrate`: pending migrations alone, each committed by itself, so that nobody waits for long.

One transaction that does everything holds each lock to its end, and whoever waits for a lock makes all who come later
wait behind it. So here a migration is tried with a short lock timeout, often; the tables that it alters are locked
first, while it holds nothing else; and indexes on tables that are there are built before it, concurrently.
"""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Final, Literal

import psycopg
from psycopg import IsolationLevel, sql

from runner import indexes, migrations
from runner.database import RETRIED, Connection, connect, locked_transaction
from runner.errors import LockedError, RunnerError, translate
from runner.fit import fits
from runner.indexes import Built
from runner.migration_files import Migration, read
from runner.migrations import Misfit
from runner.pinned import place, role_names
from runner.result import Lock
from runner.settings import Settings
from runner.sql_text import statements
from runner.systems import REQUIRES, SYSTEMS
from runner.watch import Watch

LOCK_TIMEOUT: Final = 100
"""Milliseconds for which a migration may wait for a lock, and others behind it: what it does then takes time, too."""
IDLE: Final = 2_000
"""Milliseconds for which the runner may say nothing within a migration."""
TRIES: Final = 200
_PAUSE: Final = (0.1, 0.6)
"""Seconds between two tries: whoever waited behind one gets through."""

# Helpers that are harmless twice: on a table that is there each is done before, in a transaction of its own, so that
# the migration finds nothing left to lock.
_BLOCK: Final = re.compile(r"do\s+(\$\w*\$)\s*begin\s(?P<calls>.*)\bend\s*;?\s*\1", re.IGNORECASE | re.DOTALL)
_CALL: Final = re.compile(
    r"perform\s+(?P<call>backfill\.(?P<helper>\w+)\((?:\s*'(?P<table>[^']+)')?.*\))", re.IGNORECASE | re.DOTALL
)
_TO_DO: Final = """
    select pg_relation_size(c.oid) > 0 and (
        %(helper)s = 'create_baseline_column'
        or not exists (select from backfill.tracked as t where t.relation = c.oid and t.active))
    from pg_class as c where c.oid = to_regclass(%(table)s) and c.relkind = 'r'
"""

_WORD: Final = r'(?:"[^"]+"|[A-Za-z_][\w$]*)'
_TOUCHED: Final = re.compile(
    r"\bbackfill\.(?:track|create_baseline_column)\(\s*'(?P<tracked>[^']+)'"
    rf"|\balter\s+table\s+(?:if\s+exists\s+)?(?:only\s+)?(?P<altered>{_WORD}(?:\.{_WORD})?)\s+(?!validate\b)"
    rf"|\btrigger\s[^;]*?\son\s+(?P<fires>{_WORD}\.{_WORD})",
    re.IGNORECASE,
)

# Tables that are there, and that this role may lock; nobody waits for those of the engine.
_LOCKABLE: Final = """
    select x.place, format('%%I.%%I', n.nspname, c.relname)
    from unnest(%s::text[]) with ordinality as x (name, place)
    join pg_class as c on c.oid = to_regclass(x.name)
    join pg_namespace as n on n.oid = c.relnamespace
    where c.relkind in ('r', 'p') and n.nspname not in ('backfill', 'backfill_audit', 'pg_catalog')
        and has_table_privilege(c.oid, 'update, delete, truncate')
    order by 2
"""

_HOLDERS: Final = """
    select format('process %%s (%%s, role %%s), which holds %%s', l.pid,
        coalesce(nullif(a.application_name, ''), 'an unnamed application'), coalesce(a.usename, 'unknown'), l.mode)
    from pg_locks as l left join pg_stat_activity as a on a.pid = l.pid
    where l.relation = to_regclass(%s) and l.granted and l.pid <> pg_backend_pid() and l.mode not like 'Access%%Share%%'
    order by a.xact_start limit 3
"""


@dataclass(frozen=True, slots=True)
class Step:
    """One migration: what was built before it, its locks on tables that others use, how often it was tried."""

    migration: str
    indexes: tuple[Built, ...] = ()
    locks: tuple[Lock, ...] = ()
    tries: int = 1
    seconds: float = 0.0
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Migrated:
    """What `runner migrate` did. In a dry run nothing of it is left, and indexes were made within the transaction."""

    verdict: Literal["migrated", "nothing pending", "rehearsed"]
    database: str
    server: str
    steps: tuple[Step, ...]
    misfits: tuple[Misfit, ...]
    seconds: float
    notes: tuple[str, ...] = ()

    @property
    def exit_code(self) -> int:
        """1 where a system that is selected had to be left out."""
        return int(bool(self.misfits))


@dataclass(frozen=True, slots=True)
class _Calls:
    """A helper that is called before the migration which calls it."""

    call: str


class _Busy(Exception):  # noqa: N818 - a table is in use: it is tried again
    def __init__(self, table: str, exc: psycopg.Error) -> None:
        super().__init__(table)
        self.table, self.error = table, exc


def migrate(settings: Settings, *, dry_run: bool, progress: Callable[[str], None]) -> Migrated:
    """Apply what is pending, each migration in a transaction of its own; what was committed stays, whatever follows.

    A system whose tables do not fit is left out by name, with what builds on it. Raises LockedError (exit 5) where a
    table could not be had in many short tries, naming who holds it, and the errors of migrations.apply().
    """
    read(settings.sources)  # what may not be in a migration is refused before anything is connected
    short = replace(
        settings,
        lock_timeout=min(settings.lock_timeout, LOCK_TIMEOUT) or LOCK_TIMEOUT,
        # A session that watches costs more than most migrations take: a client that stands still is ended by this.
        idle_in_transaction_timeout=min(settings.idle_in_transaction_timeout or IDLE, max(settings.lock_budget, IDLE)),
    )
    started = time.perf_counter()
    with connect(settings, application_name="runner migrate") as conn:
        work = _Work(conn, settings, short, progress)
        todo = migrations.checked(conn, settings.sources)
        work.leave_out_misfits(todo)
        conn.rollback()
        if dry_run:
            work.rehearse(todo)
        else:
            for migration in todo:
                work.apply(todo, migration)
            work.refresh()
        version, at = conn.info.parameter_status("server_version") or "", place(conn)
    verdict: Literal["migrated", "nothing pending", "rehearsed"] = "rehearsed" if dry_run else "migrated"
    return Migrated(
        verdict if work.steps else "nothing pending", at, version, tuple(work.steps), tuple(work.misfits),
        time.perf_counter() - started, tuple(work.notes),
    )  # fmt: skip


class _Work:
    def __init__(self, conn: Connection, settings: Settings, short: Settings, progress: Callable[[str], None]) -> None:
        self.conn, self.settings, self.short, self.progress = conn, settings, short, progress
        self.steps: list[Step] = []
        self.misfits: list[Misfit] = []
        self.left_out: set[str] = set()
        self.notes: list[str] = []

    def leave_out_misfits(self, todo: list[Migration]) -> None:
        """Systems whose tables do not fit, of which nothing is applied yet, and what builds on them."""
        done = set(migrations.applied(self.conn))
        new = [name for name in SYSTEMS if any(item.system == name for item in todo)]
        installed = {item.system for item in read(self.settings.sources) if item.id in done}
        for fit in fits(self.conn, [name for name in new if name not in installed]):
            lost = {misfit.system for misfit in self.misfits} & set(REQUIRES[fit.system])
            if lost:
                self._lose(todo, fit.system, f"it builds on {lost.pop()}, which does not fit")
            elif fit.misfits:
                self._lose(todo, fit.system, "; ".join(fit.misfits))

    def _lose(self, todo: list[Migration], system: str, why: str) -> None:
        files = [item.id for item in todo if item.system == system]
        self.misfits.append(Misfit(system, files[0], why))
        before = set(self.left_out)
        self.left_out |= migrations.with_dependents(todo, {*self.left_out, *files})
        self.misfits += [
            Misfit(None, item.id, "it depends on a migration of a system that was left out")
            for item in todo if item.system is None and item.id in self.left_out - before
        ]  # fmt: skip

    def apply(self, todo: list[Migration], migration: Migration) -> None:
        """One migration, and before it the indexes that it makes on tables that are there."""
        if migration.id in self.left_out:
            return
        started = time.perf_counter()
        built, notes = self._indexes(migration)
        if not migration.transactional:
            self.progress(f"{migration.id}, outside a transaction")
            with self._alone():
                if self._is_applied(migration):
                    return
                migrations.commit_outside(self.conn, self.settings.sources, migration)
            notes += ("outside a transaction: each of its statements was committed by itself",)
            self._done(migration, built, (), 1, started, notes)
            return
        for table, call in self._calls(migration):
            what = f"{call.partition('(')[0].removeprefix('backfill.')} of {table}, before {migration.id}"
            self._tried(what, _Calls(call), [(table, "share row exclusive")])
        try:
            locks, tries = self._tried(migration.id, migration, _touched(self.conn, migration))
        except psycopg.Error as exc:
            if self._is_first_of_its_system(migration) and exc.sqlstate not in RETRIED and not self.conn.closed:
                self._lose(todo, str(migration.system), str(translate(exc)))
                return
            raise
        if locks is not None:
            self._done(migration, built, locks, tries, started, notes)

    def _is_applied(self, migration: Migration) -> bool:
        """Whether another runner has done it since it was found to be pending; asked under the lock."""
        done = migration.id in migrations.applied(self.conn)
        if done:
            self.progress(f"{migration.id} was applied by another runner meanwhile")
        return done

    def refresh(self) -> None:
        """What the next run would find to do on tracked tables, e.g. beside a new trigger of the application."""
        known = self.conn.execute("select to_regproc('backfill.refresh_tracked') is not null").fetchone()
        self.conn.rollback()
        if known != (True,):
            return
        try:
            self._tried("tracked tables", _Calls("backfill.refresh_tracked()"), [])
        except psycopg.Error as exc:
            if self.conn.closed or not exc.sqlstate or exc.sqlstate == "57014":
                raise
            self.conn.rollback()
            self.notes.append(f"tracked tables were left as they are: {translate(exc)}")

    def _tried(
        self, what: str, work: Migration | _Calls, tables: list[tuple[str, str]]
    ) -> tuple[tuple[Lock, ...] | None, int]:
        """Do it in a transaction of its own, again while a table is in use; the locks that it took (None where another
        runner was quicker), and the tries."""
        self.conn.rollback()
        first = ""
        for number in range(1, TRIES + 1):
            self.progress(what + (f", try {number}: {first or 'a table'} is in use" if number > 1 else ""))
            try:
                return self._once(work, tables if number > 1 else [], first), number
            except _Busy as busy:
                first, error = busy.table, busy.error
            except psycopg.Error as exc:
                if exc.sqlstate not in RETRIED:
                    raise
                error = exc
            if number == TRIES:
                raise self._gave_up(what, first, error) from error
            time.sleep(random.uniform(*_PAUSE))  # noqa: S311 - jitter
        raise AssertionError("unreachable")

    def rehearse(self, todo: list[Migration]) -> None:
        """All of them in one transaction that is rolled back."""
        with locked_transaction(self.conn, self.short, isolation=IsolationLevel.READ_COMMITTED) as proof:
            for migration in todo:
                if migration.id in self.left_out:
                    continue
                if not migration.transactional:
                    self.left_out |= migrations.with_dependents(todo, {*self.left_out, migration.id})
                    self.steps.append(Step(migration.id, notes=("not rehearsed: `transactional: false`",)))
                    continue
                started = time.perf_counter()
                self.progress(f"rehearsing {migration.id}")
                watch = Watch(self.conn)
                watch.begin()
                first = set(watch.held())
                before = indexes.wanted(self.conn, migration)
                migrations.apply_one(proof, self.settings.sources, migration, watch.look)
                locks = tuple(lock for lock in watch.locks() if (lock.table, lock.mode) not in first)
                notes = tuple(f"index {item.name} on {item.table}: to be built concurrently" for item in before)
                self._done(migration, (), locks, 1, started, notes)
            proof.roll_back()

    def _once(self, work: Migration | _Calls, tables: list[tuple[str, str]], first: str) -> tuple[Lock, ...] | None:
        with locked_transaction(self.conn, self.short, isolation=IsolationLevel.READ_COMMITTED, at_once=False) as proof:
            if isinstance(work, Migration) and self._is_applied(work):
                return None
            watch = Watch(self.conn)
            watch.begin()
            # One that was in use is waited for before anything is held, and the others are not waited for at all.
            for place, (table, mode) in enumerate(sorted(tables, key=lambda item: item[0] != first)):
                query = sql.SQL("lock table {} in {} mode {}").format(
                    sql.SQL(table), sql.SQL(mode), sql.SQL("nowait" if place else "")
                )
                try:
                    self.conn.execute(query)
                except psycopg.errors.LockNotAvailable as exc:
                    raise _Busy(table, exc) from exc
            watch.look()
            if isinstance(work, _Calls):
                with role_names(self.conn):  # track() keeps the path of whoever calls it
                    self.conn.execute(f"select {work.call}".encode())
                watch.look()
            else:
                migrations.apply_one(proof, self.settings.sources, work, watch.look)
            return watch.locks()

    def _calls(self, migration: Migration) -> list[tuple[str, str]]:
        """Calls of helpers that can be made before: tables and the SQL."""
        found = []
        for statement in migration.statements:
            block = _BLOCK.fullmatch(statement)
            calls = [_CALL.fullmatch(text) for text in statements(block["calls"])] if block else []
            if not all(calls):  # there are conditions: whether it is called is not known
                continue
            for call in calls:
                if call and call["helper"] in ("track", "create_baseline_column") and call["table"]:
                    values = {"helper": call["helper"], "table": call["table"]}
                    if self.conn.execute(_TO_DO, values).fetchone() == (True,):
                        found.append((call["table"], call["call"]))
        return found

    def _indexes(self, migration: Migration) -> tuple[tuple[Built, ...], tuple[str, ...]]:
        wanted = indexes.wanted(self.conn, migration)
        self.conn.rollback()
        if not wanted:
            return (), ()
        built, notes = [], []
        with self._alone():
            self.conn.autocommit = True
            try:
                # It waits for every transaction that is older, and nobody waits for it meanwhile.
                self.conn.execute("select set_config('lock_timeout', '0', false)")
                timeout = str(self.settings.statement_timeout)
                self.conn.execute("select set_config('statement_timeout', %s, false)", [timeout])
                for index in wanted:
                    self.progress(f"index {index.name} on {index.table}, concurrently")
                    try:
                        built.append(indexes.build(self.conn, index))
                    except psycopg.Error as exc:
                        if exc.sqlstate == "23505" and index.statement is None:
                            continue  # the migration itself looks for duplicates, and lists them
                        if exc.sqlstate not in indexes.MADE_BY_THE_MIGRATION:
                            exc.add_note(f"cannot build index {index.name} of {migration.id}")
                            raise
                        notes.append(
                            f"index {index.name} on {index.table} was built within the transaction, since the "
                            "migration makes what it needs: in a migration of its own it would let writers go on"
                        )
            finally:
                if not self.conn.closed:
                    self.conn.execute("reset lock_timeout")
                    self.conn.execute("reset statement_timeout")
                    self.conn.autocommit = False
        return tuple(built), tuple(notes)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Holds the advisory lock on another connection: what is done refuses a transaction. That one has no snapshot,
        for which CREATE INDEX CONCURRENTLY would wait."""
        with (
            connect(self.settings, application_name="runner migrate (lock)", watched=False) as other,
            locked_transaction(other, self.settings, isolation=IsolationLevel.READ_COMMITTED),
        ):
            other.execute("set local idle_in_transaction_session_timeout = 0")
            yield

    def _done(
        self, migration: Migration, built: tuple[Built, ...], locks: tuple[Lock, ...], tries: int, started: float,
        notes: tuple[str, ...],
    ) -> None:  # fmt: skip
        seconds = time.perf_counter() - started
        self.steps.append(Step(migration.id, built, locks, tries, seconds, notes))

    def _is_first_of_its_system(self, migration: Migration) -> bool:
        files = [item.id for item in read(self.settings.sources) if item.system == migration.system]
        return migration.system in SYSTEMS and migration.id == files[0]

    def _gave_up(self, what: str, table: str, error: psycopg.Error) -> RunnerError:
        holders = [row[0] for row in self.conn.execute(_HOLDERS, [table]).fetchall()] if table else []
        self.conn.rollback()
        done = ", ".join(step.migration for step in self.steps[-3:])
        return LockedError(
            f"{what}: {table or 'a table'} was in use in each of {TRIES} short tries ({translate(error)}). "
            f"{'; '.join(holders) or 'Nobody holds it now'}. Wait for that transaction or end it, and run the same "
            f"command again: {f'what is done stays (… {done})' if done else 'nothing was changed'}"
        )


def _touched(conn: Connection, migration: Migration) -> list[tuple[str, str]]:
    """Tables that are there and that a migration names as altered or tracked, and the lock that it will take."""
    modes: dict[str, str] = {}
    for statement in migration.statements:
        for match in _TOUCHED.finditer(statement):
            name = match["tracked"] or match["altered"] or match["fires"]
            if match["altered"]:
                modes[name] = "access exclusive"
            else:
                modes.setdefault(name, "share row exclusive")
    if not modes:
        return []
    names = list(modes)
    rows = conn.execute(_LOCKABLE, [names]).fetchall()
    return [(table, modes[names[place - 1]]) for place, table in rows]
