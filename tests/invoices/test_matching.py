"""Currencies that never mix, and matching that an accountant would sign."""

from __future__ import annotations

import psycopg
import pytest

from tests.invoices.books import customer, facility, invoice, link, refusal
from tests.invoices.world import World

# ---- currencies


def test_money_pays_invoices_of_its_own_currency_only(books: World) -> None:
    check = books.check(facility(books), 30_000, "INV-0016", on="2024-05-10")
    assert books.allocate(check) == {"INV-0014": 10_000, "INV-0015": 20_000}
    assert books.reviews(check) == {"INV-0016": "INV-0016 is in EUR, the check in USD"}
    euros = books.check(facility(books), 40_000, on="2024-05-10")
    books.conn.execute("update billing.check_payments set currency = 'EUR' where id = %s", [euros])
    assert books.allocate(euros) == {"INV-0016": 30_000}
    assert books.left(euros) == 10_000
    rest = books.check(facility(books), 1_000, on="2024-05-11")
    assert "it is in USD, the invoice in EUR" in refusal(
        books, "select billing.apply(%s, %s, 1, 'x')", rest, invoice(books, "INV-0016")
    )


def test_a_currency_that_is_none_is_refused(books: World) -> None:
    check = books.check(facility(books), 30_000)
    with pytest.raises(psycopg.errors.CheckViolation), books.conn.transaction():
        books.conn.execute("update billing.check_payments set currency = 'XXQ' where id = %s", [check])
    # Where the column was there before us, without our constraint.
    books.conn.execute("alter table billing.check_payments drop constraint check_payments_currency_is_known")
    books.conn.execute("update billing.check_payments set currency = 'XXQ' where id = %s", [check])
    assert "'XXQ', which is no currency" in refusal(books, "select billing.allocate_check(%s)", check)
    assert books.rows("select * from billing.allocate_checks()") == []
    assert books.reviews(check) == {"": "'XXQ' is no currency"}


def test_the_companys_currency_is_that_of_money_without_one(books: World) -> None:
    books.conn.execute("update billing.settings set currency = 'EUR' where company_id = %s", [books.company])
    check = books.check(facility(books), 30_000, on="2024-05-10")
    assert books.allocate(check) == {"INV-0016": 30_000}


def test_an_application_without_currencies_works_as_before(books: World) -> None:
    books.conn.execute("update billing.invoices set currency = null")
    check = books.check(facility(books), 30_000, on="2024-05-10")
    assert books.allocate(check) == {"INV-0014": 10_000, "INV-0015": 20_000}
    paid = books.payment(customer(books), 100)
    assert "the invoice in a currency not known" in refusal(
        books, "select billing.apply(%s, %s, 1, 'x')", paid, invoice(books, "2024")
    )


# ---- matching that an accountant would sign


@pytest.mark.parametrize("reference", ["INV 0015", "INV0015", "INV-15", "inv-0015", "Invoice INV-0015.", "#INV-0015"])
def test_a_number_with_its_letters_names_its_invoice_however_it_is_written(books: World, reference: str) -> None:
    books.payment(customer(books), 5_000, reference)
    assert link(books)["linked_by_number"] == 1
    assert books.open("INV-0015") == 15_000


@pytest.mark.parametrize(
    ("reference", "cents", "known", "number", "doubt"),
    [
        ("March 2024 retainer", 777, False, "2024", "digits alone name no invoice"),
        ("March 2024 retainer", 777, True, "2024", "less than is open"),
        ("2024", 50_000, False, "2024", "the customer of one of them is not known"),
        ("INV-0015", 100, False, "INV-0015", "the customer of one of them is not known"),
        ("0015", 20_000, True, "INV-0015", "the number may be another invoice as well"),
        ("INV-0015", 20_001, True, "INV-0015", "more than is open"),
        ("INV-0014 and INV-0015", 20_000, True, "INV-0015", "names 2 invoices, of which 300.00 is open"),
    ],
)
def test_what_an_accountant_would_not_sign_is_ranked_in_the_review(
    books: World, reference: str, cents: int, known: bool, number: str, doubt: str
) -> None:
    paid = books.payment(customer(books) if known else None, cents, reference)
    assert link(books) == {"linked_by_number": 0, "linked_by_amount": 0, "written_off": 0}
    (first, *_) = books.rows("select * from billing.payment_review where payment_id = %s order by rank", paid)
    assert first["invoice_number"] == number
    assert doubt in first["doubt"]


def test_digits_alone_suffice_with_the_customer_and_the_exact_amount(books: World) -> None:
    books.payment(customer(books), 50_000, "2024")
    assert link(books)["linked_by_number"] == 1
    books.conn.execute("update billing.invoices set invoice_number = 'INV-2024' where invoice_number = '2024'")
    books.payment(customer(books), 20_000, "15")  # one series now
    assert link(books)["linked_by_number"] == 1
    assert books.open("INV-0015") == 0
