"""What each class of a comparison holds, and what a comparison refuses."""

from __future__ import annotations

from collections import Counter
from datetime import date
from decimal import Decimal
from uuid import UUID

import psycopg
import pytest

from runner.errors import translate
from tests.reconciliation.ledgers import SHA, Entry, compare, of, put, write_invoices


def test_the_tolerance_is_in_whole_units_and_counts_as_equal(conn: psycopg.Connection) -> None:
    put(conn, [Entry(0, "A", 1005), Entry(1, "B", 994)], [Entry(0, "A", 1000), Entry(1, "B", 1000)])
    assert compare(conn, Decimal("0.05"))["identical"] == (1, {"USD": 1005}, 1, {"USD": 1000})
    assert compare(conn, Decimal("0.05"))["amount differs"] == (1, {"USD": 994}, 1, {"USD": 1000})
    assert compare(conn, Decimal("0.06"))["identical"] == (2, {"USD": 1999}, 2, {"USD": 2000})


def test_currencies_are_never_added(conn: psycopg.Connection) -> None:
    one = [Entry(0, "A", 100, currency="EUR"), Entry(1, "B", 100), Entry(2, "C", 7)]
    other = [Entry(0, "A", 90, currency="EUR"), Entry(1, "B", 90), Entry(2, "C", 8, currency=None)]
    put(conn, one, other)
    assert {name: totals for name, totals in compare(conn).items() if totals[0]} == {
        "amount differs": (2, {"EUR": 100, "USD": 100}, 2, {"EUR": 90, "USD": 90}),
        "currency differs": (1, {"USD": 7}, 1, {"amounts": 8}),
    }
    # 7 dollars and 8 of an unknown currency are neither the same amount nor another.
    columns: dict[str, int] = dict(conn.execute("select * from staging.comparison_columns()").fetchall())
    assert (columns["amount"], columns["currency"]) == (2, 1)


def test_nothing_passes_on_an_empty_ledger_or_an_empty_database(conn: psycopg.Connection) -> None:
    write_invoices(conn, [Entry(0, "A")])
    for sides in ("ledger", "database"):
        with pytest.raises(psycopg.Error) as caught:
            compare(conn)
        assert caught.value.sqlstate == "BF031", sides
        assert translate(caught.value).exit_code == 3
        conn.rollback()
        put(conn, [Entry(0, "A")], [])


def test_as_of_a_day_an_invoice_is_void_only_from_its_day_on(conn: psycopg.Connection) -> None:
    put(conn, [Entry(0, "A-1"), Entry(1, "A-2")], [Entry(0, "A-1", status="void"), Entry(1, "A-2")])
    conn.execute("update billing.invoices set voided_on = '2026-01-20' where invoice_number = 'A-1'")
    assert of(compare(conn, 0, None, None, None, date(2026, 1, 19))) == {"identical": (2, 2)}
    void = {"identical": (1, 1), "status differs": (1, 1)}
    assert of(compare(conn, 0, None, None, None, date(2026, 1, 20))) == void
    conn.execute("update billing.invoices set voided_on = null where invoice_number = 'A-1'")
    assert of(compare(conn, 0, None, None, None, date(2026, 1, 19))) == void
    with pytest.raises(psycopg.Error, match="both name the last day"), conn.transaction():
        compare(conn, 0, None, date(2026, 1, 19), None, date(2026, 1, 19))


def test_as_of_a_day_nothing_later_is_known(conn: psycopg.Connection) -> None:
    lines = [
        Entry(0, "A-1"), Entry(0, "A-1", -1000, 20, "void"),
        Entry(1, "CN-1", -500), Entry(2, "A-3", 0), Entry(3, "A-4", 0),
    ]  # fmt: skip
    put(conn, lines, [
        Entry(0, "A-1", status="void"), Entry(1, "CN-1", -500), Entry(2, "A-3", 0), Entry(3, "A-4", 0, status="void"),
    ])  # fmt: skip
    conn.execute("update billing.invoices set voided_on = '2026-01-20' where status = 'void'")
    # The reversing line is of the 20th; an unused credit is not paid, and neither is an invoice of nothing.
    assert of(compare(conn, 0, None, None, None, date(2026, 1, 19))) == {"identical": (4, 4)}


def test_a_comparison_must_be_begun_and_its_tolerance_an_amount(conn: psycopg.Connection) -> None:
    put(conn, [Entry(0, "A")], [Entry(0, "A")])
    with pytest.raises(psycopg.Error, match="no comparison was begun") as caught, conn.transaction():
        conn.execute("select staging.compare_finance_ledger(%s)", [SHA])
    assert caught.value.sqlstate == "BF032"
    conn.execute("select staging.begin_comparison()")
    for tolerance in ("-0.01", "NaN", "Infinity", None):
        with pytest.raises(psycopg.Error, match="cannot be below zero"), conn.transaction():
            conn.execute("select staging.compare_finance_ledger(%s, %s::numeric)", [SHA, tolerance])


def test_a_table_that_somebody_else_prepared_is_not_written(conn: psycopg.Connection) -> None:
    # A trigger on it would run with the rights of the function's owner.
    put(conn, [Entry(0, "A")], [Entry(0, "A")])
    conn.execute("set local role backfill_auditor")
    made = "create temp %s finance_ledger_comparison %s", "grant select on finance_ledger_comparison to public"
    for kind in (("table", "(class text)"), ("view", "as select '{amount}'::text[] as differs, 'x' as class")):
        with conn.transaction(force_rollback=True):
            conn.execute((made[0] % kind).encode())
            conn.execute(made[1].encode())
            for call in ("compare_finance_ledger(%s)", "comparison_rows()", "comparison_columns()"):
                with pytest.raises(psycopg.Error, match="no comparison was begun"), conn.transaction():
                    conn.execute(f"select staging.{call}".encode(), [SHA] if "%s" in call else [])


def test_findings_are_listed_so_many_of_each_class(conn: psycopg.Connection) -> None:
    put(conn, [Entry(i, f"N{i}", 1) for i in range(4)] + [Entry(None, "X")], [Entry(i, f"N{i}") for i in range(4)])
    compare(conn)
    found = [row[0] for row in conn.execute("select staging.comparison_rows(2)").fetchall()]
    assert Counter(row["class"] for row in found) == {"amount differs": 2, "missing in the database": 1}
    assert (found[0]["ledger_number"], found[0]["differs"]) == ("N0", ["amount"])
    assert len(conn.execute("select staging.comparison_rows()").fetchall()) == 5


def test_several_lines_of_an_invoice_are_summed_first(conn: psycopg.Connection) -> None:
    lines = [
        Entry(0, "A-1", 18_000), Entry(0, "A-1", 2_000, 3), Entry(1, "A-2", 20_000), Entry(1, "A-2", 20_000),
        Entry(2, "A-3", 15_000), Entry(None, "a 3", 5_000), Entry(3, "A-4", 100), Entry(3, "A-4", 100, currency="CAD"),
    ]  # fmt: skip
    put(conn, lines, [*(Entry(i, f"A-{i + 1}", 20_000) for i in range(3)), Entry(3, "A-4", 100)])
    # 180 and 20 are the 200 of A-1; 200 and 200 are A-2 booked twice; 150 and 50 are A-3, named by id and by number.
    totals = compare(conn)
    assert of(totals) == {"identical": (6, 4), "currency differs": (1, 0), "duplicate key": (1, 0)}
    assert totals["currency differs"][1] == {"CAD": 100}


def test_a_line_whose_number_names_another_invoice_than_its_id_is_a_class_of_its_own(conn: psycopg.Connection) -> None:
    put(
        conn,
        [Entry(0, "INV-15", 900), Entry(1, "inv 0015"), Entry(2, None), Entry(3, "17")],
        [Entry(0, "INV-14", 1000), Entry(1, "INV-15"), Entry(2, "INV-16"), Entry(3, "INV-17")],
    )
    assert of(compare(conn)) == {"identical": (3, 3), "number differs": (1, 1)}
    [finding] = conn.execute("select staging.comparison_rows()").fetchall()
    assert finding[0]["differs"] == ["number", "amount"]
    columns: dict[str, int] = dict(conn.execute("select * from staging.comparison_columns()").fetchall())
    assert columns == {"number": 1, "currency": 0, "amount": 1, "date": 0, "status": 0}


def test_a_number_beside_an_id_is_anothers_where_it_fits_another_better(conn: psycopg.Connection) -> None:
    invoices = [Entry(0, "INV-4"), Entry(1, "F-4"), Entry(2, "INV-014"), Entry(3, "INV-14"), Entry(4, "F-9")]
    put(conn, [
        Entry(0, "INV-4"), Entry(1, "INV-4"), Entry(2, "INV-014"), Entry(3, "INV-014"), Entry(4, "9"),
    ], invoices)  # fmt: skip
    # F-4 called INV-4, INV-14 called INV-014: both are others' numbers. 9 beside the id of F-9 says nothing else.
    totals = compare(conn)
    assert of(totals) == {"identical": (3, 3), "number differs": (2, 2)}


def test_numbers_of_another_company_say_nothing_beside_an_id(conn: psycopg.Connection) -> None:
    put(conn, [Entry(0, "INV-14"), Entry(1, "9")], [
        Entry(0, "INV-0014"), Entry(1, "F-9"), Entry(2, "INV-14", company=1), Entry(3, "JP-9", company=1),
    ])  # fmt: skip
    assert of(compare(conn)) == {"identical": (2, 2), "missing in the ledger": (0, 2)}


def test_many_series_and_one_id_on_many_lines_cost_no_more(conn: psycopg.Connection) -> None:
    """Where each was compared with each: 90,000 and 4,000,000 pairs; the server is given time for a fraction."""
    conn.execute("set local statement_timeout = '20s'")
    invoices = [Entry(n, f"{chr(65 + n // 26 % 26)}{chr(65 + n % 26)}X-1") for n in range(300)]
    lines = [Entry(None, f"{(i.number or '')[:3]} 1") for i in invoices] + [Entry(0, f"Z-{n}") for n in range(2000)]
    put(conn, lines, invoices)
    totals = compare(conn)
    assert totals["matched by number only"][2] + totals["number differs"][2] + totals["identical"][2] == 300


def test_a_line_with_anothers_number_is_apart_from_those_that_are_right(conn: psycopg.Connection) -> None:
    put(conn, [Entry(0, "INV-14"), Entry(0, "INV-15")], [Entry(0, "INV-14"), Entry(1, "INV-15")])
    totals = compare(conn)
    assert of(totals) == {"identical": (1, 1), "number differs": (1, 0), "missing in the ledger": (0, 1)}
    found = [row[0] for row in conn.execute("select staging.comparison_rows()").fetchall()]
    assert [(row["line"], row["ledger_number"]) for row in found if row["class"] == "number differs"] == [(3, "INV-15")]


def test_a_credit_is_named_by_its_letters_only(conn: psycopg.Connection) -> None:
    put(conn, [Entry(None, "INV-4", -500), Entry(None, "5")], [
        Entry(0, "INV-1"), Entry(1, "CN-4", -500), Entry(2, "INV-5"), Entry(3, "CN-5", -500),
    ])  # fmt: skip
    found = {"matched by number only": (1, 1), "missing in the database": (1, 0), "missing in the ledger": (0, 3)}
    assert of(compare(conn)) == found


def test_booked_twice_is_seen_beside_a_line_of_another_currency(conn: psycopg.Connection) -> None:
    put(conn, [Entry(0, "A-1"), Entry(0, "A-1"), Entry(0, "A-1", 5, currency="CAD")], [Entry(0, "A-1")])
    assert of(compare(conn)) == {"identical": (1, 1), "currency differs": (1, 0), "duplicate key": (1, 0)}


def test_a_line_within_the_days_brings_its_entry(conn: psycopg.Connection) -> None:
    lines = [Entry(0, "A-1", day=20), Entry(0, "A-1", day=25), Entry(1, "A-2", day=26)]
    put(conn, lines, [Entry(0, "A-1", day=20), Entry(1, "A-2", day=26)])
    found = {"identical": (2, 2), "duplicate key": (1, 0)}
    assert of(compare(conn, 0, date(2026, 1, 25), date(2026, 1, 31))) == found


def test_digits_alone_name_an_invoice_only_where_there_is_one_series(conn: psycopg.Connection) -> None:
    put(conn, [Entry(None, "15"), Entry(None, "inv 16")], [Entry(0, "INV-15"), Entry(1, "INV-16")])
    assert of(compare(conn)) == {"matched by number only": (2, 2)}
    conn.execute("update billing.invoices set invoice_number = 'F-16' where invoice_number = 'INV-16'")
    # Two series now: neither 15 nor "inv", which is a word like another, says which.
    assert of(compare(conn)) == {"missing in the database": (2, 0), "missing in the ledger": (0, 2)}


def test_a_ledger_of_four_lines_is_compared_with_its_days_and_its_company(conn: psycopg.Connection) -> None:
    invoices = [Entry(i, f"INV-{i}", day=1 + i % 20, company=i % 2) for i in range(40)]
    put(conn, [invoices[i] for i in (0, 1, 20, 21)], invoices)
    assert of(compare(conn))["missing in the ledger"] == (0, 36)
    assert of(compare(conn, 0, date(2026, 1, 1), date(2026, 1, 2))) == {"identical": (4, 4)}
    company = UUID(int=1)
    assert of(compare(conn, 0, date(2026, 1, 1), date(2026, 1, 2), company)) == {"identical": (2, 2)}
    # A line within and its invoice outside are one pair still.
    assert of(compare(conn, 0, None, date(2026, 1, 1))) == {"identical": (2, 2)}
    with (
        pytest.raises(
            psycopg.Error, match="one of the sides holds nothing of what was asked, from 2027-01-01:"
        ) as caught,
        conn.transaction(),
    ):
        compare(conn, 0, date(2027, 1, 1))
    assert caught.value.sqlstate == "BF031"
    with pytest.raises(psycopg.Error, match="would hold no day"), conn.transaction():
        compare(conn, 0, date(2026, 1, 2), date(2026, 1, 1))
    with pytest.raises(psycopg.Error, match="there is no company"), conn.transaction():
        compare(conn, 0, None, None, UUID(int=9))


def test_a_line_is_of_the_company_whose_number_it_fits_nearest(conn: psycopg.Connection) -> None:
    # "inv" is a word like another, and JP has one series: without INV-14 of the other company it would be JP-14.
    put(conn, [Entry(None, "inv 14"), Entry(None, "JP 15")], [
        Entry(0, "INV-14", company=0), Entry(1, "JP-14", company=1), Entry(2, "JP-15", company=1),
    ])  # fmt: skip
    theirs = {"matched by number only": (1, 1), "missing in the ledger": (0, 1)}
    assert of(compare(conn, 0, None, None, UUID(int=1))) == theirs
    assert of(compare(conn, 0, None, None, UUID(int=0))) == {"matched by number only": (1, 1)}


def test_a_pair_dated_across_the_end_of_a_month_stays_a_pair(conn: psycopg.Connection) -> None:
    put(conn, [Entry(0, "A-1", day=31), Entry(1, "A-2", day=10)], [Entry(0, "A-1", day=30), Entry(1, "A-2", day=10)])
    assert of(compare(conn, 0, date(2026, 1, 31), date(2026, 2, 28))) == {"date differs": (1, 1)}
    assert of(compare(conn, 0, date(2026, 1, 1), date(2026, 1, 30))) == {"identical": (1, 1), "date differs": (1, 1)}


def test_drafts_and_voids_that_finance_does_not_have_are_no_receivables(conn: psycopg.Connection) -> None:
    invoices = [Entry(0, "A-1"), Entry(1, "A-2", status="void"), Entry(2, "A-3", status="void")]
    put(conn, [Entry(0, "A-1"), Entry(1, "A-2")], invoices)
    # Finance holds A-2 as receivable, and it is void: that differs.
    assert of(compare(conn)) == {"identical": (1, 1), "no receivable": (0, 1), "status differs": (1, 1)}


def test_amounts_are_read_in_the_decimals_of_their_currency(conn: psycopg.Connection) -> None:
    conn.execute("select backfill.begin_run('load finance_ledger', p_mode => 'load')")
    conn.execute("insert into staging.file select 'finance_ledger', %s, 'ledger.csv', 1, backfill.open_run()", [SHA])
    for line, (amount, currency) in enumerate([("1200", "JPY"), ("1.234", "KWD"), ("12.00", "EUR")], start=2):
        conn.execute(
            "insert into staging.finance_ledger_line (file_sha256, line, ledger_id, entry_date, invoice_number, amount,"
            " currency, status) values (%s, %s, 'L', '2026-01-01', %s, %s, %s, 'sent')",
            [SHA, line, f"A-{line}", amount, currency],
        )
    with pytest.raises(psycopg.errors.CheckViolation), conn.transaction():
        conn.execute("update staging.finance_ledger_line set amount = 1.5 where currency = 'JPY'")
    conn.execute("select backfill.seal_rows('staging.finance_ledger_line', %s)", [SHA])
    conn.execute("select backfill.finish_run()")
    worth = [(1200, "JPY"), (1234, "KWD"), (1200, "EUR")]
    write_invoices(conn, [Entry(i, f"A-{i}", c, currency=k) for i, (c, k) in enumerate(worth, start=2)])
    assert of(compare(conn)) == {"matched by number only": (3, 3)}
