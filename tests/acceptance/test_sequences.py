"""Numbers that a rehearsal drew: put back where it is certain that nobody else drew any, else named and left."""

from __future__ import annotations

import threading
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from tests.story import adopt, config, run, sql

SHOP = (
    "create schema shop",
    "create table shop.past (number text primary key)",
    "insert into shop.past select 'R' || i from generate_series(1, 50) as i",
    """create table shop."Invoice" (
        id bigint generated always as identity {options} primary key, number text not null unique)""",
    """create view shop.invoices_due as select p.number from shop.past as p
        where not exists (select from shop."Invoice" as i where i.number = p.number)""",
    """create function shop.fill(p jsonb) returns jsonb language sql security definer as $$
        insert into shop."Invoice" (number) select number from shop.invoices_due order by 1;
        select jsonb_build_object('more', {more}) $$""",
    "select backfill.track('shop.\"Invoice\"', '{{number}}')",
    """select backfill.register('past_invoices', 'shop', 'Invoices from before', 1000, 'shop.invoices_due', 'shop.fill',
        array['shop."Invoice"'])""",
)
DRAW = """insert into shop."Invoice" (number) values ('N' || gen_random_uuid()) returning id"""
MOVED = 'shop."Invoice_id_seq"'


def shop(url: str, folder: Path, options: str = "", more: str = "0") -> list[str]:
    """A shop with 50 invoices due, in a table with an identity; the project's options."""
    sql(adopt(url), *(statement.format(options=options, more=more) for statement in SHOP))
    gate = folder / "dbt_project" / "tests" / "past_invoices" / "nothing_due.sql"
    gate.parent.mkdir(parents=True)
    gate.write_text("select number from shop.invoices_due\n")
    (folder / "dbt_project" / "dbt_project.yml").write_text("name: shop_gates\n")
    return list(config(folder, systems=[]))


@pytest.mark.parametrize(
    ("options", "first", "second"),
    [
        ("", 1, 2),
        ("(start with 100 increment by 5)", 100, 105),
        ("(start with -1 increment by -2)", -1, -3),
        ("(cache 10)", 1, 11),  # each session takes ten
    ],
    ids=["plain", "by five", "downwards", "cached, and all of it used"],
)
def test_a_rehearsal_leaves_no_gap_in_the_numbers(
    database_url: str, tmp_path: Path, options: str, first: int, second: int
) -> None:
    flags = shop(database_url, tmp_path, options)
    for expected in (first, second):  # also before the first number was ever drawn
        done = run(database_url, "apply", "past_invoices", "--dry-run", "--json", *flags).json
        assert done["attempt"]["sequences"] == []
        assert sql(database_url, DRAW) == [(expected,)]
    run(database_url, "apply", "past_invoices", "--yes", *flags)
    step = second - first
    found = sql(database_url, """select min(abs(id)), max(abs(id)) from shop."Invoice" where number like 'R%'""")
    if options != "(cache 10)":
        assert found == [(min(abs(second + step), abs(second + 50 * step)), abs(second + 50 * step))]


@pytest.mark.parametrize(
    ("options", "more"),
    [
        ("(cache 7)", "0"),
        ("", f"nextval('{MOVED}')"),
        ("(maxvalue 60 cycle)", f"(select max(nextval('{MOVED}')) from generate_series(1, 20))"),
    ],
    ids=["cache took more than was used", "a number went nowhere", "it went round"],
)
def test_what_is_not_certain_is_named_and_left(database_url: str, tmp_path: Path, options: str, more: str) -> None:
    flags = shop(database_url, tmp_path, options, more)
    before = sql(database_url, f"select last_value, is_called from {MOVED}")
    done = run(database_url, "apply", "past_invoices", "--dry-run", "--json", *flags).json
    assert done["attempt"]["sequences"] == [MOVED]
    assert sql(database_url, f"select last_value, is_called from {MOVED}") != before
    assert MOVED in run(database_url, "apply", "past_invoices", "--dry-run", *flags).out


def test_the_numbers_of_an_application_that_draws_meanwhile_are_never_drawn_twice(
    database_url: str, tmp_path: Path
) -> None:
    flags = shop(database_url, tmp_path)
    stop, drawn, failed = threading.Event(), [0], []

    def bill() -> None:
        with psycopg.connect(database_url, autocommit=True, application_name="billing") as conn:
            while not stop.wait(0.002):
                try:
                    conn.execute(DRAW)
                    drawn[0] += 1
                except psycopg.Error as exc:
                    failed.append(str(exc))

    thread = threading.Thread(target=bill)
    thread.start()
    try:
        for _ in range(3):
            run(database_url, "apply", "past_invoices", "--dry-run", *flags)
    finally:
        stop.set()
        thread.join()
    assert failed == []
    assert drawn[0] > 0
    assert sql(database_url, 'select count(*), count(distinct id) from shop."Invoice"') == [(drawn[0], drawn[0])]


def test_a_sequence_of_somebody_else_is_named_and_left(database_url: str, tmp_path: Path) -> None:
    flags = shop(database_url, tmp_path)
    name = f"seq_{uuid4().hex[:8]}"
    sql(
        database_url,
        f"create role {name} login in role backfill_operator",
        f"grant usage on schema shop to {name}",
        f"grant select on all tables in schema shop to {name}",
    )
    try:
        done = run(make_conninfo(database_url, user=name), "apply", "past_invoices", "--dry-run", "--json", *flags).json
        assert (done["verdict"], done["attempt"]["sequences"]) == ("rehearsed", [MOVED])
        assert sql(database_url, DRAW) == [(51,)]
    finally:
        sql(database_url, f"drop owned by {name}", f"drop role {name}")
