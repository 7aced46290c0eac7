"""Rehearse, show, and only then do: the order of things in one transaction.

The rehearsal is the whole plan for real (migrations, backfills, deferred constraints, gates on the
uncommitted rows), rolled back. The apply is the same again; it commits only if every gate passes and the
digest of its changes is the rehearsal's.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from psycopg import IsolationLevel
from psycopg.rows import dict_row

from runner import advice, approvals, migrations, plan_file, sequences
from runner import as_of as as_of_
from runner import gates as gates_
from runner.database import Connection, connect, locked_transaction, retrying
from runner.errors import EditedMigrationError, MigrationError, NotRehearsableError
from runner.migration_files import read, rule_file
from runner.migrations import Misfit
from runner.pinned import own_names, place, place_in_words
from runner.plan_file import VALID, SavedPlan, Signing
from runner.planning import ANALYZED, analyze_again
from runner.proof import Proof
from runner.result import Attempt, BackfillResult, Change, LeftOut, Report, Undo
from runner.runs import (
    by_dimension,
    chain_head,
    committed_head,
    left_out,
    new_rejects,
    sample_changes,
    stream_changes,
    table_changes,
)
from runner.settings import Settings
from runner.steps import Step
from runner.systems import SYSTEMS, refuse_unselected
from runner.text import counted
from runner.totals import differences, due_gate, totals
from runner.undo_proof import prove_undo
from runner.unsteady import Attempts
from runner.watch import Watch


@dataclass(frozen=True, slots=True)
class Plan:
    """What was asked for. No backfills means all that are due; `every_row` gets each change of the rehearsal."""

    backfills: tuple[str, ...] = ()
    dry_run: bool = False
    allow_rejects: int = 0
    allow_non_transactional: bool = False
    sample: int = 20
    actor: str | None = None
    as_of: str | None = None
    """The end of history, as a person says it: what was not settled before is left out. None: all that is there."""
    every_row: Callable[[Change], None] | None = None
    accept_taken: bool = False
    """Apply at READ COMMITTED, and leave to others the rows that they wrote since the rehearsal."""
    bound: SavedPlan | None = None
    """Do this or nothing: what is asked for is asked for by it."""
    expect: str = ""
    """Do what has this signature or nothing."""
    save: Callable[[bytes], None] | None = None
    """Gets the file of what a dry run found to do."""
    valid: timedelta = VALID
    by_dimension: bool = False
    """Also what is written by month and by whom it is about."""
    rejected: Callable[[str, str, str, int, tuple[LeftOut, ...]], None] | None = None
    """Gets the source rows that are more than are allowed, before they end the rehearsal: where, backfill, description,
    how many, and the first of them."""
    prove_undo: bool | None = None
    """Whether the rehearsal undoes what it did; None: where it is not too much."""


def apply(
    settings: Settings,
    plan: Plan,
    *,
    confirm: Callable[[Report], bool],
    progress: Callable[[str], None],
) -> Report:
    """Rehearse `plan` and, unless it is a dry run or `confirm` says no, apply it.

    Returns the report in every case in which the plan was worked through, also where a gate stopped it (the
    verdict says so); what it says to have left nothing, the server has confirmed to be rolled back. Raises RunnerError
    where it could not be: no connection, lock, right, or a rejected row; NotProvedError where something ended the
    transaction.
    """
    read(settings.sources)  # what may not be in a migration is refused before anything is connected
    progress("compiling the gates")
    compiled = gates_.compile(settings)
    with connect(settings, application_name="runner apply") as conn, Attempts() as attempts:
        started_at = datetime.now(UTC).isoformat(timespec="seconds")
        if plan.bound is not None:
            plan_file.require(conn, settings, plan.bound, compiled)
        as_of = as_of_.resolve(conn, settings, plan.as_of)  # once: of the rehearsal and of the apply
        signing = _signing(plan)
        outside, committed_first = _outside(conn, settings, plan, progress)
        if said := advice.advice(conn, settings):
            progress(said)

        def attempt(expected: Attempt | None) -> Attempt:
            return retrying(
                lambda: _attempt(conn, settings, plan, compiled, outside, as_of, expected, attempts, signing, progress),
                settings,
            )

        rehearsal = attempt(None)

        def report(verdict: Any, last: Attempt, differences: tuple[str, ...] = ()) -> Report:
            version = conn.info.parameter_status("server_version") or ""
            zone = conn.info.parameter_status("TimeZone") or ""
            return Report(
                verdict, place(conn), version, zone, started_at, last, rehearsal.seconds, outside, differences,
                committed_first, bool(plan.backfills), as_of.isoformat(sep=" ") if as_of else "",
                attempts.all_causes if differences else (), _command(plan, last, as_of), place_in_words(conn),
                committed_head(conn), said,
            )  # fmt: skip

        if rehearsal.stopped:
            return report("gate failed", rehearsal)
        if other := _unplanned(plan, rehearsal, signing):
            return report("plan differed", rehearsal, other)
        if not rehearsal.backfills and not rehearsal.migrations:
            return report("nothing due", rehearsal)
        if plan.dry_run:
            if plan.save is not None and signing is not None:
                plan.save(plan_file.save(
                    conn, settings, rehearsal, signing, compiled, as_of=as_of.isoformat(sep=" ") if as_of else "",
                    allow_rejects=plan.allow_rejects, everything=not plan.backfills, valid=plan.valid,
                ))  # fmt: skip
            return report("rehearsed", rehearsal)
        if rehearsal.unapproved:  # the commit would refuse it
            return report("not approved", rehearsal)
        if not confirm(report("rehearsed", rehearsal)):
            return report("declined", rehearsal)
        applied = attempt(rehearsal)
        if applied.stopped:
            return report("gate failed", applied)
        if not applied.backfills and not applied.migrations:
            return report("nothing due", applied)  # another runner did all of it in between
        other = differences(rehearsal, applied)
        return report("apply differed" if other else "applied", applied, other)


def _signing(plan: Plan) -> Signing | None:
    """Who signs the runs, where somebody will look at the signature."""
    keep = plan.bound is not None or plan.save is not None
    return Signing(keep) if keep or plan.dry_run or plan.expect else None


def _unplanned(plan: Plan, rehearsal: Attempt, signing: Signing | None) -> tuple[str, ...]:
    """In what the rehearsal is not what was signed, in words."""
    if plan.bound is not None and signing is not None:
        return tuple(plan_file.differences(plan.bound, rehearsal, signing))
    if plan.expect and plan.expect != rehearsal.signature:
        found = f"signature {rehearsal.signature}" if rehearsal.signature else "nothing due"
        return (f"expected was signature {plan.expect}, and found {found}",)
    return ()


def _command(plan: Plan, rehearsal: Attempt, as_of: datetime | None) -> str:
    """What does this or nothing."""
    if not plan.dry_run or not rehearsal.signature:
        return ""
    words = ["runner", "apply", *(result.name for result in rehearsal.backfills), "--expect", rehearsal.signature]
    if as_of is not None:
        words += ["--as-of", as_of.isoformat(sep=" ")]
    if plan.allow_rejects:
        words += ["--allow-rejects", str(plan.allow_rejects)]
    return shlex.join(words)


def _outside(
    conn: Connection, settings: Settings, plan: Plan, progress: Callable[[str], None]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Pending migrations that no rehearsal can hold: named, or applied first where the plan allows it.

    Returns those that the rehearsal leaves out, and those that are committed already.
    """
    edited = migrations.edited(conn, settings.sources)
    if edited:
        raise EditedMigrationError(
            f"{'; '.join(map(str, edited))}. An applied migration never changes: restore the file and write the "
            "change as a new migration"
        )
    pending = migrations.pending(conn, settings.sources)
    conn.rollback()
    names = tuple(migration.id for migration in pending if not migration.transactional)
    if names and plan.allow_non_transactional and not plan.dry_run:
        progress(f"migrations outside a transaction: {', '.join(names)}")
        # A second connection holds the lock: these statements refuse a transaction of their own. It keeps no
        # snapshot, for which CREATE INDEX CONCURRENTLY would wait.
        with (
            connect(settings, application_name="runner apply (lock)", watched=False) as other,
            locked_transaction(other, settings, isolation=IsolationLevel.READ_COMMITTED),
        ):
            other.execute("set local idle_in_transaction_session_timeout = 0")
            done = migrations.apply_outside(conn, settings.sources)
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
    as_of: datetime | None,
    expected: Attempt | None,
    attempts: Attempts,
    signing: Signing | None,
    progress: Callable[[str], None],
) -> Attempt:
    """The plan in one transaction: rolled back without an `expected` attempt, else committed where all holds."""
    verb = "rehearsing" if expected is None else "applying"
    # What others have committed by then is seen only here.
    others = expected is not None and plan.accept_taken
    isolation = IsolationLevel.READ_COMMITTED if others else IsolationLevel.REPEATABLE_READ
    with locked_transaction(conn, settings, isolation=isolation) as proof:
        watch = Watch(conn)
        watch.begin()
        if conn.execute("select to_regprocedure('backfill.require_trusted()') is not null").fetchone() == (True,):
            conn.execute("select backfill.require_trusted()")  # before a migration touches a table
        progress(f"{verb}: migrations")
        misfits: list[Misfit] = []
        done = migrations.apply(conn, settings.sources, leave_out=outside, misfits=misfits, proof=proof)
        watch.look()
        progress(f"{verb}: counting what is due")
        as_of_.keep(conn, as_of)
        due = _due(conn, settings, plan.backfills, misfits)
        as_of_.require(conn, as_of, [row["backfill"] for row in due])
        gates_.require(compiled, [row["backfill"] for row in due])
        if plan.accept_taken:
            approvals.require_taken_may_pass(conn, [row["backfill"] for row in due])
        results = []
        for row in due:
            step = Step(f"{verb}: backfill {row['backfill']}, {counted(row['due_rows'], 'row')}")
            progress(step)
            if plan.rejected is not None and row["rejects"] > plan.allow_rejects:
                those = new_rejects(conn, row["backfill"])
                plan.rejected(place_in_words(conn), row["backfill"], row["description"], row["rejects"], those)
            result = _backfill(conn, settings, plan, row)
            step.rows, step.run_id = result.rows, str(result.run_id)
            proof.after(f"backfill {result.name}")
            watch.look()
            if signing is not None:
                result = replace(result, signature=signing.sign(conn, result.name, result.run_id))
            if expected is None:
                attempts.rehearse(conn, result.name, result.run_id, result.rows, plan.accept_taken)
            elif expected.digests.get(result.name, result.digest) != result.digest:
                result = replace(result, taken=attempts.left(conn, result.name, result.run_id))
                if not result.taken:
                    attempts.differed(conn, result.name, result.run_id)
            if plan.bound is not None and plan.accept_taken and signing is not None:
                same = expected is None or expected.digests.get(result.name) == result.digest
                result = plan_file.less_others(conn, plan.bound, signing, result, same or bool(result.taken))
            results.append(replace(result, undo=_undo(proof, plan, result, expected, progress)))
        progress(f"{verb}: deferred constraints")
        with own_names(conn):
            conn.execute("set constraints all immediate")
        proof.after("deferred constraints")
        judged: list[gates_.GateResult] = []
        if results:
            progress(f"{verb}: gates")
            judged = gates_.run(
                conn, compiled, [result.name for result in results], plan.sample, after=proof.after,
                progress=lambda at, of: progress(f"{verb}: gates ({at} of {of})"),
            )  # fmt: skip
            judged += [due_gate(result) for result in results]
        watch.look()
        moved = watch.moved_sequences()
        attempt = Attempt(
            migrations=tuple(migration.id for migration in done),
            backfills=tuple(results),
            totals=totals(results),
            gates=tuple(judged),
            locks=watch.locks(),
            triggers=watch.triggers([table.table for result in results for table in result.tables]),
            sequences=tuple(moved),
            wal_bytes=watch.wal_bytes(),
            misfits=tuple(misfits),
            signature=plan_file.signature(results) if signing is not None else "",
            seconds=time.perf_counter() - watch.started,
        )
        if expected is None and plan.every_row is not None:
            # Last, where nothing is left that could be tried again: each row is shown once.
            for result in results:
                for change in stream_changes(conn, result.run_id):
                    plan.every_row(change)
        undone = expected is None or attempt.stopped or bool(differences(expected, attempt))
        if undone:
            taken = sequences.drawn(conn, [result.run_id for result in results], moved)
            proof.roll_back()
        else:
            attempt = replace(attempt, chain=chain_head(conn))
            progress("committing")
    if undone and taken:
        back = sequences.put_back(conn, settings, taken, moved)
        names = dict.fromkeys([*moved, *(item.name for item in taken)])
        attempt = replace(attempt, sequences=tuple(name for name in names if name not in back))
    if undone and (
        analyzed := [
            t.table for result in results for t in result.tables if t.inserted + t.updated + t.deleted >= ANALYZED
        ]
    ):
        analyze_again(conn, settings, analyzed)
    return attempt


def _undo(
    proof: Proof, plan: Plan, result: BackfillResult, expected: Attempt | None, progress: Callable[[str], None]
) -> Undo:
    """What the rehearsal finds when it undoes a run; an apply takes it over: it does the same, or nothing."""
    if expected is not None:
        return next((item.undo for item in expected.backfills if item.name == result.name), result.undo)
    if plan.prove_undo is not False:
        progress(f"rehearsing: undo of {result.name}")
    undo = prove_undo(proof, result.run_id, result.rows, plan.prove_undo)
    proof.after(f"undo of {result.name}")
    return undo


def _due(conn: Connection, settings: Settings, names: Sequence[str], misfits: Sequence[Misfit]) -> list[dict[str, Any]]:
    """Backfills with rows to write or rejects to decide on, in the catalog's order.

    Those of systems that are not selected, or do not fit, are left out; one that is named is refused then, as a wrong
    name is.
    """
    systems: dict[str, str] = dict(conn.execute("select backfill, system from backfill.catalog").fetchall())
    lost = {misfit.system: misfit for misfit in misfits}
    for name in names:
        if name in systems:
            if systems[name] in SYSTEMS:
                refuse_unselected(systems[name], settings.systems)
        elif lost:  # its system, most likely, is one of them
            raise MigrationError(f"there is no backfill {name}: {'; '.join(map(str, misfits))}")
        conn.execute("select backfill.entry(%s)", [name])
    wanted = [
        name for name, system in systems.items()
        if (name in names or not names) and system not in lost and (system not in SYSTEMS or system in settings.systems)
    ]  # fmt: skip
    with conn.cursor(row_factory=dict_row) as cursor:
        rows = cursor.execute("select * from backfill.due(%s)", [wanted]).fetchall()
    return [row for row in rows if row["due_rows"] or row["rejects"]]


def _backfill(conn: Connection, settings: Settings, plan: Plan, due: dict[str, Any]) -> BackfillResult:
    started = time.perf_counter()
    with conn.cursor(row_factory=dict_row) as cursor:
        log = cursor.execute(
            "select run_id, digest, metrics, jsonb_array_length(errors) as failed from backfill.run(%s, '{}', %s, %s)",
            [due["backfill"], plan.allow_rejects, plan.actor],
        ).fetchone()
        assert log is not None  # noqa: S101 - a function call returns a row
        seconds = time.perf_counter() - started
        left = cursor.execute("select due_rows from backfill.still_due(%s)", [due["backfill"]]).fetchone()
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
        due_money=due["due_money"],
        # An item that failed by itself is recorded with its reason, and stays due.
        due_after=max(left["due_rows"] - log["failed"], 0) if left else 0,
        rejects=due["rejects"],
        run_id=log["run_id"],
        digest=log["digest"],
        seconds=seconds,
        tables=table_changes(metrics),
        sample=tuple(sample_changes(conn, log["run_id"], plan.sample)),
        left_out=tuple(left_out(conn, log["run_id"], plan.sample if plan.every_row is None else None)),
        metrics=metrics,
        approvals=approvals.of(metrics),
        dimensions=by_dimension(conn, log["run_id"], now=True) if plan.by_dimension else (),
        due_relation=due["due_relation"],
        rule_file=rule_file(settings.sources, due["due_relation"]),
    )
