"""Whether a run could be undone: tried on its uncommitted rows, by the database's own reversal, and itself undone."""

from __future__ import annotations

import uuid
from typing import Final

import psycopg

from runner.database import RETRIED
from runner.errors import translate
from runner.proof import Proof
from runner.result import Undo

LIMIT: Final = 100_000
"""Rows of a run up to which its undo is tried without being asked for: it takes about as long as the run."""


def prove_undo(proof: Proof, run_id: uuid.UUID, rows: int, wanted: bool | None) -> Undo:
    """Undo a run below a savepoint and compare; `wanted` is None where the number of its rows decides.

    A refusal is a result. Raises psycopg's errors where the server, a lock or a cancel was in the way.
    """
    if wanted is False:
        return Undo("not tried", 0, "--no-prove-undo")
    if rows == 0:
        return Undo("not tried", 0, "the run changed no row")
    if wanted is None and rows > LIMIT:
        return Undo("not tried", 0, f"{rows:,} rows are more than {LIMIT:,}: --prove-undo tries it all the same")
    try:
        with proof.savepoint(undone=True):
            row = proof.conn.execute(
                "select proved, row_count, refusal from backfill.prove_undo(%s)", [run_id]
            ).fetchone()
    except psycopg.Error as exc:
        if proof.conn.closed or exc.sqlstate in RETRIED or isinstance(exc, psycopg.OperationalError):
            raise
        return Undo("refused", 0, " ".join(str(translate(exc)).split()))
    assert row is not None  # noqa: S101 - the function returns one row
    proved, count, refusal = row
    if proved:
        return Undo("proved", count)
    return Undo("refused", count or 0, " ".join((refusal or "the database gives no reason").split()))
