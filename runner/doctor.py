"""`runner doctor`: what would get in the way, each line ok or what to do. Changes nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import psycopg

from runner import gates, migrations
from runner.apply import OLDEST_SERVER
from runner.database import Connection, connect, holders_of_lock, transaction
from runner.errors import RunnerError
from runner.settings import Settings


@dataclass(frozen=True, slots=True)
class Finding:
    """One line: what was looked at, how it is, and where it is not ok what to do."""

    subject: str
    state: Literal["ok", "warn", "fail"]
    message: str


Check = Callable[[Connection, Settings], Iterator[Finding]]


def doctor(settings: Settings) -> list[Finding]:
    """Every check in turn; one that cannot be made is a finding of its own."""
    found: list[Finding] = []
    with connect(settings, application_name="runner doctor") as conn:
        found += _pooler(conn)
        for check in CHECKS:
            try:
                with transaction(conn, settings):
                    found += check(conn, settings)
            except (psycopg.Error, RunnerError) as exc:
                conn.rollback()
                found.append(Finding(check.__name__.strip("_"), "fail", " ".join(str(exc).split())))
    found += _dbt(settings)
    return found


def _one(conn: Connection, query: str, *values: object) -> object:
    row = conn.execute(query, values or None).fetchone()
    return row[0] if row else None


def _pooler(conn: Connection) -> Iterator[Finding]:
    """A transaction pooler gives each transaction whatever session is free: it may be another one each time."""
    seen = set()
    pids = set()
    for _ in range(3):
        pids.add(_one(conn, "select pg_backend_pid()"))
        conn.rollback()
    seen.add(conn.info.backend_pid)
    parameters = "pgbouncer" in (conn.info.parameter_status("application_name") or "")
    if len(pids) > 1 or pids != seen or parameters:
        yield Finding(
            "pooler",
            "warn",
            "this connection goes through a transaction pooler: apply, rollback and load work (lock and limits are "
            "those of the transaction); migrations with `transactional: false`, pg_dump and dbt do not. "
            "Connect to the server itself for those",
        )
    else:
        yield Finding("pooler", "ok", "a session of its own")


def _server(conn: Connection, _settings: Settings) -> Iterator[Finding]:
    version = conn.info.parameter_status("server_version")
    if conn.info.server_version < OLDEST_SERVER:
        yield Finding("server", "fail", f"PostgreSQL {version}: 15 or newer is needed")
    else:
        yield Finding("server", "ok", f"PostgreSQL {version}")
    if _one(conn, "select pg_is_in_recovery()"):
        yield Finding("primary", "fail", "this server is a standby: connect to the primary")
    elif _one(conn, "select current_setting('default_transaction_read_only')") == "on":
        yield Finding("primary", "fail", "default_transaction_read_only is on for this role: choose another role")
    else:
        yield Finding("primary", "ok", "takes writes")
    encoding = _one(conn, "select pg_encoding_to_char(encoding) from pg_database where datname = current_database()")
    if encoding == "UTF8":
        yield Finding("encoding", "ok", "UTF8")
    else:
        yield Finding(
            "encoding", "warn", f"{encoding}: names that it cannot write will be refused when they are loaded"
        )


def _time_zone(conn: Connection, _settings: Settings) -> Iterator[Finding]:
    zone = _one(conn, "select current_setting('TimeZone')")
    known = _one(conn, "select count(*) > 0 from pg_timezone_names where name = %s", zone)
    if known:
        yield Finding("time zone", "ok", f"{zone}; each run keeps it in its log row")
    else:
        yield Finding("time zone", "warn", f"{zone} is no named zone: alter role … set timezone = 'Region/City'")


def _rights(conn: Connection, _settings: Settings) -> Iterator[Finding]:
    installed = _one(conn, "select to_regnamespace('backfill') is not null")
    if not installed:
        create = _one(conn, "select has_database_privilege(current_database(), 'create')")
        tables = _one(conn, "select coalesce(has_schema_privilege(current_schema(), 'create'), false)")
        if create and tables:
            yield Finding("rights", "ok", "may create the schemas of the first apply")
        elif create:
            yield Finding(
                "rights",
                "fail",
                "may not create yoyo's tables in the first schema of search_path: grant create on schema public to "
                "this role, for the first apply",
            )
        else:
            yield Finding(
                "rights", "fail", "may not create schemas: grant create on database … to this role, for the first apply"
            )
    elif _one(conn, "select has_schema_privilege('backfill', 'usage')"
                    " and has_function_privilege('backfill.run(text, jsonb, integer, text)', 'execute')"):  # fmt: skip
        yield Finding("rights", "ok", "may run and reverse backfills")
    else:
        yield Finding("rights", "fail", "may not run backfills: grant backfill_operator to this role")
    missing = _one(
        conn,
        "select string_agg(r, ', ') from unnest(array['backfill_operator', 'backfill_auditor']) as r"
        " where not exists (select from pg_roles where rolname = r)",
    )
    if missing and installed:
        yield Finding(
            "roles",
            "warn",
            f"{missing} missing: running and reading are not separated, only the owner may do either. Have somebody "
            "with CREATEROLE create them, then apply the grants of docs/operations.md",
        )
    elif missing and not _one(conn, "select rolcreaterole or rolsuper from pg_roles where rolname = current_user"):
        yield Finding("roles", "warn", f"{missing} will not be created: this role lacks CREATEROLE. The rest works")
    else:
        yield Finding(
            "roles", "ok", "backfill_operator and backfill_auditor are there" if installed else "can be created"
        )


def _row_security(conn: Connection, _settings: Settings) -> Iterator[Finding]:
    hidden = _one(
        conn,
        """
        select string_agg(format('%%I.%%I', n.nspname, c.relname), ', ' order by 1)
        from pg_class as c join pg_namespace as n on n.oid = c.relnamespace
        where c.relkind in ('r', 'p') and c.relrowsecurity and row_security_active(c.oid)
            and n.nspname not in ('pg_catalog', 'information_schema')
        """.replace("%%", "%"),
    )
    if hidden:
        yield Finding(
            "row security",
            "fail",
            f"policies would hide rows of {hidden}: use the owner or a role with BYPASSRLS; until then it is refused",
        )
    else:
        yield Finding("row security", "ok", "no policy hides rows from this role")


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
    if not _one(conn, "select has_parameter_privilege('deadlock_timeout', 'set')"):
        yield Finding(
            "deadlocks",
            "warn",
            "where the application and a run wait for each other, the server may end the application's transaction: "
            "grant set on parameter deadlock_timeout to this role, so that the run gives way",
        )
    prepared = _one(conn, "select count(*) from pg_prepared_xacts where database = current_database()")
    if prepared:
        yield Finding(
            "prepared transactions", "warn", f"{prepared} hold locks until somebody ends them: pg_prepared_xacts"
        )


def _migrations(conn: Connection, settings: Settings) -> Iterator[Finding]:
    edited = migrations.edited(conn, settings.migrations)
    for item in edited:
        yield Finding("migrations", "fail", f"{item}: restore the file")
    pending = migrations.pending(conn, settings.migrations)
    outside = [migration.id for migration in pending if not migration.transactional]
    if outside:
        yield Finding("migrations", "warn", f"cannot be rehearsed: {', '.join(outside)}")
    if not edited:
        yield Finding("migrations", "ok", f"{len(pending)} pending" if pending else "all applied")


def _space(conn: Connection, _settings: Settings) -> Iterator[Finding]:
    sync = _one(conn, "select current_setting('synchronous_standby_names')")
    slots = _one(conn, "select count(*) from pg_replication_slots where not active")
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
        yield Finding("dbt", "ok", f"{len(found)} gates compiled")


CHECKS: tuple[Check, ...] = (_server, _rights, _row_security, _locks, _migrations, _time_zone, _space)
