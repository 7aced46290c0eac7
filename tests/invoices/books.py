"""Words of the tests of receivables: who owes, what is linked, what is refused."""

from __future__ import annotations

import uuid
from typing import Any

import psycopg
import pytest

from tests.invoices.world import World


def facility(world: World) -> uuid.UUID:
    return world.id("select id from billing.facilities where company_id = %s", world.company)


def customer(world: World) -> uuid.UUID:
    return world.id("select id from billing.customers where company_id = %s", world.company)


def invoice(world: World, number: str) -> uuid.UUID:
    return world.id(
        "select id from billing.invoices where company_id = %s and invoice_number = %s", world.company, number
    )


def link(world: World) -> dict[str, Any]:
    metrics: dict[str, Any] = world.value("select metrics from backfill.run('payment_links')")
    return {name: metrics[name] for name in ("linked_by_number", "linked_by_amount", "written_off")}


def refusal(world: World, query: str, *parameters: object) -> str:
    with pytest.raises(psycopg.Error) as caught, world.conn.transaction():
        world.conn.execute(query.encode(), parameters)
    assert caught.value.sqlstate == "BF033", caught.value
    return str(caught.value).split("\n", 1)[0]
