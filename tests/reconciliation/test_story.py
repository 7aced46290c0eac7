"""`runner reconcile` from the command line on the sample: every planted defect found, none invented."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections.abc import Iterable
from decimal import Decimal
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import psycopg
import pytest

from runner.money import Money, add_money
from tests.place import ROOT
from tests.reconciliation.sample_ledger import (
    FOLDER,
    IDENTICAL,
    PARTS,
    PASSES,
    PLANTED,
    Invoice,
    billing_sql,
    both_sides,
    ledger_csv,
)

LEDGER = FOLDER / "ledger.csv"


def money_of(rows: Iterable[Invoice]) -> Money:
    """What lines, or invoices, are worth, by currency."""
    worth: list[Money] = [{row.currency: row.cents} for row in rows]
    return add_money({}, *worth) or {}


def cli(url: str, *words: str, code: int = 0) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "runner.cli", *words],
        env=os.environ | {"DATABASE_URL": url, "COLUMNS": "100", "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False,
    )  # fmt: skip
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout if code in (0, 3) else done.stderr


def as_json(url: str, *words: str, code: int = 0) -> Any:
    return json.loads(cli(url, "reconcile", *words, "--json", code=code))


@pytest.fixture
def sample_url(database_url: str) -> str:
    with psycopg.connect(database_url, autocommit=True) as conn:
        conn.execute((FOLDER / "billing.sql").read_bytes())
    return database_url


def test_the_sample_is_the_generated_one() -> None:
    assert LEDGER.read_text(encoding="utf-8") == ledger_csv()
    assert (FOLDER / "billing.sql").read_text(encoding="utf-8") == billing_sql()
    assert min(PLANTED.values()) >= 3


def test_each_planted_defect_is_found_and_none_invented(sample_url: str) -> None:
    found = as_json(sample_url, "--ledger", str(LEDGER), code=3)
    lines, invoices = both_sides()
    expected = {
        name: (
            sum(line.plant == name for line in lines),
            money_of(line for line in lines if line.plant == name),
            sum(invoice.plant == name for invoice in invoices),
            money_of(invoice for invoice in invoices if invoice.plant == name),
        )
        for name in ("identical", *PLANTED)
    }
    classes = {
        item["name"]: (item["ledger_rows"], item["ledger_money"], item["db_rows"], item["db_money"])
        for item in found["classes"]
    }
    assert classes == expected
    assert classes["identical"][0] == IDENTICAL + PARTS + PLANTED["duplicate key"]
    assert classes["identical"][2] == IDENTICAL + PLANTED["duplicate key"]
    assert add_money(*(c[1] for c in classes.values())) == money_of(lines)
    assert add_money(*(c[3] for c in classes.values())) == money_of(invoices)
    # By name: the very rows that were planted.
    plants = {(i.number, i.plant) for i in invoices if i.plant != "identical"}
    plants |= {(i.number, i.plant) for i in lines if i.plant in ("missing in the database", "duplicate key")}
    assert {(f.get("db_number") or f["ledger_number"], f["class"]) for f in found["findings"]} == plants
    # Every column that differs is counted, not only the one that names the class.
    expected_columns = {name: PLANTED[f"{name} differs"] for name in ("number", "currency", "amount", "date", "status")}
    assert dict(found["columns"]) == expected_columns | {"status": PLANTED["status differs"] + 1}
    assert (found["verdict"], found["read_only"], found["ledger"]["imported_now"]) == ("differences", True, True)


def test_billing_is_left_as_it_was_and_the_second_import_is_a_no_op(sample_url: str) -> None:
    def billing() -> list[Any]:
        with psycopg.connect(sample_url) as conn:
            query = (
                "select (select md5(string_agg(i::text, '' order by id)) from billing.invoices as i),"
                " (select count(*) from staging.finance_ledger_line)"
            )
            return conn.execute(query).fetchall()

    before = billing()
    first = as_json(sample_url, "--ledger", str(LEDGER), code=3)
    between = billing()
    assert between[0][0] == before[0][0]
    second = as_json(sample_url, "--ledger", str(LEDGER), code=3)
    assert billing() == between
    assert second["ledger"].pop("imported_now") is False
    first["ledger"].pop("imported_now")
    assert first == second


def test_a_ledger_that_agrees_passes(sample_url: str, tmp_path: Path) -> None:
    good = tmp_path / "good.csv"
    with psycopg.connect(sample_url) as conn, conn.cursor() as cursor, good.open("wb") as out:
        query = """
            copy (
                select row_number() over () as ledger_id, entry_date as date, null as description,
                    null as reference_id, invoice_number, invoice_id, (cents / 100.0)::numeric(20, 2) as amount,
                    currency, status, null as payment_method, null as paid_at, null as notes
                from billing.finance_invoices
            ) to stdout (format csv, header)"""
        with cursor.copy(query) as copy:
            for block in copy:
                out.write(block)
    found = as_json(sample_url, "--ledger", str(good))
    assert found["verdict"] == "reconciled"
    assert "Ledger and database agree" in cli(sample_url, "reconcile", "--ledger", str(good))


def test_a_tolerance_forgives_cents_only(sample_url: str) -> None:
    found = as_json(sample_url, "--ledger", str(LEDGER), "--tolerance", "0.07", code=3)
    classes = {item["name"]: item["db_rows"] for item in found["classes"]}
    assert classes["amount differs"] == 1
    assert classes["date differs"] == PLANTED["date differs"]


def test_what_is_forgiven_has_a_limit_in_sum(sample_url: str, tmp_path: Path) -> None:
    apart = tmp_path / "apart.csv"
    agreed = {invoice.number for invoice in both_sides()[1] if invoice.plant == "identical"}
    header, *rest = csv.reader(ledger_csv().splitlines())
    number, cents = header.index("invoice_number"), header.index("amount")
    kept = [fields for fields in rest if fields[number] in agreed and fields[0] <= f"L-{IDENTICAL + PARTS:04}"]
    for fields in kept[-12:]:
        fields[cents] = str(Decimal(fields[cents]) + Decimal("0.01"))
    with apart.open("w", encoding="utf-8", newline="") as out:
        csv.writer(out).writerows([header, *kept])
    scope = ("--ledger", str(apart), "--to", "2026-01-31", "--tolerance", "0.01")
    found = as_json(sample_url, *scope, code=3)
    assert [c["name"] for c in found["classes"] if c["db_rows"]] == ["identical"]
    assert sum(found["classes"][0]["apart_money"].values()) == 12
    page = tmp_path / "page.html"
    text = cli(sample_url, "reconcile", *scope, "--html", str(page), code=3)
    assert "more than --tolerance-total allows" in text
    assert "1 kind of differences found" in page.read_text(encoding="utf-8")
    assert "agree" not in text
    assert as_json(sample_url, *scope, "--tolerance-total", "1.00")["verdict"] == "reconciled"


def test_a_scope_that_cannot_be_is_refused(sample_url: str) -> None:
    for words, said in {
        ("--tolerance", "-1"): "not an amount such as 0.01",
        ("--tolerance", "1e999999"): "not an amount such as 0.01",
        ("--tolerance-total", "x"): "not an amount such as 0.01",
        ("--from", "1.1.2026"): "a day is written YYYY-MM-DD",
        ("--to", "2026-01-31", "--as-of", "2026-01-31"): "give one of them",
        ("--company", "Nobody"): "there is no company",
        ("--from", "2026-02-01", "--to", "2026-01-31"): "that holds no day",
    }.items():
        assert said in cli(sample_url, "reconcile", "--ledger", str(LEDGER), *words, code=2)
    with psycopg.connect(sample_url) as conn:  # before the first write
        assert conn.execute("select count(*) from staging.file").fetchall() == [(0,)]


def test_as_of_a_day_an_invoice_is_as_open_as_it_was(sample_url: str, tmp_path: Path) -> None:
    with psycopg.connect(sample_url, autocommit=True) as conn:
        conn.execute(
            "insert into billing.payments (id, company_id, invoice_id, paid_at, amount_cents, currency, status)"
            " select gen_random_uuid(), company_id, id, '2026-03-01Z', total_cents, currency, 'succeeded'"
            " from billing.invoices where invoice_number = 'INV-2001'"
        )
        conn.execute(
            "update billing.invoices set status = 'paid', amount_paid_cents = total_cents"
            " where invoice_number = 'INV-2001'"
        )
    ledger = tmp_path / "january.csv"
    header, *rest = ledger_csv().splitlines()
    ledger.write_text("\n".join([header, *(line for line in rest if "INV-2001" in line)]) + "\n", encoding="utf-8")
    found = as_json(sample_url, "--ledger", str(ledger), "--as-of", "2026-01-02", "--company", "Northwind Billing")
    assert found["verdict"] == "reconciled"
    text = " ".join(cli(sample_url, "reconcile", "--ledger", str(ledger), code=3).split())
    assert "The ledger is dated 2026-01-02 to 2026-01-02" in text
    assert "--from 2026-01-02 --to 2026-01-02 compares its days alone" in text
    found = as_json(sample_url, "--ledger", str(ledger), "--to", "2026-01-02", code=3)
    assert [c["name"] for c in found["classes"] if c["db_rows"]] == ["status differs"]


def test_junit_and_history(sample_url: str, tmp_path: Path) -> None:
    file = tmp_path / "junit.xml"
    for _ in range(2):
        cli(sample_url, "reconcile", "--ledger", str(LEDGER), "--junit", str(file), "--store-failures", code=3)
    suite = ElementTree.fromstring(file.read_bytes())
    failed = {case.get("name") for case in suite if case.find("failure") is not None}
    assert failed == set(PLANTED) - set(PASSES)
    assert (suite.get("tests"), suite.get("failures")) == ("14", "8")
    with psycopg.connect(sample_url) as conn:
        kept = conn.execute(
            "select c.file_name, count(*) from backfill.comparison as c"
            " join backfill.comparison_finding as f using (comparison_id) group by c.comparison_id, c.file_name"
        ).fetchall()
    assert kept == [("ledger.csv", sum(PLANTED.values()))] * 2


def test_without_a_ledger_it_counts_by_currency_and_status(sample_url: str) -> None:
    found = as_json(sample_url)
    invoices = both_sides()[1]
    usd_sent = [i for i in invoices if (i.currency, i.status) == ("USD", "sent")]
    for measure in ("invoices", "invoices without a billing profile"):
        [row] = [m for m in found["measures"] if (m["name"], m["currency"], m["status"]) == (measure, "USD", "sent")]
        assert (row["rows"], row["cents"]) == (len(usd_sent), sum(i.cents for i in usd_sent))
    assert len(found["samples"]) == 20
    assert found["read_only"] is True
    text = cli(sample_url, "reconcile")
    assert "read-only transaction" in " ".join(text.split())  # the path of the server may fill the line
    assert "invoices without a billing profile" in text


def test_nothing_passes_on_nothing(database_url: str) -> None:
    assert "nothing passes on nothing" in json.loads(cli(database_url, "reconcile", "--json", code=3))["error"]


def test_options_without_a_ledger_are_a_usage_error(sample_url: str) -> None:
    assert "need --ledger" in cli(sample_url, "reconcile", "--tolerance", "5", code=2)


def test_rejected_lines_fail_the_reconciliation_even_where_they_were_allowed(sample_url: str, tmp_path: Path) -> None:
    bad = tmp_path / "bad.csv"
    bad.write_text(ledger_csv().replace(",80.00,", ',"1.234,56",', 1), encoding="utf-8")
    cli(sample_url, "reconcile", "--ledger", str(bad), code=3)  # refused whole
    found = as_json(sample_url, "--ledger", str(bad), "--allow-rejects", "1", code=3)
    assert found["ledger"]["rejects"] == 1
    text = cli(sample_url, "reconcile", "--ledger", str(bad), "--allow-rejects", "1", code=3)
    assert "1 line of the ledger could not be taken" in text
    assert found["verdict"] == "differences"
