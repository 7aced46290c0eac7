"""`runner statement`: who owes what since when, and the account of one of them, as of any day."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from psycopg.rows import class_row

from runner.database import Connection, connect, transaction
from runner.errors import UsageError
from runner.pinned import place
from runner.settings import Settings

AGES: Final = ("current", "1-30", "31-60", "61-90", "over 90")
"""Days past the due date, as the columns of `Aged.ages`."""


@dataclass(frozen=True, slots=True)
class Aged:
    """What one debtor has open in one currency, in its minor unit; the five `ages` sum to `open_cents`."""

    debtor: str | None
    debtor_id: UUID | None
    currency: str | None
    invoices: int
    ages: list[int]
    open_cents: int


@dataclass(frozen=True, slots=True)
class Move:
    """A line of a statement: what changed what is owed, and what was owed after it, in the minor unit of `currency`."""

    currency: str | None
    day: dt.date
    what: str
    document: str | None
    amount_cents: int
    balance_cents: int


@dataclass(frozen=True, slots=True)
class Statement:
    """The account of `debtor` from a day to another; or, without one, the aging of all at the end of `until`."""

    database: str
    debtor: str | None
    since: dt.date | None
    until: dt.date
    aging: tuple[Aged, ...]
    moves: tuple[Move, ...]


_AGING: Final = """
    select debtor, debtor_id, currency, invoices, open_cents,
        array[current_cents, days_1_to_30_cents, days_31_to_60_cents, days_61_to_90_cents, days_over_90_cents] as ages
    from billing.aging(%s, %s)
"""
_DEBTORS: Final = """
    select d.id, d.name, d.kind, c.name as company
    from (
        select id, company_id, name, 'facility' as kind from billing.facilities
        union all
        select id, company_id, name, 'customer' from billing.customers
    ) as d
    join billing.companies as c on c.id = d.company_id
    where lower(d.name) = lower(%(given)s) or d.id::text = %(given)s
    order by d.kind, c.name, d.id
"""


def statement(
    settings: Settings, debtor: str | None, *, since: dt.date | None, until: dt.date | None, by: str = "facility"
) -> Statement:
    """What was open at the end of `until` (default: today, UTC) by `by`; or a debtor's moves since `since`.

    `debtor` is the name or the id of a facility or customer. Reads only. Raises UsageError for a name that is nobody's,
    or more than one's.
    """
    day = until or dt.datetime.now(dt.UTC).date()
    if since is not None and since > day:
        raise UsageError(f"--from {since} is after --to {day}")
    with connect(settings, application_name="runner statement") as conn, transaction(conn, settings):
        conn.execute("set transaction read only")
        if conn.execute("select to_regprocedure('billing.aging(date, text)') is null").fetchone() == (True,):
            raise UsageError("the system invoices is not installed here, or an older one: runner migrate")
        if debtor is None:
            with conn.cursor(row_factory=class_row(Aged)) as cursor:
                aged = cursor.execute(_AGING, [day, by]).fetchall()
            return Statement(place(conn), None, None, day, tuple(aged), ())
        chosen, name = _find(conn, debtor)
        with conn.cursor(row_factory=class_row(Move)) as cursor:
            moves = cursor.execute(
                "select * from billing.statement(%s, %s, %s)", [chosen, since or dt.date(1, 1, 1), day]
            ).fetchall()
        return Statement(place(conn), name, since, day, (), tuple(moves))


def _find(conn: Connection, given: str) -> tuple[UUID, str]:
    found = conn.execute(_DEBTORS, {"given": given}).fetchall()
    if len(found) == 1:
        chosen, name, _, _ = found[0]
        return chosen, name
    if not found:
        raise UsageError(f"there is no facility and no customer {given!r}: runner statement lists who owes something")
    listed = "\n".join(f"  {chosen}  {kind} of {company}" for chosen, _, kind, company in found[:10])
    raise UsageError(f"{given!r} is the name of {len(found)}: give one's id\n{listed}")
