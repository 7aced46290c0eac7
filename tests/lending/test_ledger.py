"""The ledger by itself: sums to zero, immutable, closed months, one way in, balances at any date, and the outbox."""

from __future__ import annotations

import threading
import uuid

import psycopg
import pytest
from psycopg.types.json import Jsonb

from tests.engine.words import refused
from tests.lending.book import Book, Row, transaction


@pytest.fixture
def book(conn: psycopg.Connection) -> Book:
    return Book(conn)


@pytest.fixture
def posted(book: Book) -> Book:
    """Two payments of 1,000.00 on M-1, settled in February and March 2025, written by a run and committed."""
    book.linked(transaction(1), transaction(2, "2025-03-03"))
    book.backfill()
    book.conn.commit()
    return book


def write(
    book: Book, *legs: tuple[str, int], reference: str = "x:1", at: str = "now()", asset: str = "CAD/2"
) -> uuid.UUID:
    """A transaction by hand."""
    made = book.value(
        "insert into ledger.transactions (id, reference, effective_at)"
        f" values (gen_random_uuid(), %s, {at}) returning id",
        reference,
    )
    assert isinstance(made, uuid.UUID)
    for place, (account, amount) in enumerate(legs, 1):
        book.do("insert into ledger.accounts (account) values (%s) on conflict do nothing", account)
        book.do("insert into ledger.postings values (%s, %s, %s, %s, %s)", made, place, account, asset, amount)
    return made


def refusal(book: Book, sqlstate: str, *statements: str) -> str:
    with pytest.raises(psycopg.Error) as caught, book.conn.transaction():
        for statement in statements:
            book.do(statement)
        book.do("set constraints all immediate")
    assert caught.value.sqlstate == sqlstate, refused(caught)
    return refused(caught)


def test_what_does_not_sum_to_zero_is_refused_at_the_commit(book: Book) -> None:
    write(book, ("world", -100), ("a:1", 99))
    with pytest.raises(psycopg.Error) as caught:
        book.conn.commit()
    assert caught.value.sqlstate == "BF042"
    assert "transaction x:1 does not sum to zero: -1 CAD/2" in refused(caught)
    book.conn.rollback()
    assert book.entries() == {}


def test_each_asset_sums_to_zero_by_itself(book: Book) -> None:
    made = write(book, ("world", -100))
    book.do("insert into ledger.accounts (account) values ('a')")
    book.do("insert into ledger.postings values (%s, 2, 'a', 'USD/2', 100)", made)
    with pytest.raises(psycopg.Error, match="does not sum to zero: -100 CAD/2, 100 USD/2"):
        book.conn.commit()


def test_a_transaction_without_postings_is_refused_at_the_commit(book: Book) -> None:
    write(book)
    with pytest.raises(psycopg.Error, match="transaction x:1 has no postings"):
        book.conn.commit()


def test_postings_written_one_by_one_that_end_at_zero_are_kept(book: Book) -> None:
    write(book, ("world", -100), ("a", 60), ("b", 40))
    book.conn.commit()
    assert book.balances() == {"world": -100, "a": 60, "b": 40}
    assert book.rows("select * from ledger.unbalanced") == []


@pytest.mark.parametrize(
    "statement",
    [
        "update ledger.postings set amount = amount * 2",
        "update ledger.transactions set effective_at = now()",
        "delete from ledger.postings",
        "delete from ledger.transactions",
        "truncate ledger.postings",
        "insert into ledger.postings select id, 9, 'world', 'CAD/2', 5 from ledger.transactions",
    ],
)
def test_the_ledger_is_not_rewritten(posted: Book, statement: str) -> None:
    assert refusal(posted, "BF020", statement)
    assert posted.value("select count(*) from ledger.postings") == 8


def test_a_closed_month_takes_nothing_and_the_current_one_cannot_be_closed(posted: Book) -> None:
    posted.value("select ledger.close_period('2025-02', 'audited')")
    posted.value("select ledger.close_period('2025-02', 'twice is harmless')")
    told = refusal(
        posted, "BF021",
        "insert into ledger.transactions (id, reference, effective_at)"
        " values (gen_random_uuid(), 'late', '2025-02-28 23:59:59Z')",
    )  # fmt: skip
    assert "transaction late is refused: 2025-02 was closed on" in told
    assert "by postgres (audited)" in told
    write(posted, ("world", -1), ("a", 1), at="'2025-03-01 00:00Z'")
    posted.conn.commit()
    now = posted.value("select to_char(now() at time zone 'UTC', 'YYYY-MM')")
    assert f"month {now} cannot be closed: it is not over" in refusal(
        posted, "BF021", f"select ledger.close_period('{now}', 'x')"
    )
    refusal(posted, "BF020", "delete from ledger.closed_period")


def test_nothing_takes_effect_after_it_was_recorded(book: Book) -> None:
    with pytest.raises(psycopg.errors.CheckViolation):
        write(book, ("world", -1), ("a", 1), at="now() + interval '1 second'")


def test_closing_waits_for_a_posting_under_way(posted: Book, database_url: str) -> None:
    write(posted, ("world", -1), ("a", 1), at="'2025-04-01 00:00Z'")
    done = threading.Event()

    def close() -> None:
        with psycopg.connect(database_url) as other:
            other.execute("select ledger.close_period('2025-04', 'audited')")
        done.set()

    thread = threading.Thread(target=close)
    thread.start()
    assert not done.wait(0.5)
    posted.conn.commit()
    assert done.wait(20)
    thread.join()
    assert "x:1" in posted.entries()


def test_recording_again_is_a_no_op_and_other_content_is_an_error(posted: Book) -> None:
    payment = posted.payment("rotessa:tx:1")
    record = "select * from ledger.record_payment_collection(%s, %s)"
    entry = posted.row(record, payment["id"], "2025-02-03 00:00Z")
    assert entry["id"] == payment["ledger_transaction_id"]
    assert posted.row(record, payment["id"], None) == entry
    assert posted.value("select count(*) from ledger.transactions") == 2
    told = refusal(posted, "BF040", f"select ledger.record_payment_collection('{payment['id']}', '2025-02-04 00:00Z')")
    assert "it took effect at 2025-02-03 00:00:00, not at 2025-02-04 00:00:00" in told
    told = refusal(
        posted, "BF040",
        f"update lending.payments set amount_cents = 5 where id = '{payment['id']}'",
        f"select ledger.record_payment_collection('{payment['id']}')",
    )  # fmt: skip
    assert "line 1: world -100000 CAD/2 in the ledger, world -5 CAD/2 by the payment" in told


def test_live_posts_now_and_only_what_is_approved_and_settled(book: Book) -> None:
    mortgage = book.linked()
    entry: Row = book.row("select * from ledger.record_payment_collection(%s)", book.live(1, mortgage))
    assert entry["effective_at"] == entry["recorded_at"] == book.value("select now()")
    for number, more, why in (
        (2, {"status": "pending"}, "it is pending"),
        (3, {"settlement_date": None}, "it has no settlement date"),
        (4, {"settlement_date": "2999-01-01"}, "it settles on 2999-01-01 only"),
    ):
        payment = book.live(number, mortgage, **more)
        assert why in refusal(book, "BF045", f"select ledger.record_payment_collection('{payment}')")
    payment = book.live(5, mortgage)
    assert "it cannot take effect at" in refusal(
        book, "BF045", f"select ledger.record_payment_collection('{payment}', now() + interval '1 day')"
    )
    assert "there is no payment" in refusal(book, "BF009", f"select ledger.record_payment_collection('{uuid.uuid4()}')")


def test_two_sessions_record_one_payment_and_it_is_posted_once(book: Book, database_url: str) -> None:
    payment = book.live(1, book.linked())
    book.conn.commit()
    first = book.row("select * from ledger.record_payment_collection(%s)", payment)
    got: list[object] = []

    def other() -> None:
        with psycopg.connect(database_url) as conn:
            got.append(Book(conn).row("select * from ledger.record_payment_collection(%s)", payment)["id"])

    thread = threading.Thread(target=other)
    thread.start()
    book.conn.commit()
    thread.join(20)
    assert got == [first["id"]]
    assert book.value("select count(*) from ledger.postings") == 4


def test_balances_as_of_any_effective_date(posted: Book) -> None:
    trust = next(name for name in posted.balances() if name.startswith("mortgage:"))
    days = ("2025-02-02 23:59:59Z", "2025-02-03 00:00:00Z", "2025-03-02Z", "2025-03-03Z")
    assert [posted.balances(day).get(trust, 0) for day in days] == [0, 100_000, 100_000, 200_000]
    running = posted.rows("select balance from ledger.running_balance where account = %s order by effective_at", trust)
    assert [row["balance"] for row in running] == [100_000, 200_000]


def batch(book: Book, limit: int = 100, *, retry: bool = False) -> list[Row]:
    return book.rows("select * from ledger.push_batch(%s, %s)", limit, retry)


def states(book: Book) -> dict[str, int]:
    return {row["state"]: row["transactions"] for row in book.rows("select state, transactions from ledger.push_state")}


def test_the_outbox_hands_out_in_order_the_same_bytes_until_confirmed(posted: Book) -> None:
    mortgage = posted.value("select id::text from lending.mortgages")
    (first,) = batch(posted, 1)
    assert first["reference"] == "rotessa:tx:1"
    assert first["body"] == {
        "timestamp": "2025-02-03T00:00:00Z",
        "reference": "rotessa:tx:1",
        "postings": [
            {"source": "world", "destination": "borrower:1:rotessa", "asset": "CAD/2", "amount": 100_000},
            {
                "source": "borrower:1:rotessa",
                "destination": f"mortgage:{mortgage}:trust",
                "asset": "CAD/2",
                "amount": 100_000,
            },
        ],
        "metadata": {"transaction_id": str(first["transaction_id"])},
    }
    assert batch(posted, 1) == [first]  # no answer was recorded: the same again, under the same key
    assert [row["reference"] for row in batch(posted)] == ["rotessa:tx:1", "rotessa:tx:2"]
    assert posted.value("select attempts from ledger.push where transaction_id = %s", first["transaction_id"]) == 3
    assert posted.value("select ledger.push_confirmed(%s, %s)", [first["transaction_id"]], ["11"]) == 1
    assert posted.value("select ledger.push_confirmed(%s, %s)", [first["transaction_id"]], ["11"]) == 0
    assert [row["reference"] for row in batch(posted)] == ["rotessa:tx:2"]
    assert states(posted) == {"confirmed": 1, "sent": 1}


def test_what_was_refused_stays_with_its_reason_until_it_is_asked_for(posted: Book) -> None:
    one, two = batch(posted)
    posted.do("select ledger.push_refused(%s, 'INSUFFICIENT_FUND', 'no money')", one["transaction_id"])
    posted.do("select ledger.push_refused(%s, 'CONFLICT', 'other postings', true)", two["transaction_id"])
    assert batch(posted) == []
    found = posted.rows("select code, hard, first_reason from ledger.push_state order by code")
    assert [tuple(row.values()) for row in found] == [
        ("CONFLICT", True, "other postings"),
        ("INSUFFICIENT_FUND", False, "no money"),
    ]
    assert batch(posted, retry=True) == [one, two]


def test_a_reversal_is_handed_out_only_when_what_it_reverses_is_confirmed(posted: Book) -> None:
    posted.fetch(transactions=[transaction(1, status="Chargeback")])
    posted.backfill()
    sent = batch(posted)
    assert [row["reference"] for row in sent] == ["rotessa:tx:1", "rotessa:tx:2"]
    posted.value("select ledger.push_confirmed(%s, %s)", [row["transaction_id"] for row in sent], ["1", "2"])
    (reversal,) = batch(posted)
    assert reversal["reference"] == "rotessa:tx:1:chargeback"
    assert [(p["source"].split(":")[0], p["destination"].split(":")[0]) for p in reversal["body"]["postings"]] == [
        ("mortgage", "borrower"),
        ("borrower", "world"),
    ]


def test_answers_that_do_not_fit_are_refused(posted: Book) -> None:
    identity = posted.value("select id from ledger.transactions limit 1")
    assert "was never sent" in refusal(posted, "BF046", f"select ledger.push_confirmed('{{{identity}}}', '{{1}}')")
    assert "was never sent" in refusal(posted, "BF046", f"select ledger.push_refused('{identity}', 'X', 'y')")
    batch(posted)
    posted.value("select ledger.push_confirmed(%s, %s)", [identity], ["1"])
    assert "is confirmed as 1, not 2" in refusal(
        posted, "BF046", f"select ledger.push_confirmed('{{{identity}}}', '{{2}}')"
    )
    assert "is confirmed" in refusal(posted, "BF046", f"select ledger.push_refused('{identity}', 'X', 'y')")


def test_what_may_have_been_sent_is_not_reversed(posted: Book) -> None:
    run = posted.value("select run_id from lending.runs where backfill = 'lending_payments'")
    batch(posted)
    assert "refer to rows of ledger.transactions" in refusal(posted, "BF005", f"select backfill.reverse_run('{run}')")


def test_both_sides_are_compared_by_reference_postings_and_time(posted: Book) -> None:
    one, two = batch(posted)
    posted.value("select ledger.push_confirmed(%s, %s)", [one["transaction_id"], two["transaction_id"]], ["1", "2"])

    def findings(*rows: Row) -> list[tuple[str, str]]:
        verify = posted.value("select ledger.begin_verify()")
        posted.value("select ledger.take_formance_transactions(%s, %s)", verify, Jsonb(list(rows)))
        found = posted.rows("select reference, finding from ledger.verify_findings(%s)", verify)
        return [(row["reference"], row["finding"]) for row in found]

    theirs = [{"id": number, **row["body"]} for number, row in ((1, one), (2, two))]
    assert findings(*theirs) == []
    assert findings(theirs[0]) == [("rotessa:tx:2", "confirmed, and missing in Formance")]
    assert findings(*theirs, {**theirs[0], "id": 3, "reference": "other:1"}) == [("other:1", "only in Formance")]
    dearer = [{**posting, "amount": 1} for posting in theirs[1]["postings"]]
    assert findings(theirs[0], {**theirs[1], "postings": dearer}) == [("rotessa:tx:2", "differs")]
    assert findings(theirs[0], {**theirs[1], "timestamp": "2025-03-04T00:00:00Z"}) == [("rotessa:tx:2", "differs")]
    assert findings(theirs[0], {**theirs[1], "id": 9}) == [("rotessa:tx:2", "confirmed under another id")]
