"""Words for stories about lending: borrowers, mortgages, schedules fetched from the stub."""

from __future__ import annotations

from collections.abc import Iterable

from tests.lending.stubs.rotessa import Rotessa
from tests.story import sql


def mortgage(url: str, number: str, customer: int | None, cents: int, name: str = "Ada") -> None:
    """A mortgage with its borrower, who may be a customer of the processor."""
    known = "null" if customer is None else str(customer)
    sql(
        url,
        f"insert into lending.borrowers (name, rotessa_customer_id) values ('{name}', {known}) on conflict do nothing",
        "insert into lending.mortgages (number, borrower_id, payment_cents, frequency)"
        f" select '{number}', id, {cents}, 'Monthly' from lending.borrowers"
        f" where rotessa_customer_id is not distinct from {known} and name = '{name}'",
    )


def history(stub: Rotessa, schedule: int, amount: str, months: Iterable[str], first: int = 1000) -> None:
    """Approved, settled transactions of a schedule, one a month (YYYY-MM), numbered from `first`."""
    for number, month in enumerate(months, start=first):
        stub.transaction(number, schedule, amount, f"{month}-01", settlement_date=f"{month}-03")


def payments(url: str, count: int, cents: int = 10_000) -> None:
    """Approved payments of one mortgage, each recorded in the ledger at its settlement date, numbered from 1."""
    mortgage(url, "M-1", 1, cents)
    sql(
        url,
        "insert into lending.payments (mortgage_id, source_reference, rotessa_customer_id, amount_cents, status,"
        f" process_date, settlement_date) select m.id, 'rotessa:tx:' || n, 1, {cents}, 'approved',"
        f" date '2024-01-01' + n % 300, date '2024-01-03' + n % 300"
        f" from lending.mortgages as m cross join generate_series(1, {count}) as n",
        "select ledger.record_payment_collection(id, settlement_date::timestamp at time zone 'UTC')"
        " from lending.payments order by settlement_date",
    )
