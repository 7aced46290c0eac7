"""Somebody's own totals, in numeric(10,2) and three currencies: corrected, counted in each, undone to the digit."""

from __future__ import annotations

import json
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path

from tests.story import adopt, config, last_run, run, sql

SHOP = (
    "create schema shop",
    """create table shop.invoice (
        id integer primary key, number text not null, total numeric(10, 2) not null, currency text not null)""",
    """create table shop.line (
        invoice_id integer references shop.invoice, at integer, price numeric(10, 2) not null,
        primary key (invoice_id, at))""",
    """insert into shop.invoice select i, 'R-' || i, 0, (array['EUR', 'USD', 'JPY'])[i % 3 + 1]
        from generate_series(1, 600) as i""",
    """insert into shop.line select i, j, case i % 3 when 2 then i * j else i * j * 1.01 end
        from generate_series(1, 600) as i, generate_series(1, 2) as j""",
    # A hundred are right already.
    "update shop.invoice as i set total = (select sum(price) from shop.line where invoice_id = i.id) where id > 500",
    """create view shop.totals_due as select i.id, i.number, s.total - i.total as amount, i.currency
        from shop.invoice as i
        join (select invoice_id, sum(price) as total from shop.line group by invoice_id) as s on s.invoice_id = i.id
        where s.total <> i.total""",
    """create function shop.totals(jsonb) returns jsonb language sql as $$
        update shop.invoice as i set total = i.total + d.amount from shop.totals_due as d where d.id = i.id;
        select '{}'::jsonb $$""",
    "select backfill.track('shop.invoice', '{number}', p_money => 'total', p_currency => 'currency')",
    """select backfill.register(
        'totals', 'shop', 'Totals of the lines', 1000, 'shop.totals_due', 'shop.totals', '{shop.invoice}')""",
)


def shop(url: str, folder: Path) -> Sequence[str]:
    """The shop in the database, and the project's options: a gate of its own and no system of ours."""
    sql(adopt(url), *SHOP)
    gate = folder / "dbt_project" / "tests" / "totals" / "totals_of_their_lines.sql"
    gate.parent.mkdir(parents=True)
    gate.write_text("select number from shop.totals_due\n")
    (folder / "dbt_project" / "dbt_project.yml").write_text("name: shop_gates\n")
    return config(folder, systems=[])


def minor(url: str, where: str) -> dict[str, int]:
    """What the lines of some invoices add up to, by currency, in minor units: computed here, not by the engine."""
    found = sql(
        url,
        "select i.currency, sum(l.price) from shop.line as l join shop.invoice as i on i.id = l.invoice_id"
        f" where {where} group by 1",
    )
    return {currency: int(total * (1 if currency == "JPY" else 100)) for currency, total in found}


def test_totals_in_three_currencies_are_corrected_and_undone_to_the_digit(database_url: str, tmp_path: Path) -> None:
    options = shop(database_url, tmp_path)
    before = sql(database_url, "select * from shop.invoice order by id")
    was, change = minor(database_url, "i.id > 500"), minor(database_url, "i.id <= 500")
    after = {currency: was[currency] + change[currency] for currency in was}
    assert sorted(after) == ["EUR", "JPY", "USD"]

    report = run(database_url, "apply", "totals", "--dry-run", "--json", *options).json
    [backfill] = report["attempt"]["backfills"]
    assert (backfill["due_rows"], backfill["due_money"]) == (500, change)
    [total] = [t for t in report["attempt"]["totals"] if t["table"] == "shop.invoice"]
    assert (total["rows_before"], total["rows_changed"], total["rows_updated"], total["rows_after"]) == (
        600,
        0,
        500,
        600,
    )
    assert (total["money_before"], total["money_changed"], total["money_after"]) == (was, change, after)
    assert sql(database_url, "select * from shop.invoice order by id") == before

    page = tmp_path / "report.html"
    done = run(database_url, "apply", "totals", "--yes", "--html", str(page), *options)
    yen = f"{change['JPY']:,}"
    for text in (done.out, page.read_text()):
        assert "500 updated" in text
        assert f"{Decimal(was['EUR']) / 100:,.2f}" in text, "before, in a cell of three lines"
        assert yen in text
        assert f"{yen}.00" not in text, "a yen has no hundredths"
        for currency in ("EUR", "USD"):
            assert f"{Decimal(change[currency]) / 100:,.2f}" in text
        assert f"{Decimal(sum(change.values())) / 100:,.2f}" not in text, "they are never added"
    run_id = last_run(database_url)
    [logged] = [row for row in run(database_url, "log", "--json").json["runs"] if row["run_id"] == run_id]
    assert logged["due"] == {"rows": 500, "money": change}
    listed = run(database_url, "log").out
    assert f"{yen} JPY" in listed

    undo = run(database_url, "rollback", run_id, "--yes", "--json", *options).json
    assert sql(database_url, "select * from shop.invoice order by id") == before
    [undone] = undo["tables"]
    assert undone["money"] == {currency: -amount for currency, amount in change.items()}
    assert f"-{yen} JPY" in run(database_url, "log").out


def test_what_is_finer_than_a_cent_is_kept_and_named(database_url: str, tmp_path: Path) -> None:
    options = shop(database_url, tmp_path)
    sql(
        database_url,
        "drop view shop.totals_due",
        "alter table shop.invoice alter total type numeric(12, 4)",
        "alter table shop.line alter price type numeric(12, 4)",
        "update shop.line set price = price + 0.0025 where invoice_id = 1 and at = 1",
        SHOP[6],
    )
    done = run(database_url, "apply", "totals", "--yes", *options)
    assert "shop.invoice: 1 amount with more decimals than the currency has" in " ".join(done.out.split())
    [(total,)] = sql(database_url, "select total from shop.invoice where id = 1")
    assert total == Decimal("3.0325")
    shown = run(database_url, "log", last_run(database_url), "--json").json["run"]["metrics"]
    text = json.dumps(shown["tables"]["shop.invoice"]["money"])
    [(exact,)] = sql(database_url, "select sum(total) * 100 from shop.invoice where id <= 500 and currency = 'USD'")
    assert f'"USD": "{exact.normalize():f}"' in text, "a string, and not a float"
