"""The gates of lending: silent where lending is not used and on a sound book, and each finds its planted defect."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import psycopg
import pytest

from runner import gates
from runner.settings import Settings
from runner.systems import SYSTEMS
from tests.engine.gating import dbt_verdicts
from tests.lending.book import Book, transaction
from tests.place import ROOT


@pytest.fixture(scope="module")
def compiled() -> gates.Gates:
    return gates.compile(Settings(systems=SYSTEMS))


@pytest.fixture
def sound(conn: psycopg.Connection) -> Book:
    """Three payments on M-1, one of them charged back, one transaction that will settle, all sent and confirmed."""
    book = Book(conn)
    rows = [transaction(1), transaction(2, "2025-03-03"), transaction(3, "2025-04-03"), transaction(4, status="Future")]
    book.linked(*rows)
    book.backfill()
    book.conn.commit()
    book.fetch(transactions=[transaction(3, "2025-04-03", status="Chargeback")])
    book.backfill()
    while sent := book.rows("select transaction_id from ledger.push_batch(10)"):
        ids = [row["transaction_id"] for row in sent]
        book.value("select ledger.push_confirmed(%s, %s)", ids, [f"f{i}" for i in ids])
    book.conn.commit()
    return book


def judge(book: Book, compiled: gates.Gates) -> dict[str, gates.GateResult]:
    return {result.name: result for result in gates.run(book.conn, compiled, ["lending_payments"])}


def failing(book: Book, compiled: gates.Gates) -> dict[str, str]:
    return {name: result.status for name, result in judge(book, compiled).items() if result.status != "pass"}


def test_they_pass_where_lending_is_not_used(conn: psycopg.Connection, compiled: gates.Gates) -> None:
    assert failing(Book(conn), compiled) == {}


def test_a_sound_book_passes_every_gate(sound: Book, compiled: gates.Gates) -> None:
    assert failing(sound, compiled) == {}


# Written past the triggers and constraints, as only a fault or an attacker with the owner's rights could.
DEFECTS: dict[str, Sequence[str]] = {
    "settled_without_payment_or_posting": (
        "update staging.rotessa_transaction set status = 'Approved', settlement_date = '2025-05-05' where id = 4",
    ),
    "payments_that_differ_from_the_processor": (
        "update staging.rotessa_transaction set amount_cents = amount_cents + 1 where id = 1",
    ),
    "posted_without_being_settled": ("update staging.rotessa_transaction set status = 'Pending' where id = 1",),
    "postings_that_break_the_rule": (
        "insert into ledger.accounts (account) values ('mine')",
        ("update ledger.postings set account = 'mine' where line_no = 4 and transaction_id ="
        " (select id from ledger.transactions where reference = 'rotessa:tx:1')"),
    ),
    "schedules_of_two_mortgages": (
        "drop index lending.mortgages_one_schedule",
        ("insert into lending.mortgages (number, borrower_id, payment_cents, rotessa_schedule_id)"
        " select 'M-9', borrower_id, 1, 7 from lending.mortgages"),
    ),
    "transactions_that_do_not_sum_to_zero": (
        ("update ledger.postings set amount = amount + 1 where line_no = 4 and transaction_id ="
        " (select id from ledger.transactions where reference = 'rotessa:tx:1')"),
    ),
    "balances_below_zero": (
        ("insert into ledger.transactions (id, reference, effective_at)"
        " values (gen_random_uuid(), 'x:1', '2025-01-01 00:00Z')"),
        ("insert into ledger.postings (transaction_id, line_no, account, amount) select t.id, l.n, l.a, l.c"
        " from ledger.transactions as t"
        " cross join (values (1, 'borrower:1:rotessa', -1), (2, 'world', 1)) as l (n, a, c)"
        " where t.reference = 'x:1'"),
    ),
    "effective_after_recorded": (
        "alter table ledger.transactions drop constraint transactions_check",
        ("insert into ledger.transactions (id, reference, effective_at)"
        " values (gen_random_uuid(), 'x:1', '2999-01-01 00:00Z')"),
        ("insert into ledger.postings (transaction_id, line_no, account, amount) select t.id, l.n, 'world', l.c"
        " from ledger.transactions as t cross join (values (1, 1), (2, -1)) as l (n, c) where t.reference = 'x:1'"),
    ),
    "chargebacks_not_reversed_once": (
        "update staging.rotessa_transaction set status = 'Chargeback' where id = 2",
    ),
    "pushed_and_not_confirmed": (
        ("update ledger.push set state = 'refused', code = 'INSUFFICIENT_FUND', reason = 'no money'"
        " where transaction_id = (select id from ledger.transactions where reference = 'rotessa:tx:1')"),
    ),
    "lending_reconciled_on_nothing": ("delete from staging.rotessa_transaction",),
}  # fmt: skip


@pytest.mark.parametrize("name", DEFECTS)
def test_each_gate_finds_its_planted_defect(sound: Book, compiled: gates.Gates, name: str) -> None:
    sound.do("set local session_replication_role = replica")
    for statement in DEFECTS[name]:
        sound.do(statement)
    sound.do("set local session_replication_role = origin")
    result = judge(sound, compiled)[name]
    assert result.status == ("warn" if name == "pushed_and_not_confirmed" else "fail")
    assert result.failures > 0


def test_every_gate_has_a_planted_defect(compiled: gates.Gates) -> None:
    assert {gate.name for gate in compiled if "lending_payments" in gate.backfills} == set(DEFECTS)


def test_a_reject_with_its_reason_excuses_what_it_names_and_nothing_else(sound: Book, compiled: gates.Gates) -> None:
    sound.value("select ledger.close_period('2025-05', 'audited')")
    sound.fetch(transactions=[transaction(4, "2025-05-05")])
    assert failing(sound, compiled) == {"settled_without_payment_or_posting": "fail"}
    assert sound.backfill()["status"] == "partial"
    assert failing(sound, compiled) == {}
    sound.fetch(transactions=[transaction(5, "2025-06-05")])
    (row,) = judge(sound, compiled)["settled_without_payment_or_posting"].rows
    assert (row["reference"], row["mortgage"], row["cents"], row["payments"]) == ("rotessa:tx:5", "M-1", 100_000, 0)


def test_dbt_itself_agrees_on_committed_data_and_the_report_adds_up(sound: Book, tmp_path: Path) -> None:
    verdicts = dbt_verdicts("build", ROOT / "dbt_project", tmp_path, sound.conn)
    mine = {gate for gate in DEFECTS if verdicts[gate] != ("pass", 0)}
    assert mine == set()
    rows = sound.rows(
        "select mortgage, month, payments, cents, chargeback_cents from reconciliation.payments_by_month order by month"
    )
    assert [tuple(row.values()) for row in rows] == [
        ("M-1", "2025-02", 1, 100_000, 0),
        ("M-1", "2025-03", 1, 100_000, 0),
        ("M-1", "2025-04", 0, 0, 100_000),
    ]
