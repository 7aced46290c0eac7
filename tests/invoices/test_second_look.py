"""What a second reader of receivables found: the same money, the same day and the same lock, seen from elsewhere."""

from __future__ import annotations

import uuid

import psycopg
import pytest

from tests.invoices.books import customer, facility, invoice, link, refusal
from tests.invoices.world import World


def apply(world: World, source: uuid.UUID, number: str, cents: int | None = None, on: str | None = None) -> uuid.UUID:
    """Apply money as a person; the row's id."""
    row = world.id(
        "select id from billing.apply(%s, %s, %s, 'a person said so', %s)", source, invoice(world, number), cents, on
    )
    assert isinstance(row, uuid.UUID)
    return row


def unapply(world: World, row: uuid.UUID, on: str | None = None) -> None:
    world.conn.execute("select billing.unapply(%s, 'taken back', %s)", [row, on])


def open_on(world: World, number: str, day: str) -> int:
    cents = world.value(
        "select open_cents from billing.balances_as_of(%s, array[%s::uuid])", day, invoice(world, number)
    )
    assert isinstance(cents, int)
    return cents


def says(world: World, number: str, cents: int) -> None:
    """The application marks an invoice as paid so far, without a row."""
    world.conn.execute(
        "update billing.invoices set amount_paid_cents = %s, status = case when total_cents = %s then 'paid'"
        " else 'partial' end where invoice_number = %s",
        [cents, cents, number],
    )


@pytest.mark.parametrize(("cents", "left_open"), [(6_000, 4_000), (10_000, 0), (4_000, 0), (5_000, 4_000)])
def test_a_payment_explains_first_what_the_invoice_said_was_paid(books: World, cents: int, left_open: int) -> None:
    says(books, "INV-0014", 6_000)
    books.payment(customer(books), cents, "INV-0014")
    link(books)
    # More than the open 40.00 is the payment of the 60.00, or all of it; 40.00 is the rest.
    assert books.open("INV-0014") == left_open
    assert books.faults() == []


def test_what_is_void_stays_void_when_its_money_is_taken_back(books: World) -> None:
    check = books.check(facility(books), 10_000, "INV-0014")
    row = apply(books, check, "INV-0014")
    books.conn.execute("update billing.invoices set status = 'void' where invoice_number = 'INV-0014'")
    unapply(books, row)
    assert (books.invoice("INV-0014")["status"], books.open("INV-0014")) == ("void", 0)


def test_a_link_that_was_never_counted_takes_nothing_from_what_a_check_paid(books: World) -> None:
    check = books.check(facility(books), 4_000)
    apply(books, check, "INV-0014")
    paid = books.payment(customer(books), 6_000)
    books.conn.execute("update billing.payments set invoice_id = %s where id = %s", [invoice(books, "INV-0014"), paid])
    unapply(books, paid)
    found = books.invoice("INV-0014")
    assert (found["amount_paid_cents"], found["status"], books.open("INV-0014")) == (4_000, "partial", 6_000)
    assert books.faults() == []


def test_a_part_of_a_check_with_another_day_is_refused_by_name(books: World) -> None:
    check = books.check(facility(books), 10_000, on="2024-02-10")
    paid = books.payment(customer(books), 4_000, on="2024-02-10")
    apply(books, check, "INV-0014", 6_000)
    row = apply(books, paid, "INV-0014")
    unapply(books, row, "2024-06-01")
    again = "select billing.apply(%s, %s, 4000, 'the rest', %s)"
    for on in (None, "2024-06-01"):
        assert "a part of it counts from 2024-02-10 already" in refusal(
            books, again, check, invoice(books, "INV-0014"), on
        )
    assert open_on(books, "INV-0014", "2024-03-31") == 0


def test_what_explained_a_paid_invoice_and_was_ended_counts_once_before_its_end(books: World) -> None:
    says(books, "INV-0014", 10_000)
    row = apply(books, books.payment(customer(books), 10_000, on="2024-02-01"), "INV-0014")
    unapply(books, row, "2024-06-01")
    assert [open_on(books, "INV-0014", day) for day in ("2024-03-31", "2024-07-01")] == [0, 0]


def test_a_day_that_a_person_gives_is_one_on_which_the_money_was_free(books: World) -> None:
    paid = books.payment(customer(books), 10_000, on="2024-02-01")
    unapply(books, apply(books, paid, "INV-0014"), "2024-06-01")
    query = "select billing.apply(%s, %s, null, 'x', %s)"
    other = invoice(books, "INV-0015")
    assert "on 2024-03-01 it paid another invoice: it is free from 2024-06-01 on" in refusal(
        books, query, paid, other, "2024-03-01"
    )
    for day in ("2999-01-01", "infinity"):
        assert "is still to come" in refusal(books, query, paid, other, day)
    apply(books, paid, "INV-0015", on="2024-06-01")
    assert (open_on(books, "INV-0015", "2024-04-30"), books.open("INV-0015")) == (20_000, 10_000)


def test_a_statement_ends_at_what_is_open_whoever_the_credit_belongs_to(books: World) -> None:
    where, ada = facility(books), customer(books)
    credit = books.issue(where, "CN-0001", -4_000, on="2024-01-05")  # of nobody but the facility
    apply(books, credit, "INV-0014")
    void = "update billing.invoices set status = 'void' where invoice_number = '2024'"
    apply(books, books.check(where, 50_000), "2024")
    books.conn.execute(void.encode())  # by the application: it does not say since when
    for debtor, by in ((where, "facility"), (ada, "customer")):
        open_now = books.rows(
            "select currency, open_cents from billing.aging('2024-12-31', %s) where debtor_id = %s order by 1",
            by, debtor,
        )  # fmt: skip
        told = books.rows(
            "select distinct on (currency) currency, balance_cents as open_cents from ("
            "select *, row_number() over () as n from billing.statement(%s, '2024-01-01', '2024-12-31')) as s"
            " order by currency, n desc",
            debtor,
        )
        assert told == open_now, by


def test_a_credit_that_pays_somebody_elses_invoice_is_used_up_on_its_own_statement(books: World) -> None:
    where, bob = facility(books), books.customer("Bob")
    credit = books.issue(where, "CN-0001", -4_000, customer=bob, on="2024-01-05")
    books.conn.execute("update billing.invoices set customer_id = null where invoice_number = 'INV-0014'")
    apply(books, credit, "INV-0014")
    rows = books.rows("select what, balance_cents from billing.statement(%s, '2024-01-01', '2024-12-31')", bob)
    assert [tuple(row.values()) for row in rows] == [
        ("opening balance", 0), ("credit", -4_000), ("credit given", 0)
    ]  # fmt: skip


def test_an_invoice_is_not_void_while_it_was_paid(books: World) -> None:
    row = apply(books, books.payment(customer(books), 10_000, on="2024-02-01"), "INV-0014")
    unapply(books, row, "2024-06-01")
    void = "select billing.void_invoice(%s, 'x', 'me', '2024-03-01')"
    with (
        pytest.raises(Exception, match="cannot be void from 2024-03-01 on: it was paid then"),
        books.conn.transaction(),
    ):
        books.conn.execute(void.encode(), [invoice(books, "INV-0014")])


def allow(world: World, cents: int, limit: int, currency: str = "USD") -> None:
    world.conn.execute(
        "insert into billing.write_off_tolerances (company_id, currency, tolerance_cents, limit_cents)"
        " values (%s, %s, %s, %s)",
        [world.company, currency, cents, limit],
    )


def test_the_limit_of_a_year_is_that_of_the_day_that_is_written_and_of_each_currency(world: World) -> None:
    hillside = world.facility()
    for currency in ("USD", "EUR"):
        allow(world, 100, 100, currency)
    world.issue(hillside, "INV-1", 1_000, on="2024-01-01")
    world.allocate(world.check(hillside, 910, "INV-1", on="2024-01-02"))
    world.issue(hillside, "INV-2", 1_000, on="2024-02-01")
    world.allocate(world.check(hillside, 910, "INV-2", on="2023-12-30"))  # counts from the issue: 2024, too
    assert [world.open(f"INV-{number}") for number in (1, 2)] == [0, 90]
    world.issue(hillside, "INV-3", 1_000, on="2025-01-01")
    world.issue(hillside, "INV-4", 1_000, on="2025-01-01", currency="EUR")
    one = world.check(hillside, 910, "INV-3", on="2025-01-02")
    two = world.check(hillside, 910, "INV-4", on="2025-01-03")
    world.conn.execute("update billing.check_payments set currency = 'EUR' where id = %s", [two])
    world.conn.execute("select billing.allocate_checks(array[%s, %s]::uuid[])", [one, two])
    assert [world.open(f"INV-{number}") for number in (3, 4)] == [0, 0]


@pytest.mark.parametrize(
    "call",
    [
        "select billing.apply(%(check)s, %(other)s, null, 'x')",
        "select billing.allocate_check(%(check)s)",
        "select billing.unapply_check(%(check)s)",
    ],
)
def test_a_check_that_an_application_is_applying_is_waited_for(database_url: str, call: str) -> None:
    with psycopg.connect(database_url) as conn:
        world = World.create(conn)
        hillside = world.facility()
        one, other = (world.issue(hillside, f"INV-{n}", 10_000) for n in (1, 2))
        check = world.check(hillside, 10_000)
    with psycopg.connect(database_url) as application, psycopg.connect(database_url) as person:
        application.execute(
            "insert into billing.check_payment_applications (id, company_id, check_payment_id, invoice_id,"
            " amount_cents) values (gen_random_uuid(), %s, %s, %s, 10000)",
            [world.company, check, one],
        )
        person.execute("set lock_timeout = '300ms'")
        with pytest.raises(psycopg.errors.LockNotAvailable), person.transaction():
            person.execute(call.encode(), {"check": check, "other": other})
        application.execute(
            "update billing.invoices set amount_paid_cents = 10000, status = 'paid' where id = %s", [one]
        )
        application.commit()
        if "apply(" in call and "unapply" not in call:
            with pytest.raises(psycopg.Error, match="nothing of it is left"), person.transaction():
                person.execute(call.encode(), {"check": check, "other": other})
        else:
            person.execute(call.encode(), {"check": check, "other": other})
        person.commit()
    with psycopg.connect(database_url) as conn:
        after = World(conn, world.company)
        paid = after.value("select coalesce(sum(amount_cents), 0)::bigint from billing.check_payment_applications")
        assert paid == after.value("select sum(amount_paid_cents)::bigint from billing.invoices")
        assert paid == (0 if "unapply" in call else 10_000)
        assert after.faults() == []
