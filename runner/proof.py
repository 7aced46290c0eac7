"""Proof that a transaction is still the one that was begun, and that rolling it back left nothing.

The id of the transaction shows that it was neither committed nor rolled back since. That nothing of it was undone by
way of a savepoint is shown by an advisory lock taken at each step: such a lock goes with what is rolled back, and
no statement can let go of it. What a function commits elsewhere (dblink, a file, a service) is not seen here.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final, TypeAlias

import psycopg
from psycopg.pq import TransactionStatus
from psycopg.rows import TupleRow

from runner.errors import NotProvedError, translate

Connection: TypeAlias = psycopg.Connection[TupleRow]

_BEGIN: Final = "select pg_current_xact_id()::text, pg_try_advisory_xact_lock(%s, %s)"

_STANDS: Final = """
    with before as materialized (
        select exists (
            select 1 from pg_catalog.pg_locks
            where locktype = 'advisory' and pid = pg_catalog.pg_backend_pid() and granted and objsubid = 2
                and classid = %s::oid and objid = %s::oid
        ) as held
    )
    select pg_catalog.pg_current_xact_id()::text, held, pg_catalog.pg_try_advisory_xact_lock(%s, %s) from before
"""


_NAMED: Final = 8
"""Steps that a message names: the first two and the last six."""


@contextmanager
def proved(conn: Connection) -> Iterator[Proof]:
    """The transaction of a block, begun where none is open; left by an error, it is proved to have been rolled back."""
    proof = Proof(conn)
    try:
        yield proof
        if conn.info.transaction_status != TransactionStatus.IDLE:
            proof.after("what came last")
    except BaseException as exc:
        proof.after_error(exc)
        raise


class Proof:
    """A transaction that is watched from here to its end; `steps` are those after which it was still the same."""

    def __init__(self, conn: Connection) -> None:
        """Begins the transaction where none is open."""
        self.conn = conn
        self.steps: list[str] = []
        self._key, self._mark = secrets.randbelow(1 << 31), 0
        row = conn.execute(_BEGIN, [self._key, self._mark]).fetchone()
        assert row is not None  # noqa: S101 - a select of functions returns a row
        self.xid: str = row[0]

    def after(self, step: str) -> None:
        """Prove that `step` ended in the transaction in which it began, with all that was done before it.

        Raises NotProvedError (exit 1), with everything rolled back that can be, saying what may have been committed.
        """
        self.open_after(step)
        row = self.conn.execute(_STANDS, [self._key, self._mark, self._key, self._mark + 1]).fetchone()
        if row is None or row[0] != self.xid:
            raise self._lost(step)
        if not row[1]:
            self.roll_back()
            raise NotProvedError(
                f"{step} went back to a savepoint, and with it went what had been done before it. All of the "
                "transaction was rolled back: nothing was changed"
            )
        self._mark += 1
        self.steps.append(step)

    def open_after(self, step: str) -> None:
        """As after(), from what the driver knows: it sees a transaction that was ended, not one that was begun anew."""
        if self.conn.info.transaction_status in (TransactionStatus.IDLE, TransactionStatus.INERROR):
            raise self._lost(step)

    @contextmanager
    def savepoint(self, *, undone: bool = False) -> Iterator[None]:
        """A savepoint of our own: rolled back to where the block is left by an error, or in any case."""
        mark = self._mark
        count = len(self.steps)
        try:
            with self.conn.transaction(force_rollback=undone):
                yield
        except psycopg.errors.InvalidSavepointSpecification as exc:
            raise self._lost("what was done below a savepoint") from exc
        except BaseException:
            self._mark = mark
            del self.steps[count:]
            raise
        if undone:
            self._mark = mark
            del self.steps[count:]

    def roll_back(self) -> None:
        """Roll back, and ask the server in another transaction whether that is what became of this one.

        Only after it may one say that nothing was changed. Raises NotProvedError (exit 1).
        """
        self.conn.rollback()
        became = self._became()
        if became != "aborted":
            raise NotProvedError(
                f"the transaction was to be rolled back, and the server does not say that it was ({self.xid}: "
                f"{became or 'unknown'}). {self._may_have_been_kept()}"
            )

    def after_error(self, exc: BaseException) -> None:
        """Roll back what an error has left open, and prove it; a server that is gone has done so already.

        Raises NotProvedError from the error where it is not so.
        """
        if isinstance(exc, NotProvedError):
            with suppress(psycopg.Error):
                self.conn.rollback()
            return
        try:
            self.roll_back()
        except psycopg.Error:
            return  # the first error is the one to show
        except NotProvedError as unproved:
            words = translate(exc) if isinstance(exc, psycopg.Error) else str(exc) or type(exc).__name__
            raise NotProvedError(f"{words}. But {unproved}") from exc

    def _lost(self, step: str) -> NotProvedError:
        try:
            self.conn.rollback()
            became = self._became()
        except psycopg.Error:
            became = None
        if became == "committed":
            what = "ended the transaction: all that had been done until then was committed"
        elif became == "aborted":
            what = "rolled back what had been done before it; what it did afterwards may have been committed"
        else:
            what = "left the transaction in which it began"
        return NotProvedError(f"{step} {what}. {self._may_have_been_kept(step)}")

    def _may_have_been_kept(self, *more: str) -> str:
        steps = [*self.steps, *more] or ["whatever was done in it"]
        if len(steps) > _NAMED:
            steps = [*steps[:2], f"{len(steps) - _NAMED} steps more", *steps[2 - _NAMED :]]
        return f"What may have been committed: {', '.join(steps)}. See `runner status` and `runner log`"

    def _became(self) -> str | None:
        """What the server made of the transaction; null where it does not know it."""
        try:
            row = self.conn.execute("select pg_catalog.pg_xact_status(%s::text::xid8)", [self.xid]).fetchone()
        finally:
            self.conn.rollback()
        return str(row[0]) if row and row[0] else None
