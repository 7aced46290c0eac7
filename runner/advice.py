"""What had better be done before a large apply."""

from __future__ import annotations

from typing import Final

from runner import migrations
from runner.database import Connection
from runner.settings import Settings
from runner.text import counted

LARGE: Final = 100_000
"""Rows from which on a table is better migrated apart from the data."""

# As the server estimates it: nothing is counted.
_LARGEST: Final = f"""
    select format('%I.%I', n.nspname, c.relname), c.reltuples::bigint
    from pg_class as c join pg_namespace as n on n.oid = c.relnamespace
    where c.relkind = 'r' and c.reltuples >= {LARGE} and n.nspname !~ '^pg_'
        and n.nspname not in ('information_schema', 'backfill', 'backfill_audit', 'staging')
    order by c.reltuples desc limit 1
"""  # noqa: S608 - constant text


def advice(conn: Connection, settings: Settings) -> str:
    """What is better done first: migrations in one transaction with the data hold their locks to its end."""
    pending = migrations.pending(conn, settings.sources)
    row = conn.execute(_LARGEST).fetchone() if pending else None
    conn.rollback()
    if row is None:
        return ""
    return (
        f"{counted(len(pending), 'migration')} pending, and {row[0]} has about {row[1]:,} rows: `runner migrate` first "
        "applies them in short transactions, for which nobody waits long"
    )
