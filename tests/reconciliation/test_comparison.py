"""Ledger against invoices: classes partition both sides, for any pair of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from uuid import UUID

import psycopg
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from runner import gates
from runner.errors import translate
from runner.money import NO_CURRENCY, Money, add_money
from runner.settings import Settings
from runner.systems import SYSTEMS

SHA = "f" * 64
CLASSES = (
    "identical", "matched by number only", "no receivable", "number differs", "currency differs", "amount differs",
    "date differs", "status differs", "missing in the database", "missing in the ledger", "duplicate key",
)  # fmt: skip
DAY = date(2026, 1, 31)
NOT_IDENTICAL = set(CLASSES) - {"identical"}


@dataclass(frozen=True)
class Entry:
    """A ledger line or an invoice. `id` is its place in IDS (a line's may be one that no invoice has), or none."""

    id: int | None
    number: str | None
    cents: int = 1000
    day: int = 1
    status: str = "sent"
    currency: str | None = "USD"
    company: int = 0


def id_of(entry: Entry) -> UUID | None:
    return None if entry.id is None else UUID(int=(8 << 76) + entry.id + 1)


def put(conn: psycopg.Connection, lines: Iterable[Entry], invoices: Iterable[Entry]) -> None:
    """Stage the lines as one loaded file, in order, from line 2, and write the invoices."""
    conn.execute("select backfill.begin_run('load finance_ledger', p_mode => 'load')")
    conn.execute("insert into staging.file select 'finance_ledger', %s, 'ledger.csv', 1, backfill.open_run()", [SHA])
    conn.cursor().executemany(
        "insert into staging.finance_ledger_line (file_sha256, line, ledger_id, entry_date, invoice_number, invoice_id,"
        " amount, currency, status) values (%s, %s, %s, %s, %s, %s, %s::numeric / 100, %s, %s)",
        [
            (SHA, n, f"L-{n}", date(2026, 1, e.day), e.number, id_of(e), e.cents, e.currency, e.status)
            for n, e in enumerate(lines, start=2)
        ],
    )
    conn.execute("select backfill.seal_rows('staging.finance_ledger_line', %s)", [SHA])
    conn.execute("select backfill.finish_run()")
    write_invoices(conn, invoices)


def write_invoices(conn: psycopg.Connection, invoices: Iterable[Entry]) -> None:
    invoices = list(invoices)
    for company in {entry.company for entry in invoices}:
        conn.execute("insert into billing.companies (id, name) values (%s, %s)", [UUID(int=company), f"C{company}"])
        conn.execute(
            "insert into billing.facilities (id, company_id, name) values (%s, %s, 'F')",
            [UUID(int=company), UUID(int=company)],
        )
    conn.cursor().executemany(
        "insert into billing.invoices (id, company_id, facility_id, invoice_number, period_start, period_end, status,"
        " sent_at, due_date, total_cents, currency) values (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
        [
            (id_of(e), UUID(int=e.company), UUID(int=e.company), e.number, DAY, DAY, e.status,
             f"2026-01-{e.day:02} 12:00Z", DAY, e.cents, e.currency)
            for e in invoices
        ],
    )  # fmt: skip


def money_of(entries: Iterable[Entry]) -> Money:
    """What they are worth, by currency."""
    return add_money({}, *({entry.currency or NO_CURRENCY: entry.cents} for entry in entries)) or {}


def compare(
    conn: psycopg.Connection, tolerance: Decimal | int = 0, *scope: object
) -> dict[str, tuple[int, Money, int, Money]]:
    """Compare in a read-only subtransaction: class to (lines, their money, invoices, their money)."""
    conn.execute("select staging.begin_comparison()")
    asked = [SHA, Decimal(tolerance), *scope, *[None] * (3 - len(scope))]
    with conn.transaction():
        conn.execute("set transaction read only")
        found = conn.execute("select * from staging.compare_finance_ledger(%s, %s, %s, %s, %s)", asked).fetchall()
    return {row[0]: row[1:5] for row in found}


def digits(number: str) -> tuple[str, int]:
    """Letters and number of an invoice number."""
    letters, _, rest = number.rpartition("-")
    return letters.upper(), int(rest)


def nearness(one: str | None, two: str | None) -> int | None:
    if one is None or two is None:
        return None
    if one == two:
        return 1
    (letters, number), (others, other) = digits(one), digits(two)
    if number != other:
        return None
    return 2 if letters == others else 3 if "" in (letters, others) else None


def named_by(entry: Entry, invoices: list[Entry]) -> tuple[list[int], str]:
    """The invoices that a line may mean, and how it says so."""
    same = [place for place, invoice in enumerate(invoices) if entry.id is not None and invoice.id == entry.id]
    if same:
        return same, "id"
    near = [(nearness(entry.number, invoice.number) or 9, place) for place, invoice in enumerate(invoices)]
    least = min(near)[0]
    return [place for n, place in near if n == least < 9], "number"


def rule(lines: list[Entry], invoices: list[Entry], tolerance: int) -> tuple[dict[int, str], dict[int, str]]:
    """The rule in plain words of Python: class of each line and of each invoice, by place."""
    of_line: dict[int, str] = {}
    of_invoice: dict[int, str] = {}
    entries_of: dict[int, list[int]] = {}
    unclear: set[int] = set()
    for place, entry in enumerate(lines):
        named, _ = named_by(entry, invoices)
        if len(named) == 1:
            entries_of.setdefault(named[0], []).append(place)
        else:
            of_line[place] = "duplicate key" if named else "missing in the database"
            unclear.update(named)
    for place, invoice in enumerate(invoices):
        parts = entries_of.get(place, [])
        if not parts:
            left = "no receivable" if invoice.status in ("draft", "void") else "missing in the ledger"
            of_invoice[place] = "duplicate key" if place in unclear else left
            continue
        by = {named_by(lines[p], invoices)[1] for p in parts}
        other_number = any(
            named_by(lines[p], invoices)[1] == "id"
            and lines[p].number is not None
            and nearness(lines[p].number, invoice.number) is None
            for p in parts
        )
        currencies = {lines[p].currency for p in parts}
        amounts = {lines[p].cents for p in parts}
        surplus: list[int] = []
        if len(currencies) > 1:
            home = invoice.currency if invoice.currency in currencies else lines[parts[0]].currency
            surplus = [p for p in parts if lines[p].currency != home]
            of_line.update(dict.fromkeys(surplus, "currency differs"))
        elif (
            len(parts) > 1
            and currencies == {invoice.currency}
            and len(amounts) == 1
            and abs(sum(lines[p].cents for p in parts) - invoice.cents) > tolerance
            and abs(lines[parts[0]].cents - invoice.cents) <= tolerance
        ):
            surplus = parts[1:]
            of_line.update(dict.fromkeys(surplus, "duplicate key"))
        kept = [p for p in parts if p not in surplus]
        last = max(kept, key=lambda p: (lines[p].day, p))
        if len({lines[p].status for p in parts}) == 1:
            last = kept[0]
        name = "identical" if "id" in by else "matched by number only"
        if lines[last].status != invoice.status:
            name = "status differs"
        if min(lines[p].day for p in kept) != invoice.day:
            name = "date differs"
        if abs(sum(lines[p].cents for p in kept) - invoice.cents) > tolerance:
            name = "amount differs"
        if lines[kept[0]].currency != invoice.currency:
            name = "currency differs"
        if other_number:
            name = "number differs"
        of_invoice[place] = name
        of_line.update(dict.fromkeys(kept, name))
    return of_line, of_invoice


def entries(ids: st.SearchStrategy[int | None], numbers: st.SearchStrategy[str | None]) -> st.SearchStrategy[Entry]:
    return st.builds(
        Entry,
        ids,
        numbers,
        cents=st.integers(999, 1002),
        day=st.integers(1, 2),
        status=st.sampled_from(["sent", "paid"]),
        currency=st.sampled_from(["USD", "USD", "CAD"]),
    )


NUMBERS = st.sampled_from([*(f"INV-{n}" for n in range(5)), "INV-003", "B-3", "-2", "inv-4"])
LINES = st.lists(entries(st.none() | st.integers(0, 8), st.none() | NUMBERS), min_size=1, max_size=12)
INVOICES = st.lists(
    st.builds(
        Entry,
        st.integers(0, 6),
        NUMBERS,
        cents=st.integers(999, 1002),
        day=st.integers(1, 2),
        status=st.sampled_from(["sent", "paid", "void"]),
        currency=st.sampled_from(["USD", "USD", "CAD", None]),
        company=st.integers(0, 1),
    ),
    min_size=1,
    max_size=8,
    unique_by=(lambda e: e.id, lambda e: (e.company, e.number)),
)


@pytest.fixture(scope="module")
def differences() -> str:
    """The SQL of dbt's test of differences."""
    compiled = gates.compile(Settings(systems=SYSTEMS))
    [gate] = [gate for gate in compiled if gate.name == "finance_ledger_lines_and_invoices_that_differ"]
    return gate.sql


@hypothesis_settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(lines=LINES, invoices=INVOICES, tolerance=st.integers(0, 2))
def test_for_any_two_sides_the_classes_partition_both_and_follow_the_rule(
    conn: psycopg.Connection, differences: str, lines: list[Entry], invoices: list[Entry], tolerance: int
) -> None:
    with conn.transaction(force_rollback=True):
        put(conn, lines, invoices)
        totals = compare(conn, Decimal(tolerance) / 100)
        rows = conn.execute("select class, line, lines, invoice_id from pg_temp.finance_ledger_comparison").fetchall()
        compare(conn)
        exact = conn.execute(
            "select class, line, db_number from pg_temp.finance_ledger_comparison"
            " where class not in ('identical', 'matched by number only', 'no receivable')"
        ).fetchall()
        by_dbt = conn.execute(f"select class, line, db_number from ({differences}) as found".encode()).fetchall()

    assert Counter(exact) == Counter(by_dbt)
    assert tuple(totals) == CLASSES
    assert sum(t[0] for t in totals.values()) == len(lines)
    assert add_money(*(t[1] for t in totals.values())) == money_of(lines)
    assert sum(t[2] for t in totals.values()) == len(invoices)
    assert add_money(*(t[3] for t in totals.values())) == money_of(invoices)
    # No invoice is in two rows.
    assert max(Counter(r[3] for r in rows if r[3] is not None).values(), default=1) == 1

    of_line, of_invoice = rule(lines, invoices, tolerance)
    place_of = {id_of(e): place for place, e in enumerate(invoices)}
    found = {place_of[r[3]]: r[0] for r in rows if r[3] is not None}
    assert {place: found.get(place, "identical") for place in of_invoice} == of_invoice
    for name in CLASSES:
        assert totals[name] == (
            sum(c == name for c in of_line.values()),
            money_of(lines[p] for p, c in of_line.items() if c == name),
            sum(c == name for c in of_invoice.values()),
            money_of(invoices[p] for p, c in of_invoice.items() if c == name),
        ), name


def test_the_tolerance_is_in_whole_units_and_counts_as_equal(conn: psycopg.Connection) -> None:
    put(conn, [Entry(0, "A", 1005), Entry(1, "B", 994)], [Entry(0, "A", 1000), Entry(1, "B", 1000)])
    assert compare(conn, Decimal("0.05"))["identical"] == (1, {"USD": 1005}, 1, {"USD": 1000})
    assert compare(conn, Decimal("0.05"))["amount differs"] == (1, {"USD": 994}, 1, {"USD": 1000})
    assert compare(conn, Decimal("0.06"))["identical"] == (2, {"USD": 1999}, 2, {"USD": 2000})


def test_currencies_are_never_added(conn: psycopg.Connection) -> None:
    one = [Entry(0, "A", 100, currency="EUR"), Entry(1, "B", 100), Entry(2, "C", 7)]
    other = [Entry(0, "A", 90, currency="EUR"), Entry(1, "B", 90), Entry(2, "C", 7, currency=None)]
    put(conn, one, other)
    assert {name: totals for name, totals in compare(conn).items() if totals[0]} == {
        "amount differs": (2, {"EUR": 100, "USD": 100}, 2, {"EUR": 90, "USD": 90}),
        "currency differs": (1, {"USD": 7}, 1, {"amounts": 7}),
    }


def test_nothing_passes_on_an_empty_ledger_or_an_empty_database(conn: psycopg.Connection) -> None:
    write_invoices(conn, [Entry(0, "A")])
    for sides in ("ledger", "database"):
        with pytest.raises(psycopg.Error) as caught:
            compare(conn)
        assert caught.value.sqlstate == "BF031", sides
        assert translate(caught.value).exit_code == 3
        conn.rollback()
        put(conn, [Entry(0, "A")], [])


def test_a_comparison_must_be_begun_and_its_tolerance_an_amount(conn: psycopg.Connection) -> None:
    put(conn, [Entry(0, "A")], [Entry(0, "A")])
    with pytest.raises(psycopg.Error, match="no comparison was begun") as caught, conn.transaction():
        conn.execute("select staging.compare_finance_ledger(%s)", [SHA])
    assert caught.value.sqlstate == "BF032"
    conn.execute("select staging.begin_comparison()")
    with pytest.raises(psycopg.Error, match="cannot be below zero"), conn.transaction():
        conn.execute("select staging.compare_finance_ledger(%s, -1)", [SHA])


def test_a_table_that_somebody_else_prepared_is_not_written(conn: psycopg.Connection) -> None:
    # A trigger on it would run with the rights of the function's owner.
    put(conn, [Entry(0, "A")], [Entry(0, "A")])
    conn.execute("set local role backfill_auditor")
    conn.execute("create temp table finance_ledger_comparison (class text)")
    with pytest.raises(psycopg.Error, match="no comparison was begun"):
        conn.execute("select staging.compare_finance_ledger(%s)", [SHA])


def test_findings_are_listed_so_many_of_each_class(conn: psycopg.Connection) -> None:
    put(conn, [Entry(i, f"N{i}", 1) for i in range(4)] + [Entry(None, "X")], [Entry(i, f"N{i}") for i in range(4)])
    compare(conn)
    found = [row[0] for row in conn.execute("select staging.comparison_rows(2)").fetchall()]
    assert Counter(row["class"] for row in found) == {"amount differs": 2, "missing in the database": 1}
    assert (found[0]["ledger_number"], found[0]["differs"]) == ("N0", ["amount"])
    assert len(conn.execute("select staging.comparison_rows()").fetchall()) == 5


def of(totals: dict[str, tuple[int, Money, int, Money]]) -> dict[str, tuple[int, int]]:
    """Lines and invoices of the classes that hold any."""
    return {name: (t[0], t[2]) for name, t in totals.items() if t[0] or t[2]}


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


def test_a_ledger_of_four_lines_is_compared_with_its_days_and_its_company(conn: psycopg.Connection) -> None:
    invoices = [Entry(i, f"INV-{i}", day=1 + i % 20, company=i % 2) for i in range(40)]
    put(conn, [invoices[i] for i in (0, 1, 20, 21)], invoices)
    assert of(compare(conn))["missing in the ledger"] == (0, 36)
    assert of(compare(conn, 0, date(2026, 1, 1), date(2026, 1, 2))) == {"identical": (4, 4)}
    company = UUID(int=1)
    assert of(compare(conn, 0, date(2026, 1, 1), date(2026, 1, 2), company)) == {"identical": (2, 2)}
    # A line within and its invoice outside are one pair still.
    assert of(compare(conn, 0, None, date(2026, 1, 1))) == {"identical": (2, 2)}
    with pytest.raises(psycopg.Error, match="one of the sides is empty") as caught, conn.transaction():
        compare(conn, 0, date(2027, 1, 1))
    assert caught.value.sqlstate == "BF031"
    with pytest.raises(psycopg.Error, match="would hold no day"), conn.transaction():
        compare(conn, 0, date(2026, 1, 2), date(2026, 1, 1))
    with pytest.raises(psycopg.Error, match="there is no company"), conn.transaction():
        compare(conn, 0, None, None, UUID(int=9))


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
