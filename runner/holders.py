"""Who holds an advisory lock of the project."""

from __future__ import annotations

from datetime import datetime

import psycopg
from psycopg.rows import TupleRow, class_row

_HOLDER = b"""
    select l.pid, coalesce(a.usename, p.owner) as role, a.application_name as application,
        coalesce(a.xact_start, p.prepared) as since, p.gid as prepared
    from pg_catalog.pg_locks as l
    left join pg_catalog.pg_stat_activity as a on a.pid = l.pid
    -- A prepared transaction belongs to no process: it is known by the lock on its own id.
    left join pg_catalog.pg_locks as x
        on l.pid is null and x.pid is null and x.locktype = 'transactionid'
            and x.virtualtransaction = l.virtualtransaction
    left join pg_catalog.pg_prepared_xacts as p on p.transaction = x.transactionid
    where l.locktype = 'advisory' and l.granted and l.objsubid = 1
        and l.database = (select oid from pg_catalog.pg_database where datname = current_database())
        and (l.classid::bigint << 32) | l.objid::bigint = hashtextextended(%(name)s, 0)
"""


class Holder:
    """Who holds the lock: a process, or a transaction that was `prepared` under this name and belongs to none.

    `since` is null where the role may not see other sessions.
    """

    def __init__(
        self, pid: int | None, role: str | None, application: str | None, since: datetime | None, prepared: str | None
    ) -> None:
        self.pid, self.role, self.application, self.since, self.prepared = pid, role, application, since, prepared

    @property
    def end(self) -> str:
        """How somebody ends it."""
        if self.prepared is not None:
            name = self.prepared.replace("'", "''")
            return f"commit prepared '{name}' or rollback prepared '{name}', in its database, by whoever prepared it"
        return f"select pg_terminate_backend({self.pid or 'pid'})"

    def __str__(self) -> str:
        since = self.since.isoformat(sep=" ", timespec="seconds") if self.since else "an unknown time"
        if self.prepared is not None:
            return f"prepared transaction {self.prepared!r} (role {self.role or 'unknown'}) since {since}"
        name = self.application or "an unnamed application"
        return f"process {self.pid} ({name}, role {self.role or 'unknown'}) since {since}"


def holders_of_lock(conn: psycopg.Connection[TupleRow], name: str = "backfill") -> list[Holder]:
    """Who holds the advisory lock in this database; empty when nobody does."""
    with conn.cursor(row_factory=class_row(Holder)) as cursor:
        return cursor.execute(_HOLDER, {"name": name}).fetchall()
