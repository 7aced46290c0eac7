"""`runner ledger push`: the outbox. Transactions of the ledger that Formance has not confirmed are sent, in order.

Each bulk is three steps: the database notes what is about to be sent (committed), the request, the database notes the
answers (committed). A kill between any two of them leaves transactions that were sent without an answer; the next push
sends the same bytes under the same keys, and is told that they are there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from psycopg import IsolationLevel

from runner.database import Connection, connect, exclusive, retrying, step, transaction
from runner.lending import formance as formance_
from runner.lending.client import Throttle
from runner.lending.formance import BULK, Formance, Item, Outcome
from runner.settings import Settings

SAMPLE = 20


@dataclass(frozen=True, slots=True)
class Refused:
    """A transaction that Formance did not take. `hard`: it holds another one under this reference."""

    reference: str
    code: str
    reason: str
    hard: bool


@dataclass(frozen=True, slots=True)
class OutboxState:
    """Transactions and cents by state: pending, sent (no answer recorded), confirmed, refused (with code)."""

    state: str
    code: str | None
    hard: bool | None
    transactions: int
    cents: int


@dataclass(frozen=True, slots=True)
class Pushed:
    """What a push did, and how the outbox is afterwards. `found` of the confirmed were there already; `refused` is a
    sample of `refusals`."""

    url: str
    ledger: str
    sent: int
    confirmed: int
    found: int
    refusals: int
    refused: tuple[Refused, ...]
    outbox: tuple[OutboxState, ...]

    @property
    def kept(self) -> str:
        """What is committed, whatever becomes of the output."""
        return f"What Formance confirmed is kept: {self.confirmed:,} transactions"

    @property
    def exit_code(self) -> int:
        """3 while the outbox holds refused transactions, those of earlier pushes among them."""
        return 3 if any(row.state == "refused" for row in self.outbox) else 0


def push(
    settings: Settings, *, retry_refused: bool = False, progress: Callable[[str], None] = lambda _: None
) -> Pushed:
    """Send each transaction of the outbox once, refused ones only with `retry_refused`; memory stays flat.

    Raises ConfigurationError where no Formance is configured, LockedError (exit 5) while another push is at work,
    RemoteError and its kinds; what was confirmed until then stays confirmed.
    """
    configuration = formance_.configure(settings)
    sent = confirmed = found = refusals = 0
    refused: list[Refused] = []
    with exclusive(settings, "ledger push") as awake, connect(settings, application_name="runner ledger push") as conn:
        throttle = Throttle(progress, awake)
        [(started,)] = step(conn, settings, "select now()")
        with Formance(configuration, progress=progress) as api:
            # One request at a time: a later transaction may need the funds of an earlier one.
            while batch := step(
                conn, settings,
                "select transaction_id, reference, idempotency_key, body from ledger.push_batch(%s, %s, %s)",
                BULK, retry_refused, started,
            ):  # fmt: skip
                outcomes = api.post([Item(*row[1:]) for row in batch])
                _record(conn, settings, [row[0] for row in batch], outcomes)
                sent += len(batch)
                confirmed += sum(outcome.state == "confirmed" for outcome in outcomes)
                found += sum(outcome.found for outcome in outcomes)
                no = [Refused(o.reference, o.code, o.reason, o.hard) for o in outcomes if o.state == "refused"]
                refusals += len(no)
                refused += no[: SAMPLE - len(refused)]
                throttle(f"{sent:,} sent, {confirmed:,} confirmed, {refusals:,} refused")
        outbox = step(
            conn, settings, "select state, code, hard, transactions, cents from ledger.push_state order by 1, 2, 3"
        )  # fmt: skip
    return Pushed(
        url=configuration.access.url,
        ledger=configuration.ledger,
        sent=sent,
        confirmed=confirmed,
        found=found,
        refusals=refusals,
        refused=tuple(refused),
        outbox=tuple(OutboxState(*row) for row in outbox),
    )


def _record(conn: Connection, settings: Settings, ids: Sequence[UUID], outcomes: Sequence[Outcome]) -> None:
    """The answers of one bulk, in one transaction."""
    confirmed: list[tuple[UUID, Any]] = []
    refused: list[tuple[UUID, str, str, bool]] = []
    for id_, outcome in zip(ids, outcomes, strict=True):
        if outcome.state == "confirmed":
            confirmed.append((id_, outcome.remote_id))
        else:
            refused.append((id_, outcome.code, outcome.reason, outcome.hard))

    def action() -> None:
        with transaction(conn, settings, isolation=IsolationLevel.READ_COMMITTED):
            if confirmed:
                conn.execute("select ledger.push_confirmed(%s, %s)", [*map(list, zip(*confirmed, strict=True))])
            with conn.cursor() as cursor:
                cursor.executemany("select ledger.push_refused(%s, %s, %s, %s)", refused)

    retrying(action, settings)
