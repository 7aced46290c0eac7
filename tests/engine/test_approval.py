"""Approvals in the database: what reaches a policy is rehearsed by anybody, committed only with others' approval."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import uuid4

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from tests.engine.words import do, done, make, reverse, rows, value
from tests.story import sql

BILL = "create table bill (id integer primary key, amount_cents bigint, currency text, note text)"
TITLE = "a correction"


@pytest.fixture
def logins(database_url: str) -> Iterator[dict[str, str]]:
    """Connection strings: owner; maker, who operates and writes bills; anne and bob, who approve; both, who is all."""
    mark = uuid4().hex[:8]
    names = {name: f"{name}_{mark}" for name in ("maker", "anne", "bob", "both")}
    sql(
        database_url,
        BILL,
        "select backfill.track('bill', p_money => 'amount_cents', p_currency => 'currency')",
        *(f"create role {name} login" for name in names.values()),
        f"grant backfill_operator to {names['maker']}, {names['both']}",
        f"grant backfill_approver to {names['anne']}, {names['bob']}, {names['both']}",
        f"grant select, insert, update, delete on bill to {names['maker']}, {names['both']}",
    )
    yield {"owner": database_url} | {key: make_conninfo(database_url, user=name) for key, name in names.items()}
    sql(database_url, *(f"drop owned by {name}" for name in names.values()))
    sql(database_url, *(f"drop role {name}" for name in names.values()))


def policy(logins: dict[str, str], values: str) -> None:
    sql(logins["owner"], f"insert into backfill.policy (backfill, currency, gross_from, approvals) values {values}")


def tried(url: str, *statements: str, title: str = TITLE) -> str:
    """The statements as a run that is rolled back: its signature."""
    with psycopg.connect(url) as conn:
        run_id = value(conn, "select backfill.begin_run(%s)", [title])
        do(conn, *statements, "select backfill.finish_run()", "set constraints all immediate")
        signature: str = value(conn, "select backfill.signature(%s)", [run_id])
        conn.rollback()
    return signature


def committed(url: str, *statements: str, title: str = TITLE) -> str:
    """The statements as a run that is committed: its id."""
    with psycopg.connect(url) as conn:
        run_id = value(conn, "select backfill.begin_run(%s)", [title])
        do(conn, *statements, "select backfill.finish_run()")
        conn.commit()
    return str(run_id)


def refused(url: str, *statements: str, words: str, title: str = TITLE) -> None:
    """The commit refuses, says why and what to do, and nothing is there."""
    before = sql(url, "select * from bill order by id")
    with pytest.raises(psycopg.Error, match=words) as caught:
        committed(url, *statements, title=title)
    assert caught.value.sqlstate == "BF019"
    assert "nothing was committed" in str(caught.value)
    assert sql(url, "select * from bill order by id") == before


def approve(url: str, signature: str, remark: str = "seen") -> None:
    sql(url, f"select backfill.approve('{signature}', '{remark}')")


def test_what_reaches_a_policy_is_rehearsed_by_anybody_and_committed_with_an_approval(logins: dict[str, str]) -> None:
    policy(logins, "('*', 'EUR', 10000, 1)")
    write = "insert into bill values (1, 6000, 'EUR'), (2, -4000, 'EUR')"  # +X and -X are 2X
    signature = tried(logins["maker"], write)
    refused(logins["maker"], write, words=r"gross 100.00 EUR\) needs an approval by other logins, and has none")
    approve(logins["anne"], signature, "seen with Finance")
    run_id = committed(logins["maker"], write)
    [(said,)] = sql(
        logins["owner"], f"select metrics -> 'approvals' from backfill.backfill_log where run_id = '{run_id}'"
    )
    assert (said["signature"], said["gross"], said["needed"], said["given"]) == (signature, {"EUR": 10000}, 1, 1)
    assert [(word["approved"], word["remark"]) for word in said["words"]] == [(True, "seen with Finance")]
    assert sql(logins["owner"], f"select backfill.signature('{run_id}')") == [(signature,)]
    assert sql(logins["owner"], "select run_id::text from backfill.approval_use") == [(run_id,)]
    kinds = sql(
        logins["owner"], "select kind, detail ->> 'signature' from backfill.chain where kind <> 'engine' order by link"
    )
    assert kinds == [("policy", None), ("approval", signature), ("run", None)]
    assert sql(logins["owner"], "select * from backfill.verify_chain()") == []


def test_below_a_policy_and_in_another_currency_nothing_is_asked(logins: dict[str, str]) -> None:
    policy(logins, "('*', 'EUR', 10000, 1)")
    committed(logins["maker"], "insert into bill values (1, 9999, 'EUR'), (2, 5000000, 'USD')")
    assert sql(logins["owner"], "select metrics ? 'approvals' from backfill.backfill_log") == [(False,)]


def test_an_update_counts_what_was_and_what_is_also_where_no_money_changes(logins: dict[str, str]) -> None:
    sql(logins["owner"], "insert into bill values (1, 6000, 'EUR')")
    policy(logins, "('*', 'EUR', 12000, 1)")
    refused(logins["maker"], "update bill set note = 'another tenant''s'", words="gross 120.00 EUR")
    refused(
        logins["maker"],
        "update bill set currency = 'USD', amount_cents = 12000",
        "insert into bill values (2, 6000, 'EUR')",
        words="gross 120.00 EUR, 120.00 USD",
    )
    committed(logins["maker"], "update bill set currency = 'USD'")


def test_whoever_writes_does_not_approve_and_two_approvals_are_of_two_logins(logins: dict[str, str]) -> None:
    policy(logins, "('*', '*', 0, 2)")
    write = "insert into bill values (1, null, null)"
    signature = tried(logins["both"], write)
    approve(logins["both"], signature)
    approve(logins["anne"], signature)
    approve(logins["anne"], signature, "once more")
    refused(logins["both"], write, words="needs 2 approvals by other logins, and has 1")
    approve(logins["bob"], signature)
    committed(logins["both"], write)


def test_an_approval_is_used_once_and_the_reversal_needs_its_own(logins: dict[str, str]) -> None:
    policy(logins, "('*', '*', 0, 1)")
    write = "insert into bill values (1, 100, 'EUR')"
    approve(logins["anne"], tried(logins["maker"], write))
    run_id = committed(logins["maker"], write)
    with psycopg.connect(logins["maker"]) as conn:
        do(conn, f"select * from backfill.reverse_run('{run_id}')", "set constraints all immediate")
        undo = value(
            conn, "select metrics #>> '{approvals,signature}' from backfill.backfill_log where mode = 'reversal'"
        )
        conn.rollback()
        with pytest.raises(psycopg.Error, match="needs an approval"):
            do(conn, f"select * from backfill.reverse_run('{run_id}')", "commit")
    approve(logins["anne"], undo, "it was wrong")
    sql(logins["maker"], f"select * from backfill.reverse_run('{run_id}')")
    assert sql(logins["owner"], "select * from bill") == []
    refused(logins["maker"], write, words="has none")


def test_a_refusal_stands_until_its_login_approves(logins: dict[str, str]) -> None:
    policy(logins, "('*', '*', 0, 1)")
    write = "insert into bill values (1, 100, 'EUR')"
    signature = tried(logins["maker"], write)
    approve(logins["anne"], signature)
    sql(logins["bob"], f"select backfill.refuse('{signature}', 'wrong tenant')")
    refused(logins["maker"], write, words=r"was refused by bob_.* \(wrong tenant\)")
    approve(logins["bob"], signature, "asked, and right")
    committed(logins["maker"], write)


def test_an_approval_that_is_over_counts_no_more(logins: dict[str, str]) -> None:
    policy(logins, "('*', '*', 0, 1)")
    write = "insert into bill values (1, 100, 'EUR')"
    sql(logins["anne"], f"select backfill.approve('{tried(logins['maker'], write)}', 'for a moment', '1 millisecond')")
    refused(logins["maker"], write, words="has none")


EVASIONS = {
    "constraints immediate before": ["set constraints all immediate"],
    "constraints immediate in between": ["select 1", "set constraints all immediate", "set constraints all deferred"],
    "the guard by its name": ["set constraints backfill.guard_approval immediate"],
    "made immediate, and that taken back": ["savepoint a", "set constraints all immediate", "rollback to a"],
    "made immediate in a block that fails": [
        "do $$ begin set constraints all immediate; perform 1 / 0; exception when division_by_zero then null; end $$"
    ],
    "one that is called as its guard": [
        "create temporary table unapproved (run_id uuid, xid xid8)",
        "set local search_path = pg_temp, public",
    ],
    "a savepoint": ["savepoint a", "release a"],
}


@pytest.mark.parametrize("way", EVASIONS)
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_psql_does_not_get_around_it(logins: dict[str, str], way: str, after: bool) -> None:
    policy(logins, "('*', '*', 0, 1)")
    write = [
        "select backfill.begin_run('a correction')",
        "insert into bill values (1, 1, 'EUR')",
        "select backfill.finish_run()",
    ]
    with psycopg.connect(logins["maker"]) as conn:
        do(conn, *(write + EVASIONS[way] if after else EVASIONS[way] + write))
        with pytest.raises(psycopg.Error) as caught:
            conn.commit()
    assert caught.value.sqlstate == "BF019"
    assert sql(logins["owner"], "select * from bill") == []


def test_a_run_among_others_of_a_transaction_is_refused_and_one_that_is_rolled_back_is_none(
    logins: dict[str, str],
) -> None:
    policy(logins, "('*', 'EUR', 500, 1)")
    small, large = (
        [
            f"select backfill.begin_run('{n}')",
            f"insert into bill values ({n}, {n}, 'EUR')",
            "select backfill.finish_run()",
        ]
        for n in (1, 500)
    )
    with psycopg.connect(logins["maker"]) as conn:
        do(conn, *large, *small)
        with pytest.raises(psycopg.Error, match="needs an approval"):
            conn.commit()
        do(conn, "savepoint a", *large, "rollback to a", *small)
        conn.commit()
    assert sql(logins["owner"], "select id from bill") == [(1,)]


def test_the_rights_are_the_owners_and_the_approvers(logins: dict[str, str]) -> None:
    mine = "insert into backfill.approval values (repeat('0', 64), 'anne', now(), true, 'me', now())"
    for login, statement in [
        ("maker", "select backfill.approve(repeat('0', 64), 'me')"),
        ("maker", "insert into backfill.policy (gross_from) values (1)"),
        ("maker", "delete from backfill.unapproved"),
        ("maker", mine),
        ("anne", mine),
        ("anne", "delete from backfill.policy"),
        ("anne", "select backfill.begin_run('x')"),
        ("maker", "set session_replication_role = replica"),
        ("maker", "alter table backfill.unapproved disable trigger all"),
    ]:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            sql(logins[login], statement)
    for statement in (
        "update backfill.approval set login = 'x'",
        "delete from backfill.approval_use",
        "truncate backfill.policy",
        "delete from backfill.unapproved",
    ):
        with pytest.raises(psycopg.Error) as caught:
            sql(logins["owner"], statement)
        assert caught.value.sqlstate == "BF008"


@pytest.mark.parametrize(
    ("call", "words"),
    [
        ("approve('8f14e45f', 'seen')", "is no signature: that has 64"),
        ("approve(null, 'seen')", "is no signature"),
        ("approve(repeat('a', 64), ' ')", "needs a remark"),
        ("approve(repeat('a', 64), 'seen', '2 years')", "a year at most"),
        ("approve(repeat('a', 64), 'seen', '-1 day')", "a year at most"),
        ("refuse(repeat('A', 64), 'no')", "is no signature"),
    ],
)
def test_what_is_no_decision_is_refused(logins: dict[str, str], call: str, words: str) -> None:
    with pytest.raises(psycopg.Error, match=words) as caught:
        sql(logins["anne"], f"select backfill.{call}")
    assert caught.value.sqlstate == "BF009"


def test_a_policy_of_a_backfill_is_that_of_its_tables_for_what_is_done_by_hand(logins: dict[str, str]) -> None:
    sql(
        logins["owner"],
        "create view due_bill as select 1 as id, 5::bigint as amount_cents where false",
        "create function fill(jsonb) returns jsonb language sql as $$select '{}'::jsonb$$",
        "select backfill.register('bills', 'test', 'a test', 1, 'public.due_bill', 'public.fill', '{public.bill}')",
        "create table other (id integer primary key)",
        "select backfill.track('other')",
    )
    policy(logins, "('bills', '*', 1, 1)")
    refused(
        logins["maker"],
        "insert into bill values (1, 1, 'EUR')",
        words="needs an approval",
        title="nothing of that name",
    )
    done_by_owner = psycopg.connect(logins["owner"])
    with done_by_owner as conn:
        done(conn, "insert into other values (1)")


def test_what_spans_transactions_is_not_committed_in_parts(logins: dict[str, str]) -> None:
    policy(logins, "('*', 'EUR', 500, 1)")
    with psycopg.connect(logins["maker"]) as conn:
        run_id = value(conn, "select backfill.begin_run('long', p_spans_transactions => true)")
        do(conn, "select backfill.leave_run()")
        conn.commit()
        do(conn, f"select backfill.resume_run('{run_id}')", "insert into bill values (1, 400, 'EUR')")
        conn.commit()
        for leave in ("select 1", "select backfill.leave_run()"):
            do(conn, f"select backfill.resume_run('{run_id}')", "insert into bill values (2, 100, 'EUR')", leave)
            with pytest.raises(psycopg.Error, match="as a whole: what this transaction wrote was not committed"):
                conn.commit()
        do(conn, f"select backfill.resume_run('{run_id}')", "select backfill.finish_run()")
        conn.commit()
    assert sql(logins["owner"], "select id from bill") == [(1,)]


def test_void_money_counts_and_what_is_no_amount_does_not(conn: psycopg.Connection) -> None:
    make(conn, "create table bill (id integer primary key, total numeric, currency text, status text)")
    do(conn, "select backfill.track('bill', p_money => 'total', p_currency => 'currency', p_void => '{status,void}')")
    do(conn, "insert into backfill.policy (currency, gross_from) values ('EUR', 1000)")
    conn.commit()
    run_id = value(conn, "select backfill.begin_run('x')")
    do(
        conn,
        "insert into bill values (1, 4, 'eur', 'void'), (2, -6, 'EUR', null), (3, 'NaN', 'EUR', null)",
        "select backfill.finish_run()",
    )
    assert value(conn, "select backfill.gross(%s)", [run_id]) == {"EUR": 1000}
    with pytest.raises(psycopg.Error, match=r"gross 10\.00 EUR"):
        conn.commit()


def test_without_a_policy_a_reversal_and_its_run_are_as_ever(conn: psycopg.Connection) -> None:
    make(conn, BILL, "bill")
    run_id = done(conn, "insert into bill values (1, 5, 'EUR')")
    assert sum(reverse(conn, run_id).values()) == 1
    assert rows(conn, "select count(*) from backfill.approval_use") == [(0,)]
