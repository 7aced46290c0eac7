"""`runner rollback`: try the reversal of a run, or of it and all after it, show it, and only then do it."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final, Literal, TypeVar

from runner import approvals, runs
from runner.database import Connection, connect, locked_transaction, retrying
from runner.errors import DigestError
from runner.pinned import own_names, place_in_words
from runner.result import Reversal, Rewind, Stamped
from runner.runs import Run, find_run, table_changes
from runner.settings import Settings

# One statement does and sums up; its rows, as many as the runs wrote, stay in the server.
_COUNTS: Final = """,
    numbered as (
        select *, row_number() over (partition by run_id, table_name order by result desc) as place from undone)
    select run_id, table_name, result, count(*), array_agg(business_key order by place) filter (where place <= %s)
    from numbered group by 1, 2, 3 order by 1, 2, 3
"""
_REVERSE: Final = f"""
    with undone as materialized (select %s::uuid as run_id, * from backfill.reverse_run(%s, %s)){_COUNTS}
"""  # noqa: S608 - constant text
_REVERSE_SINCE: Final = f"""
    with undone as materialized (select * from backfill.reverse_since(%s, %s)){_COUNTS}
"""  # noqa: S608 - constant text
_UNDONE_BY: Final = "select run_id from backfill.backfill_log where reverses = %s order by completed_at desc limit 1"

Found = dict[uuid.UUID, list[tuple[str, str, int, list[str] | None]]]
Verdict = Literal["rehearsed", "reversed", "declined", "not approved"]
Shown = TypeVar("Shown", Reversal, Rewind)


def rollback(
    settings: Settings,
    given: str,
    *,
    dry_run: bool,
    confirm: Callable[[Reversal], bool],
    actor: str | None = None,
    sample: int = 20,
    progress: Callable[[str], None],
    by_dimension: bool = False,
) -> Reversal:
    """Reverse a run, named by its id or the beginning of it. Twice is a no-op.

    Raises SqlError BF005 (exit 6), with everything as it was, where a row is no longer what the run left,
    and DigestError (exit 4) where the reversal would no longer be the one that was shown.
    """

    def undo(conn: Connection) -> tuple[Reversal, str]:
        started = time.perf_counter()
        run = find_run(conn, given)
        if run.status == "reversed":
            counts = (("", "already original", 0),)
            return Reversal(run.run_id, run.backfill, "already reversed", run.reversed_by, counts, (), (), 0.0), ""
        rows = conn.execute(_REVERSE, [run.run_id, run.run_id, actor, sample]).fetchall()
        with own_names(conn):
            conn.execute("set constraints all immediate")
        shown, digest = _reversal(conn, run.run_id, _by_run(rows), by_dimension)
        return replace(shown, seconds=time.perf_counter() - started), digest

    return _shown_then_done(settings, given, undo, _told, dry_run=dry_run, confirm=confirm, progress=progress)


def rollback_since(
    settings: Settings,
    given: str,
    *,
    dry_run: bool,
    confirm: Callable[[Rewind], bool],
    actor: str | None = None,
    sample: int = 5,
    progress: Callable[[str], None],
    by_dimension: bool = False,
) -> Rewind:
    """Reverse a run and all that came after it, the newest first: all of them or none. Twice is a no-op.

    `sample`: rows shown of each run and table. Raises as `rollback` does.
    """

    def undo(conn: Connection) -> tuple[Rewind, str]:
        started = time.perf_counter()
        run = find_run(conn, given)
        since = conn.execute("select r from backfill.runs_since(%s) as r", [run.run_id]).fetchall()
        rows = conn.execute(_REVERSE_SINCE, [run.run_id, actor, sample]).fetchall()
        with own_names(conn):
            conn.execute("set constraints all immediate")
        found = _by_run(rows)
        # A load that captured nothing was left as it is.
        undone = [run_id for (run_id,) in since if find_run(conn, str(run_id)).status == "reversed"]
        if not undone:
            return Rewind(run.run_id, "already reversed", (), 0.0), ""
        each = [_reversal(conn, run_id, found, by_dimension) for run_id in undone]
        seconds = time.perf_counter() - started
        return Rewind(run.run_id, "rehearsed", tuple(one for one, _ in each), seconds), " ".join(d for _, d in each)

    def told(shown: Rewind, verdict: Verdict) -> Rewind:
        return replace(shown, verdict=verdict, reversals=tuple(_told(one, verdict) for one in shown.reversals))

    return _shown_then_done(settings, given, undo, told, dry_run=dry_run, confirm=confirm, progress=progress)


def _shown_then_done(
    settings: Settings,
    given: str,
    undo: Callable[[Connection], tuple[Shown, str]],
    told: Callable[[Shown, Verdict], Shown],
    *,
    dry_run: bool,
    confirm: Callable[[Shown], bool],
    progress: Callable[[str], None],
) -> Shown:
    """Try it and roll back, ask, do it again: committed only where the digest is that of what was shown."""

    def attempt(conn: Connection, expected: str | None) -> tuple[Shown, str]:
        with locked_transaction(conn, settings) as proof:
            shown, digest = undo(conn)
            if expected is None or digest != expected:
                proof.roll_back()
        return shown, digest

    with connect(settings, application_name="runner rollback") as conn:
        progress("rehearsing the reversal")
        shown, digest = retrying(lambda: attempt(conn, None), settings)
        if shown.verdict == "already reversed":
            return shown
        shown = told(shown, "rehearsed")
        if dry_run:
            return shown
        if not shown.approved:  # the commit would refuse it
            return told(shown, "not approved")
        if not confirm(shown):
            return told(shown, "declined")
        progress("reversing")
        done, again = retrying(lambda: attempt(conn, digest), settings)
        if again != digest:
            raise DigestError(f"the reversal of run {given} would differ from the one shown: nothing was changed")
        return told(done, "reversed")


def _told(shown: Reversal, verdict: Verdict) -> Reversal:
    """The same with this verdict; the id of a run that was rolled back names nothing."""
    done = verdict == "reversed"
    return replace(
        shown, verdict=verdict, reversal_id=shown.reversal_id if done else None, chain=shown.chain if done else ""
    )


def _by_run(rows: list[tuple[Any, ...]]) -> Found:
    found: Found = {}
    for run_id, table, result, count, keys in rows:
        found.setdefault(run_id, []).append((table, result, count, keys))
    return found


def _reversal(conn: Connection, run_id: uuid.UUID, found: Found, dimensions: bool) -> tuple[Reversal, str]:
    """The reversal of a run that has just been done in this transaction, and its digest."""
    run = find_run(conn, str(run_id))
    undo: Run = find_run(conn, str((conn.execute(_UNDONE_BY, [run_id]).fetchone() or [None])[0]))
    rows = found.get(run_id, [])
    result = Reversal(
        run_id=run_id,
        backfill=run.backfill,
        verdict="rehearsed",
        reversal_id=undo.run_id,
        counts=tuple((table, result, count) for table, result, count, _ in rows),
        tables=table_changes(undo.metrics),
        sample=tuple((table, key, result) for table, result, _, keys in rows for key in keys or ()),
        seconds=0.0,
        chain=undo.link or "",
        where=place_in_words(conn),
        approvals=approvals.of(undo.metrics),
        dimensions=runs.by_dimension(conn, undo.run_id, now=True) if dimensions else (),
        stamped=tuple(
            Stamped(one["table"], tuple(one["columns"]), one["rows"], tuple(one["triggers"]))
            for one in undo.metrics.get("stamped_anew", [])
        ),
    )
    return result, undo.digest or ""
