"""A company on the test's own database."""

from __future__ import annotations

import psycopg
import pytest

from tests.invoices.world import World


@pytest.fixture
def world(conn: psycopg.Connection) -> World:
    """A company whose next invoice is number 1 and that takes no interest."""
    return World.create(conn)


@pytest.fixture
def books(world: World) -> World:
    """A facility and a customer who owe INV-0014 (100.00), INV-0015 (200.00), 2024 (500.00), INV-0016 (300.00 EUR)."""
    facility, customer = world.facility(), world.customer()
    world.conn.execute("update billing.settings set interest_annual_bps = 1000 where company_id = %s", [world.company])
    for number, on, cents, currency in (
        ("INV-0014", "2024-01-01", 10_000, "USD"), ("INV-0015", "2024-02-01", 20_000, "USD"),
        ("2024", "2024-03-01", 50_000, "USD"), ("INV-0016", "2024-04-01", 30_000, "EUR"),
    ):  # fmt: skip
        world.issue(facility, number, cents, customer=customer, on=on, currency=currency)
    return world
