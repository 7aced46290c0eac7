"""Ledger against invoices: classes partition both sides, for any pair of them, and follow the rule."""

from __future__ import annotations

from collections import Counter
from decimal import Decimal

import psycopg
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from runner import gates
from runner.money import add_money
from runner.settings import Settings
from runner.systems import SYSTEMS
from tests.reconciliation.ledgers import CLASSES, Entry, compare, id_of, money_of, put


def digits(number: str) -> tuple[str, int]:
    """Letters and number of an invoice number."""
    letters, _, rest = number.rpartition("-")
    return letters.upper(), int(rest)


def fit(reference: str | None, number: str | None) -> int | None:
    """1 letter for letter, 2 the same series, 3 a bare number; none: another number."""
    if reference is None or number is None:
        return None
    if reference.upper() == number.upper():
        return 1
    (letters, value), (others, other) = digits(reference), digits(number)
    if value != other:
        return None
    return 2 if letters == others else 3 if letters in ("", "INV") else None


def named_by(entry: Entry, invoices: list[Entry]) -> tuple[list[int], str]:
    """The invoices that a line may mean, and how it says so."""
    same = [place for place, invoice in enumerate(invoices) if entry.id is not None and invoice.id == entry.id]
    if same:
        return same, "id"
    series: dict[int, set[str]] = {}
    for invoice in invoices:
        series.setdefault(invoice.company, set()).add(digits(invoice.number or "")[0])
    near = [
        (found, place)
        for place, invoice in enumerate(invoices)
        if (found := fit(entry.number, invoice.number)) and (found < 3 or len(series[invoice.company]) == 1)
    ]
    return [place for found, place in near if found == min(near)[0]], "number"


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
            and fit(lines[p].number, invoice.number) is None
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
