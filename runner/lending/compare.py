"""`runner ledger verify`: this ledger and Formance's, transaction by transaction, without writing to either."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from psycopg.types.json import Jsonb

from runner.database import connect, exclusive, step, transaction
from runner.errors import SqlError
from runner.lending import formance as formance_
from runner.lending.client import Throttle
from runner.lending.formance import Formance
from runner.settings import Settings

SAMPLE = 20


@dataclass(frozen=True, slots=True)
class Finding:
    """A transaction that is not the same and confirmed on both sides."""

    reference: str | None
    finding: str
    formance_id: str | None
    detail: str


@dataclass(frozen=True, slots=True)
class Verified:
    """Both sides compared. `counts` are the findings by kind, `findings` a sample of them."""

    url: str
    ledger: str
    here: int
    there: int
    counts: tuple[tuple[str, int], ...]
    findings: tuple[Finding, ...]

    @property
    def exit_code(self) -> int:
        """3 where the ledgers differ."""
        return 3 if self.counts else 0


def verify(settings: Settings, *, progress: Callable[[str], None] = lambda _: None) -> Verified:
    """Read Formance page by page into staging, then compare in a read-only transaction.

    Raises ConfigurationError where no Formance is configured, SqlError BF031 (exit 3) where both are empty.
    """
    configuration = formance_.configure(settings)
    name = "ledger verify"
    with exclusive(settings, name) as awake, connect(settings, application_name=f"runner {name}") as conn:
        [(comparison,)] = step(conn, settings, "select ledger.begin_verify()")
        there, throttle = 0, Throttle(progress, awake)
        with Formance(configuration, progress=progress) as api:
            for page in api.transactions():
                rows = [{key: row.get(key) for key in ("id", "reference", "timestamp", "postings")} for row in page]
                there += _new(step(
                    conn, settings, "select ledger.take_formance_transactions(%s, %s)", comparison, Jsonb(rows)
                ))  # fmt: skip
                throttle(f"read {there:,} transactions of Formance")
        with transaction(conn, settings):
            conn.execute("set transaction read only")
            progress("comparing")
            here = _new(conn.execute("select count(*) from ledger.transactions").fetchall())
            if not here and not there:
                raise SqlError(
                    "BF031",
                    f"both ledgers are empty, this one and {configuration.ledger} at {configuration.access.url}: "
                    "nothing passes on nothing. Is this the right database?",
                )
            counts = conn.execute(
                "select finding, count(*) from ledger.verify_findings(%s) group by 1 order by 1", [comparison]
            ).fetchall()
            findings = conn.execute(
                "select reference, finding, formance_id, detail from ledger.verify_findings(%s) limit %s",
                [comparison, SAMPLE],
            ).fetchall()
    return Verified(
        url=configuration.access.url,
        ledger=configuration.ledger,
        here=here,
        there=there,
        counts=tuple((row[0], row[1]) for row in counts),
        findings=tuple(Finding(*row) for row in findings),
    )


def _new(rows: list[tuple[Any, ...]]) -> int:
    return int(rows[0][0])
