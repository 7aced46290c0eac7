"""Words for stories about the evidence: what does not hold, the anchor, and what an owner can do unseen."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

from tests.engine.words import Connection, do, done, make, rows, value

ENTRY = "create table entry (id integer primary key, name text, cents bigint, at timestamptz, rate numeric, kind json)"
PACK, ROW, LOG = "backfill_audit.public_entry", "backfill_audit.public_entry_row", "backfill.backfill_log"


def make_entry(conn: Connection) -> None:
    """A tracked table with rows in it."""
    make(conn, ENTRY, "entry")
    do(
        conn,
        "insert into entry select i, 'n' || i, 100, '2024-01-01', i / 7.0, '{}' from generate_series(1, 2500) as i",
    )
    conn.commit()


def history(conn: Connection) -> list[UUID]:
    """Three runs, of packs, of single rows, and of some rows of a pack."""
    return [
        done(conn, "update entry set cents = cents + 1", "insert into entry values (0, 'n0', 1)"),
        done(conn, "delete from entry where id = 7", "update entry set name = null where id = 8"),
        done(conn, "update entry set rate = rate + 1 where id > 2400"),
    ]


def wrong(conn: Connection, anchor: str | None = None) -> list[str]:
    """What does not hold, in words, with its link."""
    found = rows(conn, "select link, wrong from backfill.verify_chain(%s)", [anchor])
    return [words if link is None else f"link {link}: {words}" for link, words in found]


def head(conn: Connection) -> str:
    """The anchor."""
    anchor: str = value(conn, "select backfill.chain_head()")
    return anchor


def link_of(conn: Connection, run_id: UUID) -> int:
    """The number of a run's link."""
    number: int = value(conn, "select link from backfill.chain where run_id = %s and kind = 'run'", [run_id])
    return number


@contextmanager
def unguarded(conn: Connection, *tables: str) -> Iterator[None]:
    """What the owner of tables can do: their guards off, something altered, the guards on again as they were."""
    triggers = rows(
        conn,
        "select tgrelid::regclass, tgname, tgenabled from pg_trigger"
        " where tgrelid = any (%s::regclass[]) and not tgisinternal",
        [list(tables)],
    )
    for table in tables:
        do(conn, f"alter table {table} disable trigger all")
    yield
    for table in tables:
        do(conn, f"alter table {table} enable trigger all")
    for table, name, enabled in triggers:
        do(conn, f"alter table {table} enable {'always' if enabled == 'A' else ''} trigger {name}")
    conn.commit()
