"""Somebody's own tables, whose keys the database assigns, beside an application that takes keys as well."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from tests.story import adopt, config, last_run, run, sql

SHOP = (
    "create schema shop",
    "create table shop.past (number text primary key, lines integer not null, amount numeric(10, 2) not null)",
    "insert into shop.past select 'R' || i, i %% 3 + 1, i * 1.11 from generate_series(1, 8000) as i",
    "create table shop.invoice (id {key} primary key, number text not null unique, kind text not null)",
    """create table shop.invoice_line (
        id {key} primary key, invoice_id {held} not null references shop.invoice, at integer not null,
        amount numeric(10, 2) not null)""",
    """create view shop.invoices_due as
        select p.*, (p.amount * 100 * p.lines)::bigint as cents
        from shop.past as p where not exists (select from shop.invoice as i where i.number = p.number)""",
    """create function shop.fill(p jsonb) returns jsonb language sql as $$
        with made as (
            insert into shop.invoice (number, kind) select number, 'past' from shop.invoices_due returning id, number
        )
        insert into shop.invoice_line (invoice_id, at, amount)
        select m.id, j, p.amount from made as m join shop.past as p using (number)
        cross join lateral generate_series(1, p.lines) as j;
        select '{{}}'::jsonb $$""",
    "select backfill.track('shop.invoice', '{{number}}')",
    "select backfill.track('shop.invoice_line')",
    """select backfill.register('past_invoices', 'shop', 'Invoices from before', 1000, 'shop.invoices_due', 'shop.fill',
        '{{shop.invoice,shop.invoice_line}}')""",
)
FOUND = """
    select i.number, l.at, l.amount from shop.invoice_line as l join shop.invoice as i on i.id = l.invoice_id
    where i.kind = 'past' order by 1, 2
"""
MEANT = "select p.number, j, p.amount from shop.past as p, generate_series(1, p.lines) as j order by 1, 2"


@contextmanager
def billing(url: str) -> Iterator[list[int]]:
    """The application bills all the while, with keys of the same sequence."""
    stop, billed = threading.Event(), [0]

    def bill() -> None:
        with psycopg.connect(url, autocommit=True, application_name="billing") as conn:
            while not stop.wait(0.01):
                billed[0] += 1
                conn.execute("insert into shop.invoice (number, kind) values (%s, 'new')", [f"N{billed[0]}"])

    thread = threading.Thread(target=bill)
    thread.start()
    try:
        yield billed
    finally:
        stop.set()
        thread.join()


@pytest.mark.parametrize(
    ("key", "held"),
    [("bigint generated always as identity", "bigint"), ("uuid default gen_random_uuid()", "uuid")],
    ids=["identity", "uuid"],
)
def test_rows_with_keys_of_the_database_are_applied_as_they_were_rehearsed(
    database_url: str, tmp_path: Path, key: str, held: str
) -> None:
    url = adopt(database_url)
    sql(url, *(statement.format(key=key, held=held).replace("%%", "%") for statement in SHOP))
    gate = tmp_path / "dbt_project" / "tests" / "past_invoices" / "invoices_without_lines.sql"
    gate.parent.mkdir(parents=True)
    gate.write_text(
        "select i.number from shop.invoice as i left join shop.invoice_line as l on l.invoice_id = i.id\n"
        "where i.kind = 'past' and l.id is null\n"
    )
    (tmp_path / "dbt_project" / "dbt_project.yml").write_text("name: shop_gates\n")
    options = config(tmp_path, systems=[])
    with billing(url) as billed:
        done = run(url, "apply", "past_invoices", "--yes", *options)
        run(url, "verify", "audit", *options)
    assert "Applied and committed." in done.text
    assert billed[0] > 0
    assert sql(url, FOUND) == sql(url, MEANT)
    assert sql(url, "select count(*) from shop.invoice where kind = 'new'") == [(billed[0],)]
    run(url, "rollback", last_run(url), "--yes", *options)
    assert sql(url, "select distinct kind from shop.invoice") == [("new",)]
    assert sql(url, "select count(*) from shop.invoice_line") == [(0,)]
