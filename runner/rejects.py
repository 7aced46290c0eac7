"""`runner rejects`: source rows that backfills cannot take now, and why; and those that runs left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from runner.database import connect, transaction
from runner.errors import UsageError
from runner.money import Money, of_row
from runner.pinned import place
from runner.settings import Settings
from runner.status import unselected_systems

# What a backfill cannot take now, and what a standing run was allowed to leave out. Each row once.
_NOW: Final = "select source, source_key, line, reason, amount, currency, payload from backfill.new_rejects(%s)"
_LEFT: Final = """
    select r.source, r.source_key, r.line, r.reason, r.amount, r.currency, r.payload, r.run_id::text
    from backfill.reject as r join backfill.backfill_log as l on l.run_id = r.run_id and l.status <> 'reversed'
    where r.backfill = %s
"""


@dataclass(frozen=True, slots=True)
class Rejected:
    """A source row: of which backfill, where it is, why it cannot be taken, its money, what helps to mend it."""

    backfill: str
    source: str
    source_key: str
    line: int | None
    reason: str
    money: Money | None
    payload: dict[str, Any]
    run: str | None
    """The run that left it out; None of a row on which nobody has decided."""


@dataclass(frozen=True, slots=True)
class Rejects:
    """All of them, by backfill in the catalog's order, then by source and line."""

    database: str
    rows: tuple[Rejected, ...]


def rejects(settings: Settings, names: Sequence[str] = ()) -> Rejects:
    """The rejects of these backfills, or of all of the selected systems. BF009 or UsageError for a wrong name."""
    found: list[Rejected] = []
    with connect(settings, application_name="runner rejects") as conn, transaction(conn, settings):
        conn.execute("set transaction read only")
        if conn.execute("select to_regclass('backfill.catalog') is null").fetchone() == (True,):
            if names:
                raise UsageError(
                    f"there is no backfill {names[0]}: the engine is not installed here; see runner status"
                )
            return Rejects(place(conn), ())
        for name in names:
            conn.execute("select backfill.entry(%s)", [name])
        left_out = unselected_systems(conn, settings)
        catalog = conn.execute(
            "select backfill from backfill.catalog"
            " where case when %s then backfill = any (%s) else system <> all (%s) end order by position",
            [bool(names), list(names), list(left_out)],
        ).fetchall()
        for (backfill,) in catalog:
            rows = [(*row, None) for row in conn.execute(_NOW, [backfill])] + conn.execute(_LEFT, [backfill]).fetchall()
            rows.sort(key=lambda row: (row[0], row[2] or 0, row[1], row[3]))
            found += [
                Rejected(backfill, source, key, line, reason, of_row(amount, currency), payload, run)
                for source, key, line, reason, amount, currency, payload, run in rows
            ]
        return Rejects(place(conn), tuple(found))
