"""What one transaction does to others: locks as they are first seen, WAL, sequences that moved, triggers that fired."""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Final

from runner.database import Connection
from runner.result import Lock

# Nobody else can wait for what the migrations create themselves.
_TABLES: Final = """
    select c.oid::bigint from pg_class as c join pg_namespace as n on n.oid = c.relnamespace
    where c.relkind in ('r', 'p') and n.nspname not in ('pg_catalog', 'pg_toast', 'backfill', 'backfill_audit')
        and c.relname !~ '^_yoyo_'
"""

_LOCKS: Final = """
    select l.relation::regclass::text, l.mode
    from pg_locks as l
    where l.pid = pg_backend_pid() and l.locktype = 'relation' and l.granted and l.mode <> 'AccessShareLock'
        and l.relation::bigint = any (%s)
    order by 1, 2
"""

_TRIGGERS: Final = """
    select format('%%s on %%I.%%I', t.tgname, n.nspname, c.relname)
    from pg_trigger as t
    join pg_class as c on c.oid = t.tgrelid
    join pg_namespace as n on n.oid = c.relnamespace
    where not t.tgisinternal and t.tgenabled <> 'D' and t.tgname !~ '^backfill_(capture|refuse|mark|use)_'
        and format('%%I.%%I', n.nspname, c.relname) = any (%s)
    order by 1
"""


@dataclass(slots=True)
class Watch:
    """Locks of this transaction as they are first seen, and where the WAL stood when it began."""

    conn: Connection
    started: float = field(default_factory=time.perf_counter)
    seen: dict[tuple[str, str], float] = field(default_factory=dict)
    tables: list[int] = field(default_factory=list)
    wal: str = ""
    sequences: dict[str, int | None] = field(default_factory=dict)

    def begin(self) -> None:
        """Note what is there before the transaction's work."""
        row = self.conn.execute("select pg_current_wal_insert_lsn()::text").fetchone()
        self.wal = row[0] if row else ""
        self.tables = [row[0] for row in self.conn.execute(_TABLES)]
        self.sequences = self._sequences()

    def held(self) -> list[tuple[str, str]]:
        """Tables that others use, with the locks on them that this transaction holds now."""
        return [(table, mode) for table, mode in self.conn.execute(_LOCKS, [self.tables])]

    def look(self) -> None:
        """Note which locks are held now."""
        if not self.tables:
            return
        now = time.perf_counter()
        for lock in self.held():
            self.seen.setdefault(lock, now)

    def locks(self) -> tuple[Lock, ...]:
        """The locks on tables that others use, with the seconds since each was first seen."""
        now = time.perf_counter()
        return tuple(Lock(table, mode, now - since) for (table, mode), since in sorted(self.seen.items()))

    def wal_bytes(self) -> int:
        """WAL that the server wrote since begin()."""
        row = self.conn.execute(
            "select pg_wal_lsn_diff(pg_current_wal_insert_lsn(), %s::pg_lsn)::bigint", [self.wal]
        ).fetchone()
        return int(row[0]) if row else 0

    def moved_sequences(self) -> dict[str, int | None]:
        """Sequences that moved since begin(), with what they were at (None: nothing yet): no rollback takes it back."""
        now = self._sequences()
        return {name: value for name, value in self.sequences.items() if now.get(name) != value}

    def triggers(self, tables: Collection[str]) -> tuple[str, ...]:
        """The application's triggers on these tables (schema-qualified names), which fired."""
        return tuple(row[0] for row in self.conn.execute(_TRIGGERS, [list(tables)]))

    def _sequences(self) -> dict[str, int | None]:
        return dict(
            self.conn.execute(
                "select format('%I.%I', schemaname, sequencename), last_value from pg_sequences"
                # The engine numbers statements by one, on which nothing hangs but their order.
                " where schemaname not in ('backfill', 'backfill_audit') order by 1"
            ).fetchall()
        )
