"""`runner statement`: the aging of all, the account of one, and what is no debtor."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tests.invoices.world import World
from tests.story import run


@pytest.fixture
def books(database_url: str) -> Iterator[World]:
    """Hillside and a facility with a hostile name owe in two currencies; a check of Hillside's came in March."""
    with psycopg.connect(database_url) as conn:
        world = World.create(conn)
        hillside, hostile = world.facility(), world.facility("=cmd|'x'!A1 [red]\x1b[31m Ltd")
        world.issue(hillside, "INV-0001", 123_456, on="2024-01-10")
        world.issue(hillside, "INV-0002", 700, on="2024-02-11", currency="JPY")
        world.issue(hostile, "INV-0003", 100, on="2024-02-20")
        world.allocate(world.check(hillside, 23_456, on="2024-03-05"))
        conn.commit()
        yield world


def test_the_aging_of_all_with_a_total_of_each_currency(books: World, database_url: str) -> None:
    shown = run(database_url, "statement", "--to", "2024-03-31").out
    rows = [line.split() for line in shown.splitlines()]
    assert ["Hillside", "USD", "0.00", "0.00", "1,000.00", "0.00", "0.00", "1,000.00"] in rows
    assert ["Hillside", "JPY", "0", "700", "0", "0", "0", "700"] in rows
    assert ["total", "USD", "0.00", "1.00", "1,000.00", "0.00", "0.00", "1,001.00"] in rows
    assert "\x1b" not in shown
    assert "[red]" in shown  # a name is no markup
    told = run(database_url, "statement", "--to", "2024-03-04", "--json").json
    assert {(row["debtor"], row["currency"]): row["open_cents"] for row in told["aging"]}["Hillside", "USD"] == 123_456
    assert "Nothing is open." in run(database_url, "statement", "--to", "2023-01-01").out
    assert "not known" in run(database_url, "statement", "--by", "customer").out


def test_the_account_of_one_with_its_running_balance(books: World, database_url: str, tmp_path: Path) -> None:
    file = tmp_path / "hillside.csv"
    shown = run(
        database_url, "statement", "hillside", "--from", "2024-02-01", "--to", "2024-03-31", "--csv", str(file)
    ).out
    rows = [" ".join(line.split()) for line in shown.splitlines()]
    assert "2024-02-01 opening balance USD 1,234.56 1,234.56" in rows
    assert "2024-03-05 check 1 for INV-0001 USD -234.56 1,000.00" in rows
    written = list(csv.DictReader(file.read_text(encoding="utf-8-sig").splitlines()))
    assert (written[-1]["amount"], written[-1]["balance"]) == ("-234.56", "1000.00")
    other = books.id("select id from billing.facilities where name <> 'Hillside' and company_id = %s", books.company)
    assert "INV-0003" in run(database_url, "statement", str(other)).out
    run(database_url, "statement", "--to", "2024-03-31", "--csv", str(file))
    assert "\n'=cmd" in file.read_text(encoding="utf-8-sig")  # no formula in a spreadsheet


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("Nobody",), "there is no facility and no customer 'Nobody'"),
        (("Hillside", "--from", "2024-02-01", "--to", "2024-01-01"), "--from 2024-02-01 is after --to 2024-01-01"),
        (("--from", "2024-02-01"), "name one"),
        (("--by", "week"), "--by week: facility or customer"),
        (("--to", "yesterday"), "--to"),
    ],
)
def test_what_cannot_be_told_is_refused(books: World, database_url: str, words: tuple[str, ...], said: str) -> None:
    assert said in run(database_url, "statement", *words, code=2).err


def test_a_name_of_two_asks_for_an_id(books: World, database_url: str) -> None:
    customer = books.customer("Hillside")
    books.conn.commit()
    refused = run(database_url, "statement", "Hillside", code=2).err
    assert "'Hillside' is the name of 2: give one's id" in refused
    assert str(customer) in refused
    assert "Nothing was ever billed." in run(database_url, "statement", str(customer)).out
