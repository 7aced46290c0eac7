"""Guarded connections and transactions; no table is named here."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from typing import Any, TypeAlias, TypeVar

import psycopg
from psycopg import IsolationLevel
from psycopg.conninfo import conninfo_to_dict
from psycopg.pq import TransactionStatus
from psycopg.rows import TupleRow, class_row

from runner.errors import CommitUnknownError, ConnectError, LockedError, translate
from runner.settings import Settings, redact, scrub

Connection: TypeAlias = psycopg.Connection[TupleRow]
T = TypeVar("T")

RETRIED = ("40001", "40P01", "55P03")

_GUARD = b"""
    select
        set_config('lock_timeout', %(lock_timeout)s, true),
        set_config('statement_timeout', %(statement_timeout)s, true),
        set_config('idle_in_transaction_session_timeout', %(idle)s, true),
        set_config('row_security', 'off', true),
        -- Without it a killed runner's statement goes on, and keeps its locks, until it next writes to the client.
        (
            select set_config(name, '5s', true) from pg_catalog.pg_settings
            where name = 'client_connection_check_interval'
                and pg_catalog.version() !~* 'windows|mingw|visual c'
        ),
        -- Of two that wait for each other the one that looks first gives way: this one, which tries again,
        -- not the application. Only where the role may set it; doctor says so.
        (
            select set_config(name, '50ms', true) from pg_catalog.pg_settings
            where name = 'deadlock_timeout' and pg_catalog.has_parameter_privilege('deadlock_timeout', 'set')
        )
"""

# A repeatable-read transaction keeps the snapshot of its first statement, this one, taken just before the
# lock is had. `stale` says that a transaction has committed in between, which may be the run that held the
# lock: it was open for the snapshot, or its id lies between the snapshot's end and an id drawn afterwards.
_TRY_LOCK = b"""
    with attempt as materialized (
        select pg_catalog.pg_try_advisory_xact_lock(hashtextextended('backfill', 0)) as locked
    )
    select
        locked,
        case when locked then exists (
            select from (
                select pg_catalog.pg_snapshot_xip(pg_catalog.pg_current_snapshot()) as xid
                union all
                select later::text::xid8
                from pg_catalog.generate_series(
                    pg_catalog.pg_snapshot_xmax(pg_catalog.pg_current_snapshot())::text::bigint,
                    pg_catalog.pg_current_xact_id()::text::bigint - 1
                ) as later
            ) as other
            where pg_catalog.pg_xact_status(other.xid) = 'committed'
        ) end as stale
    from attempt
"""

_HOLDER = b"""
    select l.pid, a.usename as role, a.application_name as application, a.xact_start as since
    from pg_catalog.pg_locks as l left join pg_catalog.pg_stat_activity as a on a.pid = l.pid
    where l.locktype = 'advisory' and l.granted and l.objsubid = 1
        and l.database = (select oid from pg_catalog.pg_database where datname = current_database())
        and (l.classid::bigint << 32) | l.objid::bigint = hashtextextended(%(name)s, 0)
"""


class Holder:
    """Who holds the lock; `since` is null where the role may not see other sessions."""

    def __init__(self, pid: int, role: str | None, application: str | None, since: datetime | None) -> None:
        self.pid, self.role, self.application, self.since = pid, role, application, since

    def __str__(self) -> str:
        since = self.since.isoformat(sep=" ", timespec="seconds") if self.since else "an unknown time"
        name = self.application or "an unnamed application"
        return f"process {self.pid} ({name}, role {self.role or 'unknown'}) since {since}"


@contextmanager
def connect(settings: Settings, *, application_name: str = "runner") -> Iterator[Connection]:
    """A connection with autocommit off; what is open at the end is rolled back.

    Raises ConnectError, without any secret, where none can be opened, and RunnerError for every driver error
    that leaves the block.
    """
    try:
        # Prepared statements would not find their session again behind a transaction pooler.
        conn = psycopg.connect(
            settings.conninfo,
            application_name=application_name,
            prepare_threshold=None,
            connect_timeout=_connect_timeout(settings),
        )
    except psycopg.Error as exc:
        # The driver's text may repeat pieces of a malformed URL: it is not kept as the cause.
        raise ConnectError(_explain(exc, settings)) from None
    try:
        yield conn
    except psycopg.Error as exc:
        raise translate(exc) from exc
    finally:
        conn.close()


def guard(conn: Connection, settings: Settings) -> None:
    """Set the limits of the transaction that is open, or that this statement opens; they end with it.

    Transaction-local settings hold through a transaction pooler, where session settings leak to others.
    """
    conn.execute(
        _GUARD,
        {
            "lock_timeout": str(settings.lock_timeout),
            "statement_timeout": str(settings.statement_timeout),
            "idle": str(settings.idle_in_transaction_timeout),
        },
    )


@contextmanager
def transaction(
    conn: Connection, settings: Settings, *, isolation: IsolationLevel = IsolationLevel.REPEATABLE_READ
) -> Iterator[Connection]:
    """A guarded transaction: commits at the end of the block, rolls back when it is left by an error.

    A block that has already committed or rolled back, e.g. a rehearsal, ends with nothing to do.
    """
    _idle(conn)
    conn.isolation_level = isolation
    with _ended(conn):
        guard(conn, settings)
        yield conn


@contextmanager
def locked_transaction(
    conn: Connection, settings: Settings, *, isolation: IsolationLevel = IsolationLevel.REPEATABLE_READ
) -> Iterator[Connection]:
    """As transaction(), holding the advisory lock from before its snapshot to its end."""
    with _ended(conn):
        take_lock(conn, settings, isolation=isolation)
        yield conn


def take_lock(
    conn: Connection, settings: Settings, *, isolation: IsolationLevel = IsolationLevel.REPEATABLE_READ
) -> None:
    """Begin a guarded transaction that holds the project's advisory lock until it ends.

    Each try is a transaction of its own, so that the snapshot is not older than the lock. Raises LockedError
    (exit 5) naming the holder when settings.lock_wait milliseconds were not enough.
    """
    _idle(conn)
    conn.isolation_level = isolation
    deadline = time.monotonic() + settings.lock_wait / 1000
    stale_left = 10  # a busy server commits all the time: a serialization failure catches what is left
    while True:
        locked, stale = conn.execute(_TRY_LOCK).fetchone() or (False, None)  # first, and never waits
        if locked and (not stale or stale_left == 0):
            guard(conn, settings)
            return
        holders = [] if locked else holders_of_lock(conn)
        conn.rollback()
        if locked:
            stale_left -= 1
        elif settings.lock_wait and time.monotonic() > deadline:
            raise LockedError(
                f"another run holds the lock: {', '.join(map(str, holders)) or 'it has just ended'}; waited "
                f"{settings.lock_wait / 1000:g} s. Wait for it, raise lock_wait in runner.toml, or end it with "
                f"select pg_terminate_backend({holders[0].pid if holders else 'pid'})"
            )
        else:
            time.sleep(random.uniform(0.05, 0.2))  # noqa: S311 - jitter


def holders_of_lock(conn: Connection, name: str = "backfill") -> list[Holder]:
    """Who holds the advisory lock in this database; empty when nobody does."""
    with conn.cursor(row_factory=class_row(Holder)) as cursor:
        return cursor.execute(_HOLDER, {"name": name}).fetchall()


@contextmanager
def alone(settings: Settings, name: str) -> Iterator[Callable[[], None]]:
    """No two commands of this name at once, over many transactions: an advisory lock on a connection of its own.

    It is at transaction level, so that it goes with its process and holds behind a pooler; the transaction reads
    nothing, so that it keeps no row from vacuum. What is yielded keeps the connection awake: call it now and then.
    Raises LockedError (exit 5) naming the holder when settings.lock_wait milliseconds were not enough.
    """
    with connect(settings, application_name=f"runner {name}") as conn:
        conn.isolation_level = IsolationLevel.READ_COMMITTED
        deadline = time.monotonic() + settings.lock_wait / 1000
        while True:
            row = conn.execute("select pg_try_advisory_xact_lock(hashtextextended(%s, 0))", [name]).fetchone()
            if row is not None and row[0]:
                break
            holders = holders_of_lock(conn, name)
            conn.rollback()
            if time.monotonic() > deadline:
                raise LockedError(
                    f"another `runner {name}` is at work: {', '.join(map(str, holders)) or 'it has just ended'}; "
                    f"waited {settings.lock_wait / 1000:g} s. Wait for it, or end it"
                )
            time.sleep(random.uniform(0.05, 0.2))  # noqa: S311 - jitter
        conn.execute("select set_config('idle_in_transaction_session_timeout', '0', true)")

        def awake() -> None:
            conn.execute("select")

        yield awake
        conn.rollback()


def step(conn: Connection, settings: Settings, call: str, *values: object) -> list[tuple[Any, ...]]:
    """One call of a function of the database as a transaction of its own, tried again as retrying() does; its rows."""

    def action() -> list[tuple[Any, ...]]:
        with transaction(conn, settings, isolation=IsolationLevel.READ_COMMITTED):
            return conn.execute(call.encode(), values).fetchall()

    return retrying(action, settings)


def retrying(action: Callable[[], T], settings: Settings, *, sleep: Callable[[float], None] = time.sleep) -> T:
    """Do `action`, a whole transaction, again after a serialization failure, deadlock or lock timeout.

    At most settings.retries more times, with doubling, jittered waits (0.1 s to 5 s); then the driver error is
    translated and raised (exit 5). Other errors pass.
    """
    for attempt in range(settings.retries + 1):
        try:
            return action()
        except psycopg.Error as exc:
            if exc.sqlstate not in RETRIED:
                raise
            if attempt == settings.retries:
                raise translate(exc) from exc
            sleep(min(5.0, 0.1 * 2**attempt) * random.uniform(0.5, 1.5))  # noqa: S311 - jitter
    raise AssertionError("unreachable")


@contextmanager
def _ended(conn: Connection) -> Iterator[None]:
    try:
        yield
    except BaseException:
        # The first error is the one to show; a server that is gone has rolled back already.
        with suppress(psycopg.Error):
            conn.rollback()
        raise
    try:
        conn.commit()
    except psycopg.OperationalError as exc:
        if not conn.broken:
            raise
        raise CommitUnknownError(
            f"the connection broke while the server was committing: {' '.join(str(exc).split())}. It kept all of the "
            "transaction or nothing: `runner log` and `runner status` say which; running the same command again is safe"
        ) from exc


def _idle(conn: Connection) -> None:
    if conn.info.transaction_status != TransactionStatus.IDLE:
        raise AssertionError("a transaction is open already: its snapshot would be older than the lock")


def _connect_timeout(settings: Settings) -> int:
    """Seconds, 10 unless the connection says otherwise: a host that is down must not hold a command for minutes."""
    with suppress(psycopg.Error, ValueError):
        given = conninfo_to_dict(settings.conninfo).get("connect_timeout") or os.environ.get("PGCONNECT_TIMEOUT")
        return int(given or 10)
    return 10


def _explain(exc: psycopg.Error, settings: Settings) -> str:
    """Why there is no connection and what to do; of a malformed string nothing is repeated."""
    shown = redact(settings.conninfo)
    if "cannot be read" in shown:
        return shown
    text = " ".join(scrub(str(exc), settings.conninfo).split())
    advice = next((way for sign, way in _ADVICE if sign in text), "check --database-url, DATABASE_URL or runner.toml")
    return f"cannot connect to {shown}: {text}. Way out: {advice}"


_ADVICE = (
    ("password authentication failed", "check user and password; a password can be kept in ~/.pgpass or PGPASSWORD"),
    ("no password supplied", "give a password in ~/.pgpass, PGPASSWORD or the URL"),
    ("does not exist", "check the names of database and user; `psql -l` lists databases"),
    ("no pg_hba.conf entry", "the server's pg_hba.conf does not allow this user from here; perhaps sslmode=require"),
    ("resolve host", "check the host's name"),
    ("Connection refused", "check host and port, and that the server runs"),
    ("No such file or directory", "no server listens on this socket: check host, and that the server runs"),
    ("timeout", "check host, port and firewall"),
    ("too many", "the server has no connection left: try again later, or raise max_connections"),
    ("starting up", "the server is starting or recovering: try again"),
)
