"""A history has an end: `--as-of` leaves to the application what it is doing right now."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest

from tests.story import SAMPLE_CHARGES, UNIT, adopt, charges, run, sql

PAYMENT = """
    insert into property.payments
        (tenant_user_id, unit_id, amount_cents, payment_method, status, billing_period, created_at)
    values ('{tenant}', '{unit}', 120000, 'card', 'succeeded', '{period}', {at})"""


def payment(tenant: str, period: str, at: str) -> str:
    """A payment of the application, made at a moment of its own."""
    return PAYMENT.format(tenant=tenant, unit=UNIT, period=period, at=at)


@pytest.fixture
def url(database_url: str) -> str:
    """The sample application, its payments older than a day."""
    adopt(database_url)
    sql(database_url, "update property.payments set created_at = now() - interval '1 day'")
    return database_url


@contextmanager
def writing(url: str, statement: str) -> Iterator[None]:
    """The application, in a transaction that is open as long as the block."""
    with psycopg.connect(url, application_name="shop") as conn:
        conn.execute(statement.encode())
        yield
        conn.rollback()


def test_what_is_in_flight_is_left_to_the_application(url: str) -> None:
    # One new tenant, and one whose period has an old payment and a new one.
    sql(
        url,
        payment("eve", "2030-01", "now()"),
        payment("ada", "2030-02", "now() - interval '1 day'"),
        payment("ada", "2030-02", "now()"),
    )

    done = run(url, "apply", "charges", "--yes", "--as-of", "1 hour ago")

    assert "what was not settled before is left out" in done.text
    assert len(charges(url)) == SAMPLE_CHARGES
    assert not [row for row in charges(url) if row[6] in ("2030-01", "2030-02")]
    [(kept,)] = sql(
        url, "select as_of < started_at - interval '59 minutes' from backfill.backfill_log where backfill = 'charges'"
    )
    assert kept
    # The gates of an apply judged what is settled; without as-of, all that is there is due.
    run(url, "apply", "charges", "--yes")
    assert {row[6] for row in charges(url)} >= {"2030-01", "2030-02"}
    assert sql(
        url,
        "select as_of is null from backfill.backfill_log where backfill = 'charges' order by started_at desc limit 1",
    ) == [(True,)]


def test_a_bad_payment_in_flight_is_no_reject_yet(url: str) -> None:
    sql(url, payment("eve", "soon", "now()"))

    assert "is not YYYY-MM" in run(url, "apply", "charges", "--dry-run", code=3).text
    run(url, "apply", "charges", "--dry-run", "--as-of", "1 hour ago")


@pytest.mark.parametrize("there", [True, False], ids=["the engine is there", "it comes with this apply"])
def test_what_cannot_be_an_as_of_is_refused_before_anything(
    database_url: str, empty_database_url: str, there: bool
) -> None:
    url = adopt(database_url if there else empty_database_url)

    for moment, why in (
        ("tomorrow", "is not in the past"),
        ("2999-01-01", "is not in the past"),
        ("a while", "is no moment"),
        ("5 bananas ago", "is no moment"),
    ):
        assert why in run(url, "apply", "charges", "--yes", "--as-of", moment, code=2).err
    with writing(url, payment("eve", "2030-01", "now()")):
        refused = run(url, "apply", "charges", "--yes", "--as-of", "1 millisecond ago", code=5)
        assert "still writing: process" in refused.err
        if there:  # what began later than as-of may go on; migrations would wait for it
            run(url, "apply", "charges", "--yes", "--as-of", "1 hour ago")
    assert sql(url, "select to_regclass('backfill.charges_due') is not null") == [(there,)]


def test_what_says_nothing_of_when_it_was_settled_knows_no_as_of(empty_database_url: str) -> None:
    url = adopt(empty_database_url)
    sql(url, "alter table property.payments drop column created_at")

    refused = run(url, "apply", "charges", "--yes", "--as-of", "1 hour ago", code=2)

    assert "no as-of for charges" in refused.err
    run(url, "apply", "charges", "--yes")
    assert len(charges(url)) == SAMPLE_CHARGES


def test_it_is_the_same_from_the_sql_editor(url: str) -> None:
    run(url, "apply", "charges", "--yes", "--as-of", "2 days ago")  # only the schema: nothing is older
    assert not charges(url)
    sql(url, payment("eve", "2030-01", "now()"))

    sql(url, "select backfill.run('charges', p_as_of => '1 hour ago')")

    assert len(charges(url)) == SAMPLE_CHARGES
