"""Any sequence of backfills, issues, checks, corrections and reversals keeps every invariant."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any, ClassVar

import psycopg
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from tests.invoices.world import World

REFUSALS = ("BF301", "BF302", "BF033", "BF005")
"""What an operation may be refused with; anything else is a fault of ours."""


class Books(RuleBasedStateMachine):
    """One company in one transaction; each step in a savepoint, as a session would end it by a rollback."""

    conn: ClassVar[psycopg.Connection]

    @initialize()
    def open(self) -> None:
        self.conn.rollback()
        self.world = World.create(self.conn, next_number=5, interest_bps=1_200)
        self.facilities = [self.world.facility("Hillside"), self.world.facility("Lakeview")]
        self.customer = self.world.customer()
        self.checks: list[uuid.UUID] = []
        self.payments: list[uuid.UUID] = []
        self.conn.execute(
            "insert into billing.write_off_tolerances (company_id, currency, tolerance_cents, limit_cents)"
            " values (%s, 'USD', 20, 50)", [self.world.company],
        )  # fmt: skip
        self.highest = 0

    def attempt(self, query: str, *parameters: object) -> None:
        try:
            with self.conn.transaction():
                self.conn.execute(query.encode(), parameters)
        except psycopg.Error as exc:
            if exc.sqlstate not in REFUSALS:
                raise

    def invoices(self) -> list[dict[str, Any]]:
        return self.world.rows("select * from billing.invoices order by invoice_number")

    @rule(
        which=st.integers(0, 1), number=st.integers(1, 40), week=st.integers(1, 6), total=st.integers(1, 900),
        currency=st.sampled_from(["USD", "USD", "EUR"]), credit=st.booleans(),
    )  # fmt: skip
    def backfill(self, which: int, number: int, week: int, total: int, currency: str, credit: bool) -> None:
        number_, total_ = (f"CN-{number:04}", -total) if credit else (f"INV-{number:04}", total)
        try:
            with self.conn.transaction():
                self.world.backfill(self.facilities[which], number_, week=week, total=total_, currency=currency)
                self.conn.execute(
                    "update billing.invoices set customer_id = %s where invoice_number = %s", [self.customer, number_]
                )
        except psycopg.Error as exc:
            if exc.sqlstate not in REFUSALS:
                raise

    @rule(which=st.integers(0, 1), week=st.integers(1, 8), total=st.integers(1, 900), sent=st.booleans())
    def issue(self, which: int, week: int, total: int, sent: bool) -> None:
        try:
            with self.conn.transaction():
                made = self.world.forward(self.facilities[which], week=week, total=total)
                if sent:
                    self.world.send(made)
        except psycopg.Error as exc:
            if exc.sqlstate not in REFUSALS:
                raise

    @rule(which=st.integers(0, 1), cents=st.integers(1, 1_500), refs=st.lists(st.integers(1, 40).map(str), max_size=2))
    def receive(self, which: int, cents: int, refs: list[str]) -> None:
        check = self.world.check(self.facilities[which], cents, *refs)
        self.checks.append(check)
        self.world.allocate(check)

    @rule(cents=st.integers(1, 1_500), refs=st.lists(st.integers(1, 40), max_size=2), eur=st.booleans())
    def pay(self, cents: int, refs: list[int], eur: bool) -> None:
        named = ", ".join(f"INV-{ref}" for ref in refs)
        currency = "EUR" if eur else "USD"
        self.payments.append(self.world.payment(self.customer, cents, named, on="2024-06-01", currency=currency))

    @rule()
    def link(self) -> None:
        self.attempt("select backfill.run('payment_links')")

    @rule(source=st.integers(0, 50), to=st.integers(0, 50), cents=st.one_of(st.none(), st.integers(1, 500)))
    def apply(self, source: int, to: int, cents: int | None) -> None:
        found = self.invoices()
        sources = [*self.checks, *self.payments, *(row["id"] for row in found if row["total_cents"] < 0)]
        if sources and found:
            chosen = sources[source % len(sources)], found[to % len(found)]["id"]
            self.attempt("select billing.apply(%s, %s, %s, 'why')", *chosen, cents)

    @rule(at=st.integers(0, 50), back=st.booleans())
    def take_back(self, at: int, back: bool) -> None:
        standing = self.world.rows("select id, effective_from from billing.applications order by id")
        if standing:
            row = standing[at % len(standing)]
            self.attempt("select billing.unapply(%s, 'why', %s)", row["id"], row["effective_from"] if back else None)

    @rule(at=st.integers(0, 50))
    def withdraw(self, at: int) -> None:
        said = self.world.rows("select * from billing.application_refusals where withdrawn is null order by 3, 4")
        if said:
            row = said[at % len(said)]
            self.attempt("select billing.withdraw_refusal(%s, %s, 'why')", row["source_id"], row["invoice_id"])

    @rule(at=st.integers(0, 50), cents=st.integers(1, 100))
    def write_off(self, at: int, cents: int) -> None:
        if found := self.invoices():
            self.attempt("select billing.write_off(%s, %s, 'bad-debt', 'why')", found[at % len(found)]["id"], cents)

    @rule(at=st.integers(0, 50), fee=st.sampled_from([0, 0, 25]))
    def come_back(self, at: int, fee: int) -> None:
        if self.checks:
            check = self.checks[at % len(self.checks)]
            self.attempt("select * from billing.return_check(%s, '2024-07-01', 'no funds', %s)", check, fee)

    @rule(which=st.sampled_from([0, 1, 2]))
    def use_up(self, which: int) -> None:
        scope = (None, self.customer) if which == 2 else (self.facilities[which], None)
        self.attempt("select * from billing.allocate_on_account(%s, %s)", *scope)

    @rule(at=st.integers(0, 50))
    def unapply(self, at: int) -> None:
        if self.checks:
            self.world.unapply(self.checks[at % len(self.checks)])

    @rule(at=st.integers(0, 50))
    def allocate_again(self, at: int) -> None:
        if self.checks:
            check = self.checks[at % len(self.checks)]
            self.attempt("select * from billing.allocate_check(%s)", check)
            if self.world.left(check):
                assert self.world.allocate(check) == {}

    @rule(at=st.integers(0, 50))
    def void(self, at: int) -> None:
        if found := self.invoices():
            self.attempt("select billing.void_invoice(%s, 'why')", found[at % len(found)]["id"])

    @rule(at=st.integers(0, 50))
    def delete(self, at: int) -> None:
        if found := self.invoices():
            self.attempt("select billing.delete_invoice(%s, 'why', 'Grace')", found[at % len(found)]["id"])

    @rule(at=st.integers(0, 50), number=st.integers(1, 60))
    def renumber(self, at: int, number: int) -> None:
        if found := self.invoices():
            self.attempt(
                "select billing.correct_invoice(%s, jsonb_build_object('invoice_number', %s::text), 'why')",
                found[at % len(found)]["id"], f"INV-{number:04}",
            )  # fmt: skip

    @rule(at=st.integers(0, 50))
    def reverse(self, at: int) -> None:
        runs = self.world.rows(
            "select run_id from backfill.backfill_log where status = 'succeeded' order by completed_at"
        )
        if runs:
            self.attempt("select * from backfill.reverse_run(%s)", runs[at % len(runs)]["run_id"])

    @rule(day=st.dates().filter(lambda day: 2023 <= day.year <= 2026))
    def accrue(self, day: Any) -> None:
        self.world.conn.execute("select * from billing.accrue_overdue_interest(%s)", [day])

    @invariant()
    def nothing_is_broken(self) -> None:
        if not hasattr(self, "world"):
            return
        assert self.world.faults() == []
        sums = self.world.row(
            """
            select coalesce(max(billing.invoice_ordinal(i.invoice_number)), 0) as highest,
                coalesce(sum(i.amount_paid_cents), 0) - coalesce(
                    (select sum(amount_cents) from billing.application_rows where effective_until is null), 0)
                    as unexplained,
                (select coalesce(min(b.open_cents), 0) from billing.invoice_balances as b where b.total_cents > 0)
                    as least_open,
                (select greatest(max(b.open_cents), 0) from billing.invoice_balances as b where b.total_cents < 0)
                    as credit_above_zero,
                (select count(*) from billing.applications where source = 'opening') as openings,
                (select coalesce(min(amount_cents - applied_cents), 0) from billing.source_balances)
                    as least_unapplied,
                (select count(*) from billing.applications as a join billing.source_balances as s
                    on s.source = a.source and s.source_id = a.source_id where s.currency <> a.currency) as mixed,
                (select count(*) from billing.applications as a join billing.source_balances as s
                    on s.source = a.source and s.source_id = a.source_id
                    where a.effective_until is null and not s.usable) as of_gone_money,
                (select count(*) from billing.interest_accruals as a join billing.invoices as b on b.id = a.invoice_id
                    where b.origin = 'backfill') as retroactive
            from billing.invoices as i
            """
        )
        assert sums["least_open"] >= 0
        assert (sums["unexplained"], sums["retroactive"]) == (0, 0)
        assert sums["least_unapplied"] >= 0
        assert (sums["credit_above_zero"], sums["openings"], sums["mixed"], sums["of_gone_money"]) == (0, 0, 0, 0)
        next_number = self.world.next_number
        assert next_number > sums["highest"]
        assert next_number >= self.highest  # never down
        self.highest = next_number


@pytest.fixture
def books(database_url: str) -> Iterator[type[Books]]:
    with psycopg.connect(database_url) as conn:
        Books.conn = conn
        yield Books
        conn.rollback()


def test_any_sequence_keeps_every_invariant(books: type[Books]) -> None:
    chosen = settings(
        max_examples=15,
        stateful_step_count=25,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        database=None,
        derandomize=True,
    )
    run_state_machine_as_test(books, settings=chosen)
