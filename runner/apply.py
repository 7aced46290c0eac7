"""Rehearse, show, and only then do: the order of things in one transaction.

The rehearsal is the whole plan for real (migrations, backfills, deferred constraints, gates on the
uncommitted rows), rolled back. The apply is the same again; it commits only if every gate passes and the
digest of its changes is the rehearsal's.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from psycopg import IsolationLevel
from psycopg.rows import dict_row

from runner import gates as gates_
from runner import migrations
from runner.database import Connection, connect, locked_transaction, retrying
from runner.errors import EditedMigrationError, NotRehearsableError, RunnerError
from runner.result import Attempt, BackfillResult, Change, Lock, Report, TableChanges, TableTotals
from runner.settings import Settings

OLDEST_SERVER = 150000


@dataclass(frozen=True, slots=True)
class Plan:
    """What was asked for. No backfills means all that are due; `every_row` gets each change of the rehearsal."""

    backfills: tuple[str, ...] = ()
    dry_run: bool = False
    allow_rejects: int = 0
    allow_non_transactional: bool = False
    sample: int = 20
    actor: str | None = None
    every_row: Callable[[Change], None] | None = None


@dataclass(slots=True)
class _Watch:
    """Locks of this transaction as they are first seen, and where the WAL stood when it began."""

    conn: Connection
    started: float = field(default_factory=time.perf_counter)
    seen: dict[tuple[str, str], float] = field(default_factory=dict)
    tables: list[int] = field(default_factory=list)
    wal: str = ""
    sequences: dict[str, int | None] = field(default_factory=dict)

    def begin(self) -> None:
        row = self.conn.execute("select pg_current_wal_insert_lsn()::text").fetchone()
        self.wal = row[0] if row else ""
        self.tables = [row[0] for row in self.conn.execute(_TABLES)]
        self.sequences = self._sequences()

    def look(self) -> None:
        now = time.perf_counter()
        for table, mode in self.conn.execute(_LOCKS, [self.tables]):
            self.seen.setdefault((table, mode), now)

    def locks(self) -> tuple[Lock, ...]:
        now = time.perf_counter()
        return tuple(Lock(table, mode, now - since) for (table, mode), since in sorted(self.seen.items()))

    def wal_bytes(self) -> int:
        row = self.conn.execute(
            "select pg_wal_lsn_diff(pg_current_wal_insert_lsn(), %s::pg_lsn)::bigint", [self.wal]
        ).fetchone()
        return int(row[0]) if row else 0

    def moved_sequences(self) -> tuple[str, ...]:
        now = self._sequences()
        return tuple(name for name, value in self.sequences.items() if now.get(name) != value)

    def _sequences(self) -> dict[str, int | None]:
        return dict(
            self.conn.execute(
                "select format('%I.%I', schemaname, sequencename), last_value from pg_sequences order by 1"
            ).fetchall()
        )


# Nobody else can wait for what the migrations create themselves.
_TABLES = """
    select c.oid::bigint from pg_class as c join pg_namespace as n on n.oid = c.relnamespace
    where c.relkind in ('r', 'p') and n.nspname not in ('pg_catalog', 'pg_toast', 'backfill', 'backfill_audit')
        and c.relname !~ '^_yoyo_'
"""

_LOCKS = """
    select l.relation::regclass::text, l.mode
    from pg_locks as l
    where l.pid = pg_backend_pid() and l.locktype = 'relation' and l.granted and l.mode <> 'AccessShareLock'
        and l.relation::bigint = any (%s)
    order by 1, 2
"""

_TRIGGERS = """
    select format('%%s on %%I.%%I', t.tgname, n.nspname, c.relname)
    from pg_trigger as t
    join pg_class as c on c.oid = t.tgrelid
    join pg_namespace as n on n.oid = c.relnamespace
    where not t.tgisinternal and t.tgenabled <> 'D' and t.tgname !~ '^backfill_(capture|refuse)_'
        and format('%%I.%%I', n.nspname, c.relname) = any (%s)
    order by 1
"""

_CHANGES = """
    select table_name, operation, business_key, cents_before, cents_after, coalesce(after, before) as image
    from backfill.change_log where run_id = %s
"""

_SAMPLE = f"""
    select * from ({_CHANGES} limit greatest(%s, 1000)) as first order by table_name, business_key limit %s
"""  # noqa: S608 - constant text


def apply(
    settings: Settings,
    plan: Plan,
    *,
    confirm: Callable[[Report], bool],
    progress: Callable[[str], None],
) -> Report:
    """Rehearse `plan` and, unless it is a dry run or `confirm` says no, apply it.

    Returns the report in every case in which the plan was worked through, also where a gate stopped it (the
    verdict says so). Raises RunnerError where it could not be: no connection, lock, right, or a rejected row.
    """
    progress("compiling the gates")
    compiled = gates_.compile(settings)
    with connect(settings, application_name="runner apply") as conn:
        started_at = datetime.now(UTC).isoformat(timespec="seconds")
        _refuse_old_server(conn)
        outside, committed_first = _outside(conn, settings, plan, progress)

        def attempt(expected: dict[str, str] | None) -> Attempt:
            return retrying(lambda: _attempt(conn, settings, plan, compiled, outside, expected, progress), settings)

        rehearsal = attempt(None)

        def report(verdict: Any, last: Attempt, differences: tuple[str, ...] = ()) -> Report:
            version = conn.info.parameter_status("server_version") or ""
            zone = conn.info.parameter_status("TimeZone") or ""
            return Report(
                verdict, settings.shown, version, zone, started_at, last, rehearsal.seconds, outside, differences,
                committed_first,
            )  # fmt: skip

        if rehearsal.stopped:
            return report("gate failed", rehearsal)
        if not rehearsal.backfills and not rehearsal.migrations:
            return report("nothing due", rehearsal)
        if plan.dry_run:
            return report("rehearsed", rehearsal)
        if not confirm(report("rehearsed", rehearsal)):
            return report("declined", rehearsal)
        applied = attempt(rehearsal.digests)
        if applied.stopped:
            return report("gate failed", applied)
        if not applied.backfills and not applied.migrations:
            return report("nothing due", applied)  # another runner did all of it in between
        differences = _differences(rehearsal, applied)
        return report("apply differed" if differences else "applied", applied, differences)


def _refuse_old_server(conn: Connection) -> None:
    if conn.info.server_version < OLDEST_SERVER:
        found = conn.info.parameter_status("server_version")
        raise RunnerError(f"the server is PostgreSQL {found}: 15 or newer is needed")


def _outside(
    conn: Connection, settings: Settings, plan: Plan, progress: Callable[[str], None]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Pending migrations that no rehearsal can hold: named, or applied first where the plan allows it.

    Returns those that the rehearsal leaves out, and those that are committed already.
    """
    edited = migrations.edited(conn, settings.migrations)
    if edited:
        raise EditedMigrationError(
            f"{'; '.join(map(str, edited))}. An applied migration never changes: restore the file and write the "
            "change as a new migration"
        )
    pending = migrations.pending(conn, settings.migrations)
    conn.rollback()
    names = tuple(migration.id for migration in pending if not migration.transactional)
    if names and plan.allow_non_transactional and not plan.dry_run:
        progress(f"migrations outside a transaction: {', '.join(names)}")
        # A second connection holds the lock: these statements refuse a transaction of their own. It keeps no
        # snapshot, for which CREATE INDEX CONCURRENTLY would wait.
        with (
            connect(settings, application_name="runner apply (lock)") as other,
            locked_transaction(other, settings, isolation=IsolationLevel.READ_COMMITTED),
        ):
            other.execute("set local idle_in_transaction_session_timeout = 0")
            done = migrations.apply_outside(conn, settings.migrations)
        return (), tuple(migration.id for migration in done)
    if names and not plan.dry_run:
        raise NotRehearsableError(
            f"{', '.join(names)}: `transactional: false`, so it can be neither rehearsed nor rolled back. Nothing was "
            "written. Read it, then add --allow-non-transactional"
        )
    return names, ()


def _attempt(
    conn: Connection,
    settings: Settings,
    plan: Plan,
    compiled: gates_.Gates,
    outside: tuple[str, ...],
    expected: dict[str, str] | None,
    progress: Callable[[str], None],
) -> Attempt:
    """The plan in one transaction: rolled back without `expected` digests, else committed where all holds."""
    verb = "rehearsing" if expected is None else "applying"
    with locked_transaction(conn, settings):
        watch = _Watch(conn)
        watch.begin()
        progress(f"{verb}: migrations")
        done = migrations.apply(conn, settings.migrations, leave_out=outside)
        watch.look()
        progress(f"{verb}: counting what is due")
        due = _due(conn, plan.backfills)
        gates_.require(compiled, [row["backfill"] for row in due])
        results = []
        for row in due:
            progress(f"{verb}: backfill {row['backfill']}, {row['due_rows']:,} rows")
            results.append(_backfill(conn, plan, row))
            watch.look()
        progress(f"{verb}: deferred constraints")
        conn.execute("set constraints all immediate")
        judged: list[gates_.GateResult] = []
        if results:
            progress(f"{verb}: gates")
            judged = gates_.run(conn, compiled, [result.name for result in results], plan.sample)
            judged += [_due_gate(result) for result in results]
        watch.look()
        totals = _totals(results)
        attempt = Attempt(
            migrations=tuple(migration.id for migration in done),
            backfills=tuple(results),
            totals=totals,
            gates=tuple(judged),
            locks=watch.locks(),
            triggers=_triggers(conn, results),
            sequences=watch.moved_sequences(),
            wal_bytes=watch.wal_bytes(),
            seconds=time.perf_counter() - watch.started,
        )
        if expected is None and plan.every_row is not None:
            # Last, where nothing is left that could be tried again: each row is shown once.
            for result in results:
                for change in stream_changes(conn, result.run_id):
                    plan.every_row(change)
        if expected is None or attempt.stopped or attempt.digests != expected:
            conn.rollback()
        else:
            progress("committing")
    return attempt


def _due(conn: Connection, names: Sequence[str]) -> list[dict[str, Any]]:
    """Backfills with rows to write or rejects to decide on, in the catalog's order; a wrong name is refused."""
    for name in names:
        conn.execute("select backfill.entry(%s)", [name])
    with conn.cursor(row_factory=dict_row) as cursor:
        rows = cursor.execute("select * from backfill.due(%s)", [list(names) or None]).fetchall()
    return [row for row in rows if row["due_rows"] or row["rejects"]]


def _backfill(conn: Connection, plan: Plan, due: dict[str, Any]) -> BackfillResult:
    started = time.perf_counter()
    with conn.cursor(row_factory=dict_row) as cursor:
        log = cursor.execute(
            "select run_id, digest, metrics, jsonb_array_length(errors) as failed from backfill.run(%s, '{}', %s, %s)",
            [due["backfill"], plan.allow_rejects, plan.actor],
        ).fetchone()
        assert log is not None  # noqa: S101 - a function call returns a row
        seconds = time.perf_counter() - started
        left = cursor.execute("select due_rows from backfill.due(%s)", [[due["backfill"]]]).fetchone()
        key = cursor.execute(
            "select t.business_key as key from backfill.catalog as c"
            " join backfill.tracked as t on t.table_name = c.tables[1] where c.backfill = %s",
            [due["backfill"]],
        ).fetchone()
    metrics = log["metrics"]
    return BackfillResult(
        name=due["backfill"],
        description=due["description"],
        business_key=tuple((key or {}).get("key") or ()),
        due_rows=due["due_rows"],
        due_cents=due["due_cents"],
        # An item that failed by itself is recorded with its reason, and stays due.
        due_after=max(left["due_rows"] - log["failed"], 0) if left else 0,
        rejects=due["rejects"],
        run_id=log["run_id"],
        digest=log["digest"],
        seconds=seconds,
        tables=table_changes(metrics),
        sample=tuple(sample_changes(conn, log["run_id"], plan.sample)),
        metrics=metrics,
    )


def table_changes(metrics: dict[str, Any]) -> tuple[TableChanges, ...]:
    """The rows and cents by table that a run's log row holds."""
    return tuple(TableChanges(table, **counts) for table, counts in sorted(metrics.get("tables", {}).items()))


def sample_changes(conn: Connection, run_id: uuid.UUID, limit: int) -> list[Change]:
    """`limit` changes of a run by business key, out of the first thousand: the others need not be unpacked."""
    rows = conn.execute(_SAMPLE, [run_id, limit, limit]).fetchall()
    return [Change(*row) for row in rows]


def stream_changes(conn: Connection, run_id: uuid.UUID) -> Any:
    """All changes of a run through a server-side cursor: memory stays flat whatever the number of rows."""
    with conn.cursor(name="changes") as cursor:
        cursor.itersize = 2000
        cursor.execute(_CHANGES, [run_id])
        for row in cursor:
            yield Change(*row)


def _due_gate(result: BackfillResult) -> gates_.GateResult:
    """The gate that every backfill has by itself: when it is through, nothing is due any more."""
    failed = result.due_after > 0
    return gates_.GateResult(
        name=f"{result.name}_nothing_left_due",
        severity="error",
        status="fail" if failed else "pass",
        failures=result.due_after,
        rows=[],
        seconds=0.0,
        message=f"{result.due_after:,} rows are still due after the backfill" if failed else "",
    )


def _totals(results: Sequence[BackfillResult]) -> tuple[TableTotals, ...]:
    """Control totals over the whole plan: the first backfill's before, the last one's after, all changes."""
    merged: dict[str, TableTotals] = {}
    for result in results:
        for entry in result.metrics.get("control_totals", []):
            name = entry["table_name"]
            first = merged.get(name)
            merged[name] = TableTotals(
                table=name,
                rows_before=first.rows_before if first else entry["rows_before"],
                rows_changed=(first.rows_changed if first else 0) + entry["rows_changed"],
                rows_after=entry["rows_after"],
                cents_before=first.cents_before if first else entry["cents_before"],
                cents_changed=(first.cents_changed if first else 0) + entry["cents_changed"],
                cents_after=entry["cents_after"],
            )
    return tuple(merged.values())


def _triggers(conn: Connection, results: Sequence[BackfillResult]) -> tuple[str, ...]:
    tables = [table.table for result in results for table in result.tables]
    return tuple(row[0] for row in conn.execute(_TRIGGERS, [tables]))


def _differences(rehearsal: Attempt, applied: Attempt) -> tuple[str, ...]:
    """What the apply would have written otherwise than the rehearsal showed, in words."""
    found = []
    before = {result.name: result for result in rehearsal.backfills}
    after = {result.name: result for result in applied.backfills}
    for name in dict.fromkeys([*before, *after]):
        one, two = before.get(name), after.get(name)
        if one and two and one.digest == two.digest:
            continue
        rows = f"{one.rows if one else 0:,} rows in the rehearsal, {two.rows if two else 0:,} in the apply"
        found.append(f"{name}: {rows}; digest {(one.digest if one else 'none')[:12]} became "
                     f"{(two.digest if two else 'none')[:12]}")  # fmt: skip
    return tuple(found)
