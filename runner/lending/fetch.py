"""`runner fetch rotessa`: customers, schedules and transactions into staging, in steps that outlive a kill.

Each step, a customer's schedules or a page of the report, is one transaction; the fetch's row in the log is committed
before the first request. The same command run again goes on where the last one ended.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from typing import Any

from psycopg.types.json import Jsonb

from runner.database import Connection, connect, exclusive, step
from runner.errors import UsageError
from runner.lending import rotessa as rotessa_
from runner.lending.client import RemoteError, RemoteNotFoundError, Throttle, in_parallel
from runner.lending.rotessa import Rotessa, Row
from runner.settings import Settings

SAMPLE = 10


@dataclass(frozen=True, slots=True)
class Taken:
    """Rows of one kind over the whole fetch, the steps before a kill among them."""

    kind: str
    created: int
    changed: int
    unchanged: int
    rejected: int


@dataclass(frozen=True, slots=True)
class Fetched:
    """A fetch that has come to its end. `scan_from` is the first process date that was asked for: `date_from` less the
    look-back. `rejects` is a sample of the rejected rows: source, key, reason."""

    run_id: uuid.UUID
    host: str
    date_from: date
    date_to: date | None
    scan_from: date
    resumed: bool
    pages: int
    rows: tuple[Taken, ...]
    rejects: tuple[tuple[str, str, str], ...]
    mortgages_synced: int
    allowed_rejects: int = 0

    @property
    def rejected(self) -> int:
        """Rows of the API that could not be taken."""
        return sum(taken.rejected for taken in self.rows)

    @property
    def kept(self) -> str:
        """What is committed, whatever becomes of the output."""
        return f"What was fetched is staged: run {self.run_id}"

    @property
    def exit_code(self) -> int:
        """3 where more rows were rejected than allowed; the others are landed nevertheless."""
        return 3 if self.rejected > self.allowed_rejects else 0


def fetch_rotessa(
    settings: Settings,
    *,
    date_from: date,
    date_to: date | None = None,
    host: str | None = None,
    allow_rejects: int = 0,
    progress: Callable[[str], None] = lambda _: None,
) -> Fetched:
    """Land what Rotessa shows from `date_from` less the look-back, to `date_to` or without an end.

    Raises ConfigurationError before anything else where the token is missing, LockedError (exit 5) while another fetch
    is at work, RemoteError and its kinds; what has been landed until then stays, and is not fetched again.
    """
    if date_to is not None and date_to < date_from:
        raise UsageError(f"--to {date_to} is before --from {date_from}")
    configuration = rotessa_.configure(settings, host=host)
    with (
        exclusive(settings, "fetch rotessa") as awake,
        connect(settings, application_name="runner fetch rotessa") as conn,
    ):
        [(fetch, resumed, done, next_page, scan_from)] = step(
            conn, settings,
            "select fetch_id, resumed, customers_done, next_page, scan_from"
            " from staging.begin_rotessa_fetch(%s, %s, %s)",
            date_from, date_to, configuration.look_back_days,
        )  # fmt: skip
        throttle = Throttle(progress, awake)
        with Rotessa(configuration, progress=progress) as api:
            _customers(conn, settings, api, fetch, set(done), throttle)
            pages = _transactions(conn, settings, api, fetch, next_page, scan_from, date_to, throttle)
        progress("finishing")
        [(metrics,)] = step(conn, settings, "select staging.finish_rotessa_fetch(%s)", fetch)
        kinds = [(kind, metrics.get(kind, {})) for kind in ("customers", "schedules", "transactions")]
        rejects = conn.execute(
            "select source, source_key, reason from backfill.reject where run_id = %s order by 1, 2 limit %s",
            [fetch, SAMPLE],
        ).fetchall()
    return Fetched(
        run_id=fetch,
        host=configuration.access.url,
        date_from=date_from,
        date_to=date_to,
        scan_from=scan_from,
        resumed=resumed,
        pages=pages,
        rows=tuple(
            Taken(kind, *(counts.get(name, 0) for name in ("created", "changed", "unchanged", "rejected")))
            for kind, counts in kinds
        ),
        rejects=tuple((row[0], row[1], row[2]) for row in rejects),
        mortgages_synced=metrics.get("mortgages_synced", 0),
        allowed_rejects=allow_rejects,
    )


def _customers(
    conn: Connection, settings: Settings, api: Rotessa, fetch: uuid.UUID, done: set[int], throttle: Throttle
) -> None:
    throttle("customers")
    rows = api.customers()
    step(conn, settings, "select staging.take_rotessa_customers(%s, %s)", fetch, Jsonb(rows))
    found = {number for row in rows if (number := _number(row.get("id"))) is not None}
    # Whoever is no longer listed is asked for too, by the schedules that were staged: gone is what answers 404.
    staged = step(conn, settings, "select distinct customer_id from lending.schedules where not gone")
    waiting = sorted(found.union(row[0] for row in staged) - done)

    def schedules_of(customer: int) -> list[Row]:
        try:
            return api.schedules_of(customer)
        except RemoteNotFoundError:
            return []  # removed since the list was read: it has no schedules any more

    workers = api.configuration.access.manners.concurrency
    for count, (customer, schedules) in enumerate(in_parallel(schedules_of, waiting, workers=workers), start=1):
        step(
            conn, settings, "select staging.take_rotessa_schedules(%s, %s, %s)", fetch, customer, Jsonb(schedules)
        )  # fmt: skip
        throttle(f"schedules: {count:,} of {len(waiting):,} customers")


def _transactions(
    conn: Connection, settings: Settings, api: Rotessa, fetch: uuid.UUID, first: int, start: date, end: date | None,
    throttle: Throttle,
) -> int:  # fmt: skip
    """Read pages until an empty one; returns how many had rows, those before a kill among them."""
    page, count = first, 0
    before: list[Any] = []
    while rows := api.transactions(page, start=start, end=end):
        ids = [row.get("id") for row in rows]
        if ids == before:
            raise RemoteError(
                f"Rotessa's page {page} of the transaction report is page {page - 1} again, row by row: it seems to "
                "ignore pages. Perhaps it takes its parameters as a body: "
                '[lending.rotessa] dates = "body" in runner.toml'
            )
        before = ids
        step(conn, settings, "select staging.take_rotessa_transactions(%s, %s, %s)", fetch, page, Jsonb(rows))
        count += len(rows)
        throttle(f"transactions: page {page:,}, {count:,} rows")
        page += 1
    return page - 1


def _number(value: object) -> int | None:
    text = str(value)
    return int(text) if text.isascii() and text.isdecimal() else None
