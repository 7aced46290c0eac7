"""`runner schedules …`: people decide which schedule belongs to which mortgage; here they see, link and unlink."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from typing import Any, Literal
from uuid import UUID

from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from runner.database import Connection, connect, step, transaction
from runner.errors import ConfigurationError
from runner.lending import rotessa as rotessa_
from runner.lending.client import RemoteNotFoundError, Throttle
from runner.lending.rotessa import Rotessa, Row
from runner.settings import Settings

STEP = 1_000
"""Due transactions that are written, and committed, at a time."""


@dataclass(frozen=True, slots=True)
class Mortgage:
    """A mortgage that no schedule is linked to; `suggested_schedules` are ids, likeliest first."""

    mortgage_id: UUID
    mortgage_number: str
    borrower_name: str
    rotessa_customer_id: int | None
    payment_cents: int
    frequency: str | None
    exact_suggestions: int
    suggested_schedules: list[int]


@dataclass(frozen=True, slots=True)
class Schedule:
    """A schedule that is linked to no mortgage; `suggestions` have rank, mortgage, mortgage_id, exact, same_customer,
    same_amount, difference_cents, likeliest first."""

    schedule_id: int
    customer_id: int
    customer_name: str | None
    amount_cents: int
    frequency: str
    next_process_date: date | None
    exact_suggestions: int
    suggestions: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Unlinked:
    """Both sides of what is not linked."""

    mortgages: tuple[Mortgage, ...]
    schedules: tuple[Schedule, ...]


@dataclass(frozen=True, slots=True)
class Backfilled:
    """The backfill of a schedule's payments. `fetched` is null where the staged copy was used; `errors` are
    the items that failed: item, kind, mortgage, cents, reason."""

    run_id: UUID
    status: str
    resumed: bool
    fetched: dict[str, Any] | None
    payments: int
    postings: int
    chargebacks: int
    failed: int
    cents: int
    errors: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Linked:
    """A link, or its end. `checked`: by whom it is known that the schedule exists."""

    schedule_id: int
    mortgage_number: str
    status: str | None
    checked: Literal["at Rotessa", "staged copy only", "not asked"]
    backfill: Backfilled | None = None

    @property
    def kept(self) -> str:
        """What is committed, whatever becomes of the output."""
        return f"What was done with schedule {self.schedule_id} is committed: `runner log` shows it"

    @property
    def exit_code(self) -> int:
        """3 where payments could not be written; the link and the other payments stand."""
        return 3 if self.backfill is not None and self.backfill.failed else 0


def unlinked(settings: Settings) -> Unlinked:
    """Mortgages without a schedule and schedules without a mortgage."""
    with connect(settings, application_name="runner schedules list") as conn, transaction(conn, settings):
        with conn.cursor(row_factory=class_row(Mortgage)) as cursor:
            mortgages = cursor.execute(
                "select mortgage_id, mortgage_number, borrower_name, rotessa_customer_id, payment_cents, frequency,"
                " exact_suggestions, suggested_schedules"
                " from lending.mortgages_without_schedule order by mortgage_number"
            ).fetchall()
        with conn.cursor(row_factory=class_row(Schedule)) as cursor:
            schedules = cursor.execute(
                "select schedule_id, customer_id, customer_name, amount_cents, frequency, next_process_date,"
                " exact_suggestions, suggestions from lending.unlinked_schedules order by schedule_id"
            ).fetchall()
    return Unlinked(tuple(mortgages), tuple(schedules))


def link(
    settings: Settings,
    schedule: int,
    mortgage: str,
    *,
    backfill: bool = False,
    override_mismatch: str | None = None,
    host: str | None = None,
    actor: str | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> Linked:
    """Link after asking Rotessa, where a token is set, whether the schedule exists; then, if asked to, backfill.

    Raises RemoteNotFoundError where Rotessa does not know it, SqlError BF043 and BF044 where the link is refused: then
    nothing was changed. A link that stands stays when its backfill is broken off; the same command again goes on with
    it.
    """
    configuration = _with_token(settings, host)
    with connect(settings, application_name="runner schedules link") as conn:
        if configuration is not None:
            progress(f"asking Rotessa for schedule {schedule}")
            _ask(configuration, schedule, progress)
        [(number, status)] = step(
            conn, settings,
            "select number, rotessa_schedule_status from lending.link_schedule(%s, %s, %s)",
            schedule, mortgage, override_mismatch,
        )  # fmt: skip
        done = _backfill(conn, settings, configuration, schedule, actor, progress) if backfill else None
    return Linked(schedule, number, status, "at Rotessa" if configuration else "staged copy only", done)


def unlink(settings: Settings, schedule: int, *, reason: str, keep_payments: bool = False) -> Linked:
    """Take a link back by reversing its run. Raises SqlError BF047 (exit 6)."""
    with connect(settings, application_name="runner schedules unlink") as conn:
        [(number, status)] = step(
            conn, settings,
            "select number, rotessa_schedule_status from lending.unlink_schedule(%s, %s, %s)",
            schedule, reason, keep_payments,
        )  # fmt: skip
    return Linked(schedule, number, status, "not asked")


def _with_token(settings: Settings, host: str | None) -> rotessa_.Configuration | None:
    """How to ask Rotessa, or None where no token is set: then the staged copy has to do."""
    if not os.environ.get(rotessa_.TOKEN, "").strip():
        if host is not None:
            raise ConfigurationError(f"--host {host} needs {rotessa_.TOKEN} in the environment")
        return None
    return rotessa_.configure(settings, host=host)


def _ask(configuration: rotessa_.Configuration, schedule: int, progress: Callable[[str], None]) -> list[Row]:
    """The history of a schedule that exists at Rotessa."""
    with Rotessa(configuration, progress=progress) as api:
        try:
            return api.schedule(schedule)[1]
        except RemoteNotFoundError as exc:
            raise RemoteNotFoundError(
                f"schedule {schedule} does not exist at Rotessa ({configuration.access.url}). "
                "`runner fetch rotessa --from DATE`, then `runner schedules list` shows those that do"
            ) from exc


def _backfill(
    conn: Connection,
    settings: Settings,
    configuration: rotessa_.Configuration | None,
    schedule: int,
    actor: str | None,
    progress: Callable[[str], None],
) -> Backfilled:
    # The row of the log is committed before anything is fetched: a backfill that dies is seen to have begun.
    [(run_id, resumed)] = step(
        conn, settings, "select run_id, resumed from lending.begin_payment_backfill(%s, %s)", schedule, actor
    )  # fmt: skip
    fetched: dict[str, Any] | None = None
    if configuration is not None:
        progress(f"history of schedule {schedule}")
        rows = _ask(configuration, schedule, progress)
        [(metrics,)] = step(conn, settings, "select staging.take_rotessa_history(%s, %s)", schedule, Jsonb(rows))
        fetched = metrics["transactions"]
    count, over, throttle = 0, False, Throttle(progress)
    while not over:
        [(over, items)] = step(
            conn, settings, "select done, items from lending.step_payment_backfill(%s, %s)", run_id, STEP
        )  # fmt: skip
        count += items
        throttle(f"{count:,} transactions")
    [(status, metrics, errors)] = step(
        conn, settings, "select status, metrics, errors from lending.finish_payment_backfill(%s)", run_id
    )  # fmt: skip
    payments, postings, chargebacks, failed, cents = (
        int(metrics.get(name, 0)) for name in ("payments", "postings", "chargebacks", "failed", "cents")
    )
    return Backfilled(
        run_id=run_id,
        status=status,
        resumed=resumed,
        fetched=fetched,
        payments=payments,
        postings=postings,
        chargebacks=chargebacks,
        failed=failed,
        cents=cents,
        errors=errors,
    )
