"""Guarded connections and transactions; no table is named here."""

from __future__ import annotations

import math
import os
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeAlias, TypeVar

import psycopg
from psycopg import IsolationLevel
from psycopg.conninfo import conninfo_to_dict
from psycopg.pq import TransactionStatus
from psycopg.rows import TupleRow
from psycopg.types.json import set_json_loads

from runner.budget import Watcher
from runner.errors import (
    CommitUnknownError,
    ConnectError,
    LockedError,
    MaxTimeError,
    NotProvedError,
    RunnerError,
    translate,
)
from runner.holders import holders_of_lock
from runner.money import load_json
from runner.pinned import ENCODING, OWN_NAMES, PinnedConnection
from runner.proof import Proof, proved
from runner.settings import Settings, redact, scrub

Connection: TypeAlias = psycopg.Connection[TupleRow]
T = TypeVar("T")

RETRIED = ("40001", "40P01", "55P03")
OLDEST_SERVER = 150000
_FOREVER = 2**31 - 1
ENGINE_MAJOR = 0
"""The major version of backfill.version that this runner works with."""

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
        ),
        -- The last resort of max_time, for a client that stands still.
        (
            select set_config(name, %(transaction_timeout)s, true) from pg_catalog.pg_settings
            where name = 'transaction_timeout' and %(transaction_timeout)s <> '0'
        ),
        pg_catalog.pg_backend_pid()
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


class Session(PinnedConnection):
    """A connection, and the session that watches how long others wait for its transactions."""

    watcher: Watcher | None = None


@contextmanager
def connect(
    settings: Settings, *, application_name: str = "runner", looking: bool = False, watched: bool = True
) -> Iterator[Connection]:
    """A connection with autocommit off; what is open at the end is rolled back.

    A server that is too old and an engine of another major version are refused, unless one only wants to look. Its
    guarded transactions are `watched` for the lock budget and max_time; one that only holds the advisory lock need not
    be, and may not where CREATE INDEX CONCURRENTLY would wait for the snapshot of the session that watches.

    Raises ConnectError, without any secret, where none can be opened, and RunnerError for every driver error
    that leaves the block.
    """
    try:
        # Prepared statements would not find their session again behind a transaction pooler.
        conn = Session.connect(
            settings.conninfo,
            client_encoding=ENCODING,
            application_name=application_name,
            prepare_threshold=None,
            connect_timeout=_connect_timeout(settings),
        )
    except psycopg.Error as exc:
        # The driver's text may repeat pieces of a malformed URL: it is not kept as the cause.
        raise ConnectError(_explain(exc, settings)) from None
    try:
        set_json_loads(load_json, conn)
        if not looking:
            _refuse_others(conn)
        conn.watcher = Watcher(settings, application_name) if watched and not looking else None
        yield conn
    except psycopg.Error as exc:
        raise translate(exc) from exc
    finally:
        if conn.watcher is not None:
            conn.watcher.close()
        conn.close()


def _refuse_others(conn: Connection) -> None:
    if conn.info.server_version < OLDEST_SERVER:
        raise RunnerError(
            f"the server is PostgreSQL {conn.info.parameter_status('server_version')}: 15 or newer is needed"
        )
    version = engine_version(conn)
    if version is not None and int(version.partition(".")[0]) != ENGINE_MAJOR:
        raise RunnerError(
            f"this database holds the engine in version {version}, and this runner is for {ENGINE_MAJOR}.x: "
            f"use a runner of version {version.partition('.')[0]}.x"
        )


def engine_version(conn: Connection) -> str | None:
    """The version of the engine here; None where it is not installed or not to be seen. Rolls back what is open."""
    try:
        if conn.execute("select to_regclass('backfill.version') is null").fetchone() == (True,):
            return None
        row = conn.execute("select version from backfill.version order by installed_at desc limit 1").fetchone()
    except psycopg.errors.InsufficientPrivilege:
        return None  # what this role then may not do is told where it matters
    finally:
        conn.rollback()
    return str(row[0]) if row else None


def guard(conn: Connection, settings: Settings, *, at_once: bool = False) -> None:
    """Set the limits of the transaction that is open, or that this statement opens; they end with it.

    From then on it is watched for the lock budget: `at_once`, or where it lasts.

    Transaction-local settings hold through a transaction pooler, where session settings leak to others.
    """
    left = settings.time_left
    if left <= 0:
        raise MaxTimeError(f"max_time of {settings.max_time / 1000:g} s is over: nothing more was begun")
    statement = settings.statement_timeout
    if math.isfinite(left):
        statement = min(statement or _FOREVER, max(1, int(left * 1000)))
    row = conn.execute(
        _GUARD,
        {
            "lock_timeout": str(settings.lock_timeout),
            "statement_timeout": str(statement),
            "idle": str(settings.idle_in_transaction_timeout),
            "transaction_timeout": str(int(left * 1000) + 2_000) if math.isfinite(left) else "0",
        },
    ).fetchone()
    watcher = getattr(conn, "watcher", None)
    if watcher is not None and row is not None:
        watcher.arm(row[-1], at_once=at_once)


@contextmanager
def transaction(
    conn: Connection, settings: Settings, *, isolation: IsolationLevel = IsolationLevel.REPEATABLE_READ,
    at_once: bool = False,
) -> Iterator[Connection]:  # fmt: skip
    """A guarded transaction: commits at the end of the block, rolls back when it is left by an error.

    A block that has already committed or rolled back, e.g. a rehearsal, ends with nothing to do.
    """
    _idle(conn)
    conn.isolation_level = isolation
    with _ended(conn):
        guard(conn, settings, at_once=at_once)
        yield conn


@contextmanager
def locked_transaction(
    conn: Connection, settings: Settings, *, isolation: IsolationLevel = IsolationLevel.REPEATABLE_READ,
    at_once: bool = True,
) -> Iterator[Proof]:  # fmt: skip
    """As transaction(), holding the advisory lock from before its snapshot to its end; it proves how it ended.

    Left by an error it is shown to have been rolled back, else NotProvedError says what may have been committed.
    """
    with _ended(conn):
        take_lock(conn, settings, isolation=isolation, at_once=at_once)
        with proved(conn) as proof:
            yield proof


def take_lock(
    conn: Connection, settings: Settings, *, isolation: IsolationLevel = IsolationLevel.REPEATABLE_READ,
    at_once: bool = True,
) -> None:  # fmt: skip
    """Begin a guarded transaction that holds the project's advisory lock until it ends.

    Each try is a transaction of its own, so that the snapshot is not older than the lock. Raises LockedError
    (exit 5) naming the holder when settings.lock_wait milliseconds were not enough.
    """
    _idle(conn)
    conn.isolation_level = isolation
    deadline = _deadline(settings)
    stale_left = 10  # a busy server commits all the time: a serialization failure catches what is left
    while True:
        locked, stale = conn.execute(_TRY_LOCK).fetchone() or (False, None)  # first, and never waits
        if locked and (not stale or stale_left == 0):
            guard(conn, settings, at_once=at_once)
            return
        if locked:
            conn.rollback()
            stale_left -= 1
        else:
            _wait_for(conn, settings, "backfill", deadline, "another run holds the lock")


def _deadline(settings: Settings) -> float:
    return time.monotonic() + settings.lock_wait / 1000 if settings.lock_wait else math.inf


def _wait_for(conn: Connection, settings: Settings, lock: str, deadline: float, what: str) -> None:
    """End the transaction that did not get the lock, and wait a moment. Raises LockedError after the deadline."""
    holders = holders_of_lock(conn, lock)
    conn.rollback()
    if settings.time_left <= 0:
        raise MaxTimeError(
            f"max_time of {settings.max_time / 1000:g} s is over: {what}: {', '.join(map(str, holders)) or 'it ended'}"
        )
    if time.monotonic() > deadline:
        raise LockedError(
            f"{what}: {', '.join(map(str, holders)) or 'it has just ended'}; waited {settings.lock_wait / 1000:g} s. "
            "Wait for it, raise lock_wait in runner.toml, or end it: "
            f"{holders[0].end if holders else 'select pg_terminate_backend(pid)'}"
        )
    time.sleep(random.uniform(0.05, 0.2))  # noqa: S311 - jitter


@contextmanager
def exclusive(settings: Settings, name: str) -> Iterator[Callable[[], None]]:
    """No two commands of this name at once, over many transactions: an advisory lock on a connection of its own.

    It is at transaction level, so that it goes with its process and holds behind a pooler; the transaction reads
    nothing, so that it keeps no row from vacuum. What is yielded keeps the connection awake: call it now and then.
    Raises LockedError (exit 5) naming the holder when settings.lock_wait milliseconds were not enough.
    """
    with connect(settings, application_name=f"runner {name}") as conn:
        conn.isolation_level = IsolationLevel.READ_COMMITTED
        deadline = _deadline(settings)
        while conn.execute("select pg_try_advisory_xact_lock(hashtextextended(%s, 0))", [name]).fetchone() != (True,):
            _wait_for(conn, settings, name, deadline, f"another `runner {name}` is at work")
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
            if attempt == settings.retries or settings.time_left <= 0:
                raise translate(exc) from exc
            sleep(min(5.0, 0.1 * 2**attempt) * random.uniform(0.5, 1.5))  # noqa: S311 - jitter
    raise AssertionError("unreachable")


@contextmanager
def _ended(conn: Connection) -> Iterator[None]:
    watcher: Watcher | None = getattr(conn, "watcher", None)
    try:
        try:
            yield
        except BaseException:
            # The first error is the one to show; a server that is gone has rolled back already.
            with suppress(psycopg.Error):
                conn.rollback()
            raise
        _commit(conn)
    except (NotProvedError, CommitUnknownError):
        raise
    except BaseException as exc:
        verdict = watcher.verdict(exc) if watcher is not None else None
        if verdict is None:
            raise
        raise verdict.error() from exc
    finally:
        if watcher is not None:
            watcher.disarm()


def _commit(conn: Connection) -> None:
    if conn.info.transaction_status == TransactionStatus.INERROR:
        conn.rollback()  # which is all that a commit would do, without saying so
        raise RunnerError("a statement had failed, so that nothing of the transaction was kept")
    try:
        if conn.info.transaction_status == TransactionStatus.INTRANS:
            conn.execute(OWN_NAMES)  # for what is deferred to the commit
        conn.commit()
    except KeyboardInterrupt as exc:
        raise CommitUnknownError(
            "interrupted while the server was committing. It kept all of the transaction or nothing: `runner log` and "
            "`runner status` say which; running the same command again is safe"
        ) from exc
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
