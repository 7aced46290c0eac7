"""The end of history: which moment `--as-of` means, and whether everything before it is settled.

The rule is backfill.set_as_of()'s. It is asked in a transaction of its own, before the snapshot of the rehearsal is
taken: what is committed then, the rehearsal sees.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Final

from runner.database import Connection, transaction
from runner.errors import SqlError

if TYPE_CHECKING:
    from runner.settings import Settings

# Where the engine comes with this very apply, its function is not there yet: the same question in plain SQL.
_MOMENT: Final = (
    "select case when %(text)s ~ ' ago *$' then now() + (%(text)s)::interval else (%(text)s)::timestamptz end"
)
_WRITERS: Final = """
    select a.pid from pg_stat_activity as a
    where a.datname = current_database() and a.pid <> pg_backend_pid() and a.backend_xid is not null
        and a.xact_start < %s
    union all select 0 from pg_prepared_xacts as p where p.database = current_database()
    limit 1"""


def resolve(conn: Connection, settings: Settings, text: str | None) -> datetime | None:
    """The moment that `text` means, in the session's time zone; None where none was asked for.

    Raises BF015 where it is none or not past, BF016 where a transaction older than it still writes.
    """
    if text is None:
        return None
    with transaction(conn, settings):
        conn.execute("set transaction read only")
        there = conn.execute("select to_regprocedure('backfill.set_as_of(timestamptz)') is not null").fetchone()
        if there and there[0]:
            found = conn.execute("select backfill.moment(%s)", [text]).fetchone()
            assert found is not None  # noqa: S101 - a select without from returns a row
            moment: datetime = found[0]
            conn.execute("select backfill.set_as_of(%s)", [moment])
        else:
            moment = _unaided(conn, text)
    return moment


def _unaided(conn: Connection, text: str) -> datetime:
    import psycopg

    try:
        found = conn.execute(_MOMENT, {"text": text}).fetchone()
    except psycopg.DataError as exc:
        raise SqlError("BF015", f"{text!r} is no moment. Say 2026-11-01, 2026-11-01 14:00+01, or 1 hour ago") from exc
    assert found is not None  # noqa: S101 - a select without from returns a row
    moment: datetime = found[0]
    future = conn.execute("select %s >= now()", [moment]).fetchone()
    if future and future[0]:
        raise SqlError("BF015", f"as-of {moment} is not in the past. What is still to come is no history")
    writer = conn.execute(_WRITERS, [moment]).fetchone()
    if writer is not None:
        who = f"process {writer[0]}" if writer[0] else "a prepared transaction"
        raise SqlError(
            "BF016",
            f"as-of {moment} is younger than a transaction that is still writing: {who}. What it writes would be "
            "missed or half seen. Wait for its end, or take an earlier moment",
        )
    return moment


def keep(conn: Connection, moment: datetime | None) -> None:
    """Let backfill.as_of() be `moment` to the end of the open transaction, in due views and gates alike."""
    if moment is not None:
        conn.execute("select set_config('backfill.as_of', %s::timestamptz::text, true)", [moment])


def require(conn: Connection, moment: datetime | None, backfills: Sequence[str]) -> None:
    """Refuse (BF015) backfills that name no column by which they could leave out what was not settled."""
    if moment is None:
        return
    found = conn.execute(
        "select string_agg(backfill, ', ' order by position) from backfill.catalog"
        " where backfill = any (%s) and settled_column is null",
        [list(backfills)],
    ).fetchone()
    if found and found[0]:
        raise SqlError(
            "BF015",
            f"no as-of for {found[0]}: nothing says what of its source was settled before {moment}. Name the column "
            "(backfill.register, p_settled), or apply it without --as-of",
        )
