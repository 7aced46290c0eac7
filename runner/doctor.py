"""`runner doctor`: what would get in the way, each line ok or what to do. Changes nothing."""

from __future__ import annotations

import select
import time
from collections.abc import Callable, Iterator
from typing import Final, TypeAlias

import psycopg

from runner import cache, gates, migrations
from runner.database import (
    ENGINE_MAJOR,
    OLDEST_SERVER,
    Connection,
    connect,
    engine_version,
    transaction,
)
from runner.doctor_rights import ours, owners, rights, row_security
from runner.errors import RunnerError
from runner.findings import Finding, one
from runner.fit import fits
from runner.holders import Holder, holders_of_lock
from runner.settings import Settings
from runner.status import unselected_systems
from runner.systems import bundled
from runner.text import counted

Check: TypeAlias = Callable[[Connection, Settings], Iterator[Finding]]
_POOLER_SECONDS: Final = 3.0


def doctor(settings: Settings) -> list[Finding]:
    """Every check in turn; one that cannot be made is a finding of its own."""
    found: list[Finding] = []
    with connect(settings, application_name="runner doctor", looking=True) as conn:
        found += _pooler(conn, settings)
        for check in CHECKS:
            try:
                with transaction(conn, settings):
                    found += check(conn, settings)
            except (psycopg.Error, RunnerError) as exc:
                conn.rollback()
                found.append(Finding(check.__name__.strip("_"), "fail", " ".join(str(exc).split())))
    found += _dbt(settings)
    return found


_TRACKED: Final = """
    select t.table_name, u.why || ': mend it, or select backfill.untrack(...)'
    from backfill.tracked as t
    join backfill.untrackable(array(select relation from backfill.tracked where active)) as u on u.relation = t.relation
    where t.active and t.anchor = 'backfill.tracked'::regclass
    union all
    select t.table_name, case
        when bool_or(g.tgenabled in ('D', 'R')) then 'its triggers are disabled: alter table ... enable trigger all'
        when count(*) < 4 then 'triggers of the engine are missing; the next run puts them on again'
        else 'its triggers do not fire always (a restore of data only?); the next run sees to it' end
    from backfill.tracked as t
    join pg_class as c on c.oid = t.relation
    left join pg_trigger as g on g.tgrelid = t.relation and g.tgname ~ '^backfill_(capture|refuse_truncate)'
    where t.active and t.anchor = 'backfill.tracked'::regclass
    group by t.table_name
    having count(g.tgname) < 4 or bool_or(g.tgenabled <> 'A')
    order by 1
"""


def _pooler(conn: Connection, settings: Settings) -> Iterator[Finding]:
    """Whether there is a pooler between, and which.

    One of transactions gives each transaction whatever session is free: another one each time, or, where a second
    client asks while the first is idle, the first one's. One of sessions keeps a session for each client.
    """
    pids = set()
    for _ in range(3):
        pids.add(one(conn, "select pg_backend_pid()"))
        conn.rollback()
    if pids == {conn.info.backend_pid}:
        yield Finding("pooler", "ok", "no pooler: a direct connection")
    elif len(pids) > 1 or _shared(settings, pids):
        yield Finding(
            "pooler",
            "warn",
            "this connection goes through a transaction pooler: apply, rollback and load work (lock and limits are "
            "those of the transaction); migrations with `transactional: false`, pg_dump and dbt do not. "
            "Connect to the server itself for those",
        )
    else:
        yield Finding("pooler", "ok", "this connection goes through a session pooler: all works as without one")


def _shared(settings: Settings, pids: set[object]) -> bool:
    """Whether a second client is given the session of the first, which is idle and connected.

    A pooler of sessions may have none left for it: then it waits, and that is an answer too.
    """
    try:
        with connect(settings, application_name="runner doctor (pooler)", looking=True) as other:
            other.pgconn.send_query(b"select pg_catalog.pg_backend_pid()")
            end = time.monotonic() + _POOLER_SECONDS
            while other.pgconn.is_busy():
                if not select.select([other.pgconn.socket], [], [], max(0.0, end - time.monotonic()))[0]:
                    return False
                other.pgconn.consume_input()
            result = other.pgconn.get_result()
            value = result.get_value(0, 0) if result is not None and result.ntuples else None
            return value is not None and int(value) in pids
    except (psycopg.Error, RunnerError):
        return False


def _server(conn: Connection, _settings: Settings) -> Iterator[Finding]:
    version = conn.info.parameter_status("server_version")
    if conn.info.server_version < OLDEST_SERVER:
        yield Finding("server", "fail", f"PostgreSQL {version}: 15 or newer is needed")
    else:
        yield Finding("server", "ok", f"PostgreSQL {version}")
    if one(conn, "select pg_is_in_recovery()"):
        yield Finding("primary", "fail", "this server is a standby: connect to the primary")
    elif one(conn, "select current_setting('default_transaction_read_only')") == "on":
        yield Finding("primary", "fail", "default_transaction_read_only is on for this role: choose another role")
    else:
        yield Finding("primary", "ok", "takes writes")
    encoding = one(conn, "select pg_encoding_to_char(encoding) from pg_database where datname = current_database()")
    if encoding == "UTF8":
        yield Finding("encoding", "ok", "UTF8")
    else:
        yield Finding(
            "encoding", "warn", f"{encoding}: names that it cannot write will be refused when they are loaded"
        )


def _engine(conn: Connection, _settings: Settings) -> Iterator[Finding]:
    version = engine_version(conn)
    if version is None:
        yield Finding("engine", "ok", "not installed yet: runner apply")
    elif int(version.partition(".")[0]) != ENGINE_MAJOR:
        yield Finding("engine", "fail", f"version {version}: this runner is for {ENGINE_MAJOR}.x")
    else:
        yield Finding("engine", "ok", f"version {version}")


def _tracked(conn: Connection, _settings: Settings) -> Iterator[Finding]:
    """Whatever would make the next run refuse, or leave a gap in its capture."""
    if engine_version(conn) is None:
        return
    wrong = [f"{name}: {why}" for name, why in conn.execute(_TRACKED)]
    if wrong:
        yield Finding("tracked", "fail", "; ".join(wrong))
    else:
        count = one(conn, "select count(*) from backfill.tracked where active")
        yield Finding("tracked", "ok", f"{count} tables can be captured")
    restored = one(conn, "select count(*) from backfill.tracked where anchor <> 'backfill.tracked'::regclass")
    if restored:
        yield Finding(
            "restored",
            "warn",
            f"{restored} tables were restored with this database: the next run finds them again, and says what of that "
            "is in doubt",
        )
    doubts = "select doubt ->> 'why', doubt ->> 'way' from backfill.tracked where doubt is not null order by table_name"
    for why, way in conn.execute(doubts).fetchall():
        yield Finding("restored", "warn", f"{why}: runs until then are not undone. {way}")
    stamps = "select table_name, trigger_name, array_to_string(columns, ', '), remedy from backfill.stamping_triggers()"
    for table, trigger, columns, remedy in conn.execute(stamps).fetchall():
        yield Finding(
            "stamps",
            "warn",
            f"trigger {trigger} of {table} sets {columns}: an undo of updates would be refused; {remedy}",
        )


def _systems(conn: Connection, settings: Settings) -> Iterator[Finding]:
    left_out = unselected_systems(conn, settings)
    if left_out:
        yield Finding(
            "systems", "warn",
            f"{', '.join(left_out)} installed and not selected: apply and promote leave them out, their log and undo "
            "work; add them to systems in runner.toml to go on with them",
        )  # fmt: skip
    else:
        yield Finding("systems", "ok", ", ".join(settings.systems) or "none: the engine and the project's own")
    done = set(migrations.applied(conn))
    for fit in fits(conn):
        installed = any(path.stem in done for path in (bundled("migrations") / fit.system).glob("*.sql"))
        if fit.system in settings.systems and fit.misfits and not installed:
            yield Finding(
                "systems", "warn",
                f"{fit.system} does not fit, and apply will leave it out with what builds on it: "
                f"{'; '.join(fit.misfits)}. Alter the table, or take {fit.system} out of systems in runner.toml",
            )  # fmt: skip


def _time_zone(conn: Connection, _settings: Settings) -> Iterator[Finding]:
    zone = one(conn, "select current_setting('TimeZone')")
    known = one(conn, "select count(*) > 0 from pg_timezone_names where name = %s", zone)
    if known:
        yield Finding("time zone", "ok", f"{zone}; each run keeps it in its log row")
    else:
        yield Finding("time zone", "warn", f"{zone} is not a named zone: alter role … set timezone = 'Region/City'")


def _locks(conn: Connection, settings: Settings) -> Iterator[Finding]:
    holders = holders_of_lock(conn)
    if holders:
        yield Finding("lock", "warn", f"another run holds the lock: {', '.join(map(str, holders))}")
    else:
        yield Finding("lock", "ok", "no run is open")
    old = conn.execute(
        "select pid, usename, application_name, extract(epoch from now() - xact_start)::bigint from pg_stat_activity"
        " where datname = current_database() and pid <> pg_backend_pid() and backend_type = 'client backend'"
        " and now() - xact_start > interval '1 minute' order by 4 desc limit 5"
    ).fetchall()
    for pid, user, application, seconds in old:
        yield Finding(
            "open transaction",
            "warn",
            f"process {pid} ({application or 'unnamed'}, role {user}) is in a transaction for {seconds:,} s: its "
            f"locks may block migrations beyond lock_timeout ({settings.lock_timeout} ms)",
        )
    yield _budget(conn, settings)
    if not one(conn, "select has_parameter_privilege('deadlock_timeout', 'set')"):
        yield Finding(
            "deadlocks",
            "warn",
            "where the application and a run wait for each other, the server may end the application's transaction: "
            "grant set on parameter deadlock_timeout to this role, so that the run gives way",
        )
    prepared = (
        "select gid, owner, prepared from pg_prepared_xacts where database = current_database() order by prepared"
    )
    for gid, owner, since in conn.execute(prepared).fetchall():
        yield Finding(
            "prepared transaction",
            "warn",
            f"{gid!r} of role {owner} holds its locks since {since:%Y-%m-%d %H:%M:%S}, whoever is connected: "
            f"{Holder(None, owner, None, since, gid).end}",
        )


def _budget(conn: Connection, settings: Settings) -> Finding:
    if not settings.lock_budget:
        return Finding("lock budget", "warn", "lock_budget is 0: others wait for a run as long as it takes")
    if not one(conn, "select pg_has_role('pg_read_all_stats', 'usage')"):
        return Finding(
            "lock budget",
            "warn",
            "a run that others wait for is ended, but the query of who waited is hidden from this role: "
            "grant pg_read_all_stats to it",
        )
    return Finding(
        "lock budget", "ok", f"a run for which others wait longer than {settings.lock_budget / 1000:g} s is ended"
    )


def _migrations(conn: Connection, settings: Settings) -> Iterator[Finding]:
    edited = migrations.edited(conn, settings.sources)
    for item in edited:
        yield Finding("migrations", "fail", f"{item}: restore the file")
    pending = migrations.pending(conn, settings.sources)
    outside = [migration.id for migration in pending if not migration.transactional]
    if outside:
        yield Finding("migrations", "warn", f"cannot be rehearsed: {', '.join(outside)}")
    if not edited:
        yield Finding("migrations", "ok", f"{len(pending)} pending" if pending else "all applied")


def _space(conn: Connection, _settings: Settings) -> Iterator[Finding]:
    sync = one(conn, "select current_setting('synchronous_standby_names')")
    slots = one(conn, "select count(*) from pg_replication_slots where not active")
    if slots:
        yield Finding("replication", "warn", f"{slots} inactive replication slots keep all WAL that a backfill writes")
    else:
        yield Finding("replication", "ok", f"synchronous with {sync}" if sync else "no slot keeps WAL back")


def _dbt(settings: Settings) -> Iterator[Finding]:
    try:
        found = gates.compile(settings)
    except RunnerError as exc:
        yield Finding("dbt", "fail", " ".join(str(exc).split()))
    else:
        yield Finding("dbt", "ok", counted(len(found), "gate") + " compiled")
        if fault := found and cache.fault(gates.CACHE):
            yield Finding("dbt cache", "warn", gates.uncached(fault))


CHECKS: tuple[Check, ...] = (
    _server,
    _engine,
    _systems,
    _tracked,
    owners,
    ours,
    rights,
    row_security,
    _locks,
    _migrations,
    _time_zone,
    _space,
)
