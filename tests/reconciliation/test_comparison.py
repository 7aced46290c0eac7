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


def nearest(number: str | None, invoices: list[Entry]) -> list[int]:
    """The invoices that a number may mean. Digits alone mean none in a company of two series, and no credit."""
    series: dict[int, set[str]] = {}
    for invoice in invoices:
        if invoice.cents > 0:
            series.setdefault(invoice.company, set()).add(digits(invoice.number or "")[0])
    near = [
        (found, place)
        for place, invoice in enumerate(invoices)
        if (found := fit(number, invoice.number))
        and (found < 3 or (invoice.cents > 0 and len(series[invoice.company]) == 1))
    ]
    return [place for found, place in near if found == min(near)[0]]


def names_another(entry: Entry, place: int, invoices: list[Entry]) -> bool:
    """Whether the number of a line that has the id of an invoice is another's."""
    if entry.id is None or entry.id != invoices[place].id or entry.number is None:
        return False
    found = fit(entry.number, invoices[place].number)
    same = [fit(entry.number, i.number) for i in invoices if i.company == invoices[place].company]
    return found is None or any(near is not None and near < found for near in same)


def pieces_of(
    parts: list[int], place: int, lines: list[Entry], invoices: list[Entry], tolerance: int
) -> list[tuple[list[int], str]]:
    """Lines of an invoice that are an entry each, that of the invoice first, with the class of those that are not."""
    invoice = invoices[place]
    groups: dict[tuple[bool, bool, str | None], list[int]] = {}
    for p in parts:
        key = (names_another(lines[p], place, invoices), lines[p].currency != invoice.currency, lines[p].currency)
        groups.setdefault(key, []).append(p)
    found: list[tuple[tuple[bool, bool, int], list[int], str]] = []
    for (other, foreign, _), group in groups.items():
        amounts = [lines[p].cents for p in group]
        again = (
            not other
            and not foreign
            and len(group) > 1
            and len(set(amounts)) == 1
            and abs(sum(amounts) - invoice.cents) > tolerance >= abs(amounts[0] - invoice.cents)
        )
        name = "number differs" if other else "duplicate key" if again else "currency differs"
        pieces = [[p] for p in group] if again else [group]
        found.extend(((other, foreign, piece[0]), piece, name) for piece in pieces)
    return [(piece, name) for _, piece, name in sorted(found)]


def rule(lines: list[Entry], invoices: list[Entry], tolerance: int) -> tuple[dict[int, str], dict[int, str]]:
    """The rule in plain words of Python: class of each line and of each invoice, by place."""
    of_line: dict[int, str] = {}
    of_invoice: dict[int, str] = {}
    entries_of: dict[int, list[int]] = {}
    unclear: set[int] = set()
    by_id = {entry.id: place for place, entry in enumerate(invoices)}
    for place, entry in enumerate(lines):
        named = [by_id[entry.id]] if entry.id in by_id else nearest(entry.number, invoices)
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
        (kept, _), *others = pieces_of(parts, place, lines, invoices, tolerance)
        for piece, name in others:
            of_line.update(dict.fromkeys(piece, name))
        last = max(kept, key=lambda p: (lines[p].day, p))
        name = "identical" if any(lines[p].id == invoice.id for p in parts) else "matched by number only"
        if lines[last].status != invoice.status:
            name = "status differs"
        if min(lines[p].day for p in kept) != invoice.day:
            name = "date differs"
        if abs(sum(lines[p].cents for p in kept) - invoice.cents) > tolerance:
            name = "amount differs"
        if lines[kept[0]].currency != invoice.currency:
            name = "currency differs"
        if names_another(lines[kept[0]], place, invoices):
            name = "number differs"
        of_invoice[place] = name
        of_line.update(dict.fromkeys(kept, name))
    return of_line, of_invoice


def entries(ids: st.SearchStrategy[int | None], numbers: st.SearchStrategy[str | None]) -> st.SearchStrategy[Entry]:
    return st.builds(
        Entry,
        ids,
        numbers,
        cents=st.sampled_from([999, 1000, 1000, 1001, 2000, -1000]),
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
        cents=st.sampled_from([999, 1000, 1000, 1001, 2000, -1000]),
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
