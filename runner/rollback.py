"""`runner rollback`: try the reversal of a run, show it, and only then do it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Literal

from runner.apply import table_changes
from runner.database import Connection, connect, locked_transaction, retrying
from runner.errors import DigestError
from runner.log import find_run
from runner.result import Reversal
from runner.settings import Settings

_REVERSE = """
    with undone as materialized (select * from backfill.reverse_run(%s, %s)),
    numbered as (select *, row_number() over (partition by table_name order by result desc) as place from undone)
    select table_name, result, count(*), array_agg(business_key order by place) filter (where place <= %s)
    from numbered group by 1, 2 order by 1, 2
"""


def rollback(
    settings: Settings,
    given: str,
    *,
    dry_run: bool,
    confirm: Callable[[Reversal], bool],
    actor: str | None = None,
    sample: int = 20,
    progress: Callable[[str], None],
) -> Reversal:
    """Reverse a run, named by its id or the beginning of it. Twice is a no-op.

    Raises ReversalRefusedError (exit 6), with everything as it was, where a row is no longer what the run left,
    and DigestError (exit 4) where the reversal would no longer be the one that was shown.
    """
    with connect(settings, application_name="runner rollback") as conn:

        def attempt(expected: str | None) -> tuple[Reversal, str]:
            return retrying(lambda: _attempt(conn, settings, given, expected, actor, sample), settings)

        progress("rehearsing the reversal")
        shown, digest = attempt(None)
        if dry_run or shown.verdict == "already reversed":
            return shown
        if not confirm(shown):
            return _with(shown, "declined")
        progress("reversing")
        done, again = attempt(digest)
        if again != digest:
            raise DigestError(
                f"the reversal of run {shown.run_id} would differ from the one shown: nothing was changed"
            )
        return done


def _attempt(
    conn: Connection, settings: Settings, given: str, expected: str | None, actor: str | None, sample: int
) -> tuple[Reversal, str]:
    """One reversal: rolled back without an `expected` digest or with another one, else committed."""
    started = time.perf_counter()
    with locked_transaction(conn, settings):
        run = find_run(conn, given)
        if run.status == "reversed":
            counts = (("", "already original", 0),)
            return Reversal(run.run_id, run.backfill, "already reversed", run.reversed_by, counts, (), (), 0.0), ""
        # One statement does and sums up; its rows, as many as the run wrote, stay in the server.
        rows = conn.execute(_REVERSE, [run.run_id, actor, sample]).fetchall()
        conn.execute("set constraints all immediate")
        reversal = conn.execute("select reversed_by from backfill.backfill_log where run_id = %s", [run.run_id])
        undo = find_run(conn, str((reversal.fetchone() or [None])[0]))
        if expected is None or undo.digest != expected:
            conn.rollback()
    result = Reversal(
        run_id=run.run_id,
        backfill=run.backfill,
        verdict="rehearsed" if expected is None else "reversed",
        reversal_id=None if expected is None else undo.run_id,
        counts=tuple((table, found, count) for table, found, count, _ in rows),
        cents=table_changes(undo.metrics),
        sample=tuple((table, key, found) for table, found, _, keys in rows for key in keys or ()),
        seconds=time.perf_counter() - started,
    )
    return result, undo.digest or ""


def _with(shown: Reversal, verdict: Literal["declined"]) -> Reversal:
    return Reversal(shown.run_id, shown.backfill, verdict, None, shown.counts, shown.cents, shown.sample, shown.seconds)
