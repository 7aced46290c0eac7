"""Money applied in rows: one open amount, what a person decides, credits, short pay, returned checks."""

from __future__ import annotations

import re

import psycopg
import pytest

from tests.invoices.books import customer, facility, invoice, link, refusal
from tests.invoices.world import World
from tests.place import ROOT

ROWS = (
    "select source, amount_cents, effective_from::text, effective_until::text, reason_code, reason"
    " from billing.applications where invoice_id = %s order by source, effective_from, amount_cents"
)


# ---- one open amount


def test_what_a_linked_payment_has_paid_is_paid_for_everybody(books: World) -> None:
    books.payment(customer(books), 10_000, "INV-0014", on="2024-01-20")
    assert link(books) == {"linked_by_number": 1, "linked_by_amount": 0, "written_off": 0}
    assert books.open("INV-0014") == 0
    assert "INV-0014" not in {row["invoice_number"] for row in books.rows("select * from billing.receivables")}
    check = books.check(facility(books), 10_000, on="2024-02-10")
    assert books.allocate(check) == {"INV-0015": 10_000}  # not the one that is paid
    books.unapply(check)
    books.conn.execute("update billing.invoices set status = 'void' where invoice_number in ('INV-0015', '2024')")
    assert books.allocate(check) == {}
    assert books.left(check) == 10_000
    accrued = books.rows("select * from billing.accrue_overdue_interest('2024-04-30')")
    assert accrued == []


def test_a_link_that_the_application_made_itself_counts_too(books: World) -> None:
    paid = books.payment(customer(books), 10_000)
    books.conn.execute("update billing.payments set invoice_id = %s where id = %s", [invoice(books, "INV-0014"), paid])
    assert (books.open("INV-0014"), books.left(paid)) == (0, 0)
    books.conn.execute("update billing.payments set status = 'failed' where id = %s", [paid])
    assert books.open("INV-0014") == 10_000


def test_what_an_invoice_only_says_is_paid_is_one_opening_row(books: World) -> None:
    books.conn.execute(
        "update billing.invoices set amount_paid_cents = 4000, status = 'partial' where invoice_number = 'INV-0014'"
    )
    (row,) = books.rows(ROWS, invoice(books, "INV-0014"))
    assert (row["source"], row["amount_cents"], row["effective_from"]) == ("opening", 4_000, "2024-01-01")
    assert books.open("INV-0014") == 6_000
    check = books.check(facility(books), 5_000, "INV-0014")
    books.allocate(check)
    assert books.open("INV-0014") == 1_000
    (opening,) = books.rows("select id from billing.applications where source = 'opening'")
    assert "the invoice itself says" in refusal(books, "select billing.unapply(%s, 'x')", opening["id"])


def test_a_payment_explains_what_the_invoice_said_was_paid_and_leaves_it_so(books: World) -> None:
    books.conn.execute(
        "update billing.invoices set amount_paid_cents = 10000, status = 'paid' where invoice_number = 'INV-0014'"
    )
    paid = books.payment(customer(books), 10_000, "INV-0014")
    link(books)
    assert books.invoice("INV-0014")["status"] == "paid"
    (row,) = books.rows(ROWS, invoice(books, "INV-0014"))
    assert (row["source"], row["amount_cents"]) == ("payment", 10_000)
    (kept,) = books.rows("select id from billing.applications where source_id = %s", paid)
    books.conn.execute("select billing.unapply(%s, 'it was for something else')", [kept["id"]])
    standing = books.rows("select source from billing.applications where effective_until is null")
    assert [row["source"] for row in standing] == ["opening"]  # the application's word stands
    assert books.invoice("INV-0014")["status"] == "paid"


def test_no_other_expression_computes_what_is_open(world: World) -> None:
    """The catalog of the database, read as text: total less paid stands in billing.balances_as_of() alone."""
    written = world.rows(
        """
        select p.oid::regprocedure::text as name, coalesce(nullif(p.prosrc, ''), pg_get_function_sqlbody(p.oid)) as text
        from pg_proc as p where p.pronamespace::regnamespace::text in ('billing', 'backfill', 'staging')
            and p.prokind = 'f'
        union all
        select c.oid::regclass::text, pg_get_viewdef(c.oid)
        from pg_class as c where c.relkind = 'v' and c.relnamespace::regnamespace::text in ('billing', 'backfill')
        """
    )
    subtracted = re.compile(r"total_cents\)*(?:::\w+)?\)*\s*-\s*|-\s*\(*(?:\w+\.)?amount_paid_cents")
    found = {row["name"] for row in written if row["text"] and subtracted.search(row["text"])}
    # The others take away or compare what they are about to write, not what is open.
    assert found - {"billing.end_applications(uuid[],text,date)", "billing.unapply_check(uuid)"} == {
        "billing.balances_as_of(date,uuid[])"
    }


def test_no_model_and_no_python_computes_it_either() -> None:
    subtracted = re.compile(r"(total_cents|amount_cents)\s*-\s*|-\s*[\w.]*(amount_paid|applied)_cents", re.IGNORECASE)
    texts = [
        path for folder in ("dbt_project/models", "dbt_project/tests", "runner")
        for path in (ROOT / folder).rglob("*") if path.suffix in (".sql", ".py", ".j2")
    ]  # fmt: skip
    assert len(texts) > 100
    assert [path.name for path in texts if subtracted.search(path.read_text(encoding="utf-8"))] == []


# ---- rows


def test_one_payment_for_two_invoices_is_two_rows(books: World) -> None:
    paid = books.payment(customer(books), 30_000, "INV-0014, INV-0015", on="2024-03-20")
    assert link(books)["linked_by_number"] == 2
    assert (books.open("INV-0014"), books.open("INV-0015"), books.left(paid)) == (0, 0, 0)
    rows = books.rows("select effective_from::text, run_id from billing.applications where source_id = %s", paid)
    assert [row["effective_from"] for row in rows] == ["2024-03-20"] * 2
    run = books.row("select run_id from backfill.backfill_log where backfill = 'payment_links'")["run_id"]
    assert {row["run_id"] for row in rows} == {run}
    books.conn.execute("select * from backfill.reverse_run(%s)", [run])
    assert (books.open("INV-0014"), books.open("INV-0015"), books.left(paid)) == (10_000, 20_000, 30_000)


def test_one_cent_over_stays_the_customers_credit_and_pays_later(books: World) -> None:
    paid = books.payment(customer(books), 10_001, "INV-0014")
    assert link(books)["linked_by_number"] == 0  # a person decides
    books.conn.execute("select billing.link_payment(%s, %s, 'one cent over')", [paid, invoice(books, "INV-0014")])
    assert (books.open("INV-0014"), books.left(paid)) == (0, 1)
    assert books.rows("select * from billing.payment_review where payment_id = %s", paid) == []
    applied = books.rows("select * from billing.allocate_on_account(p_customer => %s)", customer(books))
    assert [(row["invoice_number"], row["amount_cents"]) for row in applied] == [("INV-0015", 1)]
    assert (books.open("INV-0015"), books.left(paid)) == (19_999, 0)


def test_a_person_applies_a_payment_part_by_part(books: World) -> None:
    paid = books.payment(customer(books), 30_000, "INV-0014, INV-0015", on="2024-03-20")
    books.payment(customer(books), 10_001, "INV-0014", on="2024-03-20")
    assert link(books)["linked_by_number"] == 0  # together they exceed INV-0014
    first = books.apply(paid, invoice(books, "INV-0014"), 10_000)
    assert (first["source"], first["amount_cents"], first["currency"]) == ("payment", 10_000, "USD")
    books.apply(paid, invoice(books, "INV-0015"))
    assert (books.open("INV-0014"), books.open("INV-0015"), books.left(paid)) == (0, 0, 0)
    assert books.value("select invoice_id from billing.payments where id = %s", paid) is None  # it has two


def test_what_is_left_of_a_check_pays_a_later_invoice_when_asked_to(books: World) -> None:
    books.conn.execute("update billing.invoices set status = 'void' where invoice_number <> 'INV-0014'")
    check = books.check(facility(books), 15_000, on="2024-05-10")
    assert books.allocate(check) == {"INV-0014": 10_000}
    books.conn.execute("update billing.invoices set status = 'sent' where invoice_number = 'INV-0015'")
    found = books.rows("select invoice_number, amount_cents from billing.allocate_checks()")
    assert [(row["invoice_number"], row["amount_cents"]) for row in found] == [("INV-0015", 5_000)]
    assert (books.left(check), books.open("INV-0015")) == (0, 15_000)


def test_a_row_that_is_taken_back_stays_with_its_end(books: World) -> None:
    check = books.check(facility(books), 10_000, "INV-0014", on="2024-02-10")
    books.allocate(check)
    (row,) = books.rows("select id from billing.applications where source_id = %s", check)
    books.conn.execute("select billing.unapply(%s, 'it was for Lakeview', '2024-03-01')", [row["id"]])
    (ended,) = books.rows(ROWS, invoice(books, "INV-0014"))
    assert (ended["source"], ended["effective_from"], ended["effective_until"]) == ("check", "2024-02-10", "2024-03-01")
    assert (books.open("INV-0014"), books.left(check)) == (10_000, 10_000)
    as_of = "select open_cents from billing.balances_as_of(%s, array[%s])"
    days = {"2024-02-09": 10_000, "2024-02-10": 0, "2024-02-29": 0, "2024-03-01": 10_000}
    assert {day: books.value(as_of, day, invoice(books, "INV-0014")) for day in days} == days
    again = books.apply(check, invoice(books, "INV-0015"))
    assert str(again["effective_from"]) == "2024-03-01"  # it paid the other one until then


def test_a_no_is_remembered_until_it_is_withdrawn(books: World) -> None:
    paid = books.payment(customer(books), 10_000, "INV-0014")
    link(books)
    (row,) = books.rows("select id from billing.applications where source_id = %s", paid)
    books.conn.execute("select billing.unapply(%s, 'the bank booked it twice')", [row["id"]])
    assert books.open("INV-0014") == 10_000
    assert link(books)["linked_by_number"] == 0
    (first, *_) = books.rows("select * from billing.payment_review where payment_id = %s order by rank", paid)
    assert "a person said no: the bank booked it twice" in first["doubt"]
    assert "a person said no" in refusal(
        books, "select billing.apply(%s, %s, null, 'x')", paid, invoice(books, "INV-0014")
    )
    books.rows("select * from billing.allocate_on_account(p_customer => %s)", customer(books))
    assert books.open("INV-0014") == 10_000  # it went elsewhere
    (elsewhere,) = books.rows(
        "select id from billing.applications where source_id = %s and effective_until is null", paid
    )
    books.conn.execute("select billing.unapply(%s, 'nor there')", [elsewhere["id"]])
    books.conn.execute(
        "select billing.withdraw_refusal(%s, %s, 'the bank corrected it')", [paid, invoice(books, "INV-0014")]
    )
    assert link(books)["linked_by_number"] == 1
    assert books.open("INV-0014") == 0


# ---- short pay and write-offs


def tolerance(world: World, cents: int, limit: int | None = None) -> None:
    world.conn.execute(
        "insert into billing.write_off_tolerances (company_id, currency, tolerance_cents, limit_cents)"
        " values (%s, 'USD', %s, %s)",
        [world.company, cents, limit],
    )


@pytest.mark.parametrize(("allowed", "open_cents"), [(None, 2_000), (1_999, 2_000), (2_500, 0)])
@pytest.mark.parametrize("by", ["check", "payment"])
def test_a_rest_within_the_tolerance_is_written_off(
    world: World, by: str, allowed: int | None, open_cents: int
) -> None:
    hillside, ada = world.facility(), world.customer()
    made = world.issue(hillside, "INV-0001", 100_000, customer=ada)
    if allowed is not None:
        tolerance(world, allowed)
    if by == "check":
        source = world.check(hillside, 98_000, "INV-0001")
        world.allocate(source)
    else:
        source = world.payment(ada, 98_000, "INV-0001")
        link(world)
    assert world.open("INV-0001") == open_cents
    if open_cents:
        return
    assert world.invoice("INV-0001")["status"] == "paid"
    written = [row for row in world.rows(ROWS, made) if row["source"] == "write-off"]
    assert [(row["amount_cents"], row["reason_code"], row["effective_from"]) for row in written] == [
        (2_000, "short-pay", "2024-05-01")
    ]
    assert world.value("select write_offs_cents from billing.invoice_balances where invoice_id = %s", made) == 2_000
    (paying,) = world.rows("select id from billing.applications where source_id = %s and source = %s", source, by)
    world.conn.execute("select billing.unapply(%s, 'it bounced')", [paying["id"]])
    assert world.open("INV-0001") == 100_000  # the write-off goes with the money that was short
    assert world.faults() == []


def test_write_offs_by_themselves_stop_at_the_limit_of_a_facility_and_year(world: World) -> None:
    hillside = world.facility()
    tolerance(world, 100, limit=150)
    for number, month in enumerate(("2024-01-01", "2024-02-01", "2025-01-01"), 1):
        world.issue(hillside, f"INV-{number}", 1_000, on=month)
        world.allocate(world.check(hillside, 910, f"INV-{number}", on=month))
    assert [world.open(f"INV-{number}") for number in (1, 2, 3)] == [0, 90, 0]


def test_a_person_writes_off_under_a_code_of_its_own(books: World) -> None:
    made = invoice(books, "INV-0014")
    off = "select billing.write_off(%s, %s, %s, %s)"
    assert "needs a code" in refusal(books, off, made, 100, "short-pay", "why")
    assert "needs a reason" in refusal(books, off, made, 100, "bad-debt", " ")
    assert "10001 cents were asked for, and 10000 cents are open" in refusal(books, off, made, 10_001, "bad-debt", "x")
    books.conn.execute(off.encode(), [made, 10_000, "bad-debt", "they are gone"])
    assert (books.open("INV-0014"), books.invoice("INV-0014")["status"]) == (0, "paid")
    (row,) = books.rows("select id from billing.applications where source = 'write-off'")
    books.conn.execute("select billing.unapply(%s, 'they are back')", [row["id"]])
    assert (books.open("INV-0014"), books.invoice("INV-0014")["status"]) == (10_000, "sent")


# ---- checks that come back, or twice


def test_a_returned_check_ends_what_it_paid_and_never_pays_again(books: World) -> None:
    check = books.check(facility(books), 15_000, on="2024-02-10")
    books.allocate(check)
    rows = books.rows("select * from billing.return_check(%s, '2024-02-20', 'no funds', 2500)", check)
    fee = rows[-1]["invoice_number"]
    assert [(row["what"], row["invoice_number"], row["amount_cents"]) for row in rows] == [
        ("reopened", "INV-0014", 10_000), ("reopened", "INV-0015", 5_000), ("fee", fee, 2_500),
    ]  # fmt: skip
    assert (books.open("INV-0014"), books.open("INV-0015"), books.left(check)) == (10_000, 20_000, 0)
    assert (books.invoice(fee)["status"], books.invoice(fee)["total_cents"]) == ("draft", 2_500)
    assert books.invoice(fee)["currency"] == "USD"
    day = "select open_cents from billing.balances_as_of('2024-02-15', array[%s])"
    assert books.value(day, invoice(books, "INV-0014")) == 0  # it was paid then
    assert books.rows("select * from billing.allocate_checks()") == []
    assert "was returned on 2024-02-20" in refusal(books, "select billing.allocate_check(%s)", check)
    assert "was returned on" in refusal(books, "select billing.return_check(%s, '2024-02-21', 'x')", check)
    assert "it was returned" in refusal(
        books, "select billing.apply(%s, %s, 1, 'x')", check, invoice(books, "INV-0014")
    )
    (run,) = books.rows("select run_id from backfill.backfill_log where backfill like 'check 1 returned:%%'")
    books.conn.execute("select * from backfill.reverse_run(%s)", [run["run_id"]])
    assert (books.open("INV-0014"), books.open("INV-0015"), books.left(check)) == (0, 15_000, 0)
    assert books.faults() == []


@pytest.mark.parametrize(
    ("on", "fee", "why"),
    [
        ("2024-02-09", 0, "cannot have come back"),
        ("2999-01-01", 0, "cannot have come back"),
        (None, 0, "on no day"),
        ("2024-02-11", -1, "a fee of -1 cents is none"),
    ],
)
def test_a_return_that_cannot_be_is_refused(books: World, on: str | None, fee: int, why: str) -> None:
    check = books.check(facility(books), 10_000, on="2024-02-10")
    assert why in refusal(books, "select billing.return_check(%s, %s, 'x', %s)", check, on, fee)
    stray = books.check(None, 10_000, on="2024-02-10")
    assert "it names none" in refusal(books, "select billing.return_check(%s, '2024-02-11', 'x', 1)", stray)


def test_the_same_check_twice_pays_one_invoice_until_a_person_says_it_is_another(books: World) -> None:
    first = books.check(facility(books), 10_000, on="2024-02-10")
    second = books.check(facility(books), 10_000, on="2024-02-10")
    books.conn.execute("update billing.check_payments set check_number = '7'")
    found = books.rows("select invoice_number, amount_cents from billing.allocate_checks()")
    assert [row["invoice_number"] for row in found] == ["INV-0014"]
    held = first if books.left(first) else second
    assert "is here twice" in books.reviews(held)[""]
    assert books.rows("select * from billing.allocate_checks()") == []
    paid = books.rows("select invoice_number from billing.allocate_check(%s, true)", held)
    assert [row["invoice_number"] for row in paid] == ["INV-0015"]
    assert books.reviews(held) == {}


# ---- credits


def test_a_credit_stands_below_zero_and_pays_the_invoices_of_its_facility(world: World) -> None:
    hillside = world.facility()
    world.backfill(hillside, "INV-0001", week=1, total=10_000)
    memo = world.backfill(hillside, "CN-0004", week=1, total=-4_000)  # for the period that it corrects
    signs = world.rows("select invoice_number, open_cents, label from billing.receivables order by 1")
    assert [tuple(row.values()) for row in signs] == [("CN-0004", -4_000, "Credit"), ("INV-0001", 10_000, "Historical")]
    made = invoice(world, "INV-0001")
    world.apply(memo["id"], made, 3_000)
    assert (world.open("INV-0001"), world.open("CN-0004"), world.invoice("CN-0004")["status"]) == (
        7_000,
        -1_000,
        "partial",
    )
    applied = world.rows("select * from billing.allocate_on_account(p_facility => %s)", hillside)
    assert [(row["source"], row["label"], row["amount_cents"]) for row in applied] == [("credit", "CN-0004", 1_000)]
    assert (world.open("INV-0001"), world.open("CN-0004"), world.invoice("CN-0004")["status"]) == (6_000, 0, "paid")
    other = world.facility("Lakeview")
    world.backfill(other, "INV-0002", week=1)
    fresh = world.backfill(hillside, "CN-0005", week=2, total=-100)
    assert "two facilities" in refusal(
        world, "select billing.apply(%s, %s, 1, 'x')", fresh["id"], invoice(world, "INV-0002")
    )
    assert "it is a credit" in refusal(
        world, "select billing.apply(%s, %s, 1, 'x')", world.check(hillside, 100), fresh["id"]
    )
    with pytest.raises(psycopg.Error, match="has 4000 cents paid: it cannot be void"), world.conn.transaction():
        world.conn.execute("select billing.void_invoice(%s, 'why')", [memo["id"]])
    assert world.faults() == []


def test_a_credit_of_one_facility_pays_no_other_of_its_customer(world: World) -> None:
    hillside, lakeview, ada, bob = world.facility(), world.facility("Lakeview"), world.customer(), world.customer("Bob")
    world.issue(lakeview, "INV-0001", 10_000, customer=ada)
    world.issue(hillside, "INV-0002", 10_000, customer=bob, on="2024-01-08")
    world.issue(hillside, "CN-0003", -4_000, customer=ada, on="2024-01-15")
    assert world.rows("select * from billing.allocate_on_account(p_customer => %s)", ada) == []
    assert world.rows("select * from billing.allocate_on_account(p_facility => %s)", hillside) == []  # it is Bob's
    world.issue(hillside, "INV-0004", 10_000, customer=ada, on="2024-02-01")
    applied = world.rows("select * from billing.allocate_on_account(p_customer => %s)", ada)
    assert [(row["invoice_number"], row["amount_cents"]) for row in applied] == [("INV-0004", 4_000)]


def test_a_reference_with_an_account_number_is_in_no_message(books: World) -> None:
    paid = books.payment(customer(books), 100, "DE89 3704 0044 0532 0130 00")
    said = refusal(books, "select billing.apply(%s, %s, 101, 'x')", paid, invoice(books, "INV-0014"))
    assert str(paid) in said
    assert "3704" not in said


def test_two_kinds_of_numbers_are_never_one(world: World) -> None:
    hillside = world.facility()
    world.backfill(hillside, "INV-0004", week=1)
    world.backfill(hillside, "INV-0003", week=2)
    world.backfill(hillside, "CN-0004", week=1, total=-4_000)
    check = world.check(hillside, 5_000, "CN-4")
    world.allocate(check)
    assert world.reviews(check) == {"CN-4": "nothing is outstanding under it: CN-0004 is sent"}
    assert world.allocate(world.check(hillside, 10_000, "4")) == {"INV-0004": 5_000, "INV-0003": 5_000}
