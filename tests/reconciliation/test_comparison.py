"""Ledger against invoices: classes partition both sides, for any pair of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
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
    "identical", "amount differs", "date differs", "status differs", "currency differs", "missing in the database",
    "missing in the ledger", "duplicate key", "matched by number only",
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


def compare(conn: psycopg.Connection, tolerance: int = 0, sha: str = SHA) -> dict[str, tuple[int, Money, int, Money]]:
    """Compare in a read-only subtransaction: class to (lines, their money, invoices, their money)."""
    conn.execute("select staging.begin_comparison()")
    with conn.transaction():
        conn.execute("set transaction read only")
        found = conn.execute("select * from staging.compare_finance_ledger(%s, %s)", [sha, tolerance]).fetchall()
    return {row[0]: row[1:] for row in found}


def rule(lines: list[Entry], invoices: list[Entry], tolerance: int) -> tuple[dict[int, str], dict[int, str]]:
    """The rule in plain words of Python: class of each line and of each invoice, by place."""
    of_line: dict[int, str] = {}
    of_invoice: dict[int, str] = {}
    by_id = {entry.id: place for place, entry in enumerate(invoices)}
    by_number: dict[str | None, list[int]] = {}
    for place, entry in enumerate(invoices):
        by_number.setdefault(entry.number, []).append(place)

    def pair(line: int, invoice: int, by: str) -> None:
        one, two = lines[line], invoices[invoice]
        name = "identical" if by == "id" else "matched by number only"
        if one.status != two.status:
            name = "status differs"
        if one.day != two.day:
            name = "date differs"
        if abs(one.cents - two.cents) > tolerance:
            name = "amount differs"
        if one.currency != two.currency:
            name = "currency differs"
        of_line[line] = of_invoice[invoice] = name

    unknown = []
    for place, entry in enumerate(lines):
        if entry.id is None or entry.id not in by_id:
            unknown.append(place)
        elif by_id[entry.id] in of_invoice:
            of_line[place] = "duplicate key"
        else:
            pair(place, by_id[entry.id], "id")
    seen: set[int] = set()
    for place in sorted(unknown, key=lambda p: (lines[p].id is not None, p)):
        entry = lines[place]
        same = by_number.get(entry.number, []) if entry.number is not None else []
        if len(same) == 1 and same[0] not in of_invoice:
            pair(place, same[0], "number")
        elif same:
            of_line[place] = "duplicate key"
            if len(same) > 1:
                of_invoice.update({i: "duplicate key" for i in same if i not in of_invoice})
    numbers: set[str] = set()
    for place in sorted(unknown, key=lambda p: (lines[p].id is not None, p)):
        number = lines[place].number
        if place not in of_line and number is not None:
            if number in numbers:
                of_line[place] = "duplicate key"
            numbers.add(number)
    for place in unknown:
        known = lines[place].id
        if place not in of_line:
            of_line[place] = "duplicate key" if known in seen else "missing in the database"
            if known is not None:
                seen.add(known)
    return of_line, {i: of_invoice.get(i, "missing in the ledger") for i in range(len(invoices))}


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


NUMBERS = st.sampled_from([f"INV-{n}" for n in range(6)])
LINES = st.lists(entries(st.none() | st.integers(0, 8), st.none() | NUMBERS), min_size=1, max_size=12)
INVOICES = st.lists(
    st.builds(
        Entry,
        st.integers(0, 6),
        NUMBERS,
        cents=st.integers(999, 1002),
        day=st.integers(1, 2),
        status=st.sampled_from(["sent", "paid"]),
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
        totals = compare(conn, tolerance)
        rows = conn.execute("select class, line, invoice_id from pg_temp.finance_ledger_comparison").fetchall()
        compare(conn)
        exact = conn.execute(
            "select class, line, db_number from pg_temp.finance_ledger_comparison"
            " where class <> 'matched by number only'"
        ).fetchall()
        by_dbt = conn.execute(f"select class, line, db_number from ({differences}) as found".encode()).fetchall()

    assert Counter(exact) == Counter(by_dbt)
    assert tuple(totals) == CLASSES
    assert sum(t[0] for t in totals.values()) == len(lines)
    assert add_money(*(t[1] for t in totals.values())) == money_of(lines)
    assert sum(t[2] for t in totals.values()) == len(invoices)
    assert add_money(*(t[3] for t in totals.values())) == money_of(invoices)
    # No line and no invoice is in two rows.
    assert max(Counter(r[1] for r in rows if r[1] is not None).values(), default=1) == 1
    assert max(Counter(r[2] for r in rows if r[2] is not None).values(), default=1) == 1

    of_line, of_invoice = rule(lines, invoices, tolerance)
    found = {r[1] - 2: r[0] for r in rows if r[1] is not None}
    assert {place: found.get(place, "identical") for place in of_line} == of_line
    place_of = {id_of(e): place for place, e in enumerate(invoices)}
    found = {place_of[r[2]]: r[0] for r in rows if r[2] is not None}
    assert {place: found.get(place, "identical") for place in of_invoice} == of_invoice
    for name in CLASSES:
        assert totals[name] == (
            sum(c == name for c in of_line.values()),
            money_of(lines[p] for p, c in of_line.items() if c == name),
            sum(c == name for c in of_invoice.values()),
            money_of(invoices[p] for p, c in of_invoice.items() if c == name),
        ), name


def test_the_tolerance_is_in_cents_and_counts_as_equal(conn: psycopg.Connection) -> None:
    put(conn, [Entry(0, "A", 1005), Entry(1, "B", 994)], [Entry(0, "A", 1000), Entry(1, "B", 1000)])
    assert compare(conn, 5)["identical"] == (1, {"USD": 1005}, 1, {"USD": 1000})
    assert compare(conn, 5)["amount differs"] == (1, {"USD": 994}, 1, {"USD": 1000})
    assert compare(conn, 6)["identical"] == (2, {"USD": 1999}, 2, {"USD": 2000})


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
    assert found[0]["ledger_number"] == "N0"
    assert len(conn.execute("select staging.comparison_rows()").fetchall()) == 5
