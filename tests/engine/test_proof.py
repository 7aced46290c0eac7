"""The end of a run proves that what was captured is all that happened: deceit is refused, honest runs are not."""

from __future__ import annotations

from collections.abc import Callable

import psycopg
import pytest

from tests.engine.words import changes, do, done, images, make, refused, reverse, rows, run, value

ACCOUNT = """create table account (id integer primary key, code text unique, cents bigint not null default 0);
    create table other (id integer primary key, cents bigint)"""

ALTERED = {
    "a column added": ("alter table account add column paid bigint", "update account set paid = 1"),
    "a column retyped": ("alter table account alter cents type numeric(12, 2)", "update account set cents = 1.25"),
    "a column dropped": ("alter table account drop column code",),
    "a column renamed": ("alter table account rename column code to name",),
    "the table dropped": ("drop table account",),
    "another table in its place": (
        "alter table account rename to gone",
        "create table account (like gone including all)",
        "insert into account values (1, 'theirs', 1)",
    ),
    "renamed there and back": (
        "alter table account rename to gone",
        "alter table gone rename to account",
    ),
    "moved to another schema": ("create schema elsewhere", "alter table account set schema elsewhere"),
    "triggers off and on": (
        "alter table account disable trigger user",
        "update account set cents = 0",
        "alter table account enable trigger user",
    ),
    "triggers off and always on": (
        "alter table account disable trigger all",
        "delete from account",
        "alter table account enable trigger all",
        "alter table account enable always trigger backfill_capture_delete",
    ),
    "a trigger dropped": ("drop trigger backfill_capture_update on account", "update account set cents = 0"),
    "a function replaced": (
        """create or replace function backfill_audit.public_account_update() returns trigger language plpgsql
        as 'begin return null; end'""",
        "update account set cents = 0",
    ),
    "an heir for a while": (
        "create table parent (like account)",
        "alter table account inherit parent",
        "update parent set cents = 0",
        "alter table account no inherit parent",
    ),
    "a partition for a while": (
        "create table parent (like account) partition by list (id)",
        "alter table parent attach partition account default",
        "delete from parent",
        "alter table parent detach partition account",
    ),
    "unlogged": ("alter table account set unlogged",),
    "a rule for a while": (
        "create rule nothing as on update to account do instead nothing",
        "update account set cents = 0",
        "drop rule nothing on account",
    ),
    "emptied": (
        "alter table account disable trigger user",
        "truncate account",
        "alter table account enable trigger user",
    ),
    "the switch dropped": ("discard temp", "update account set cents = 0"),
    "the switch made anew": (
        "discard temp",
        "update account set cents = 0",
        "create temporary table backfill_open_run ()",
    ),
    "a foreign key that carries on": (
        "create table child (id integer primary key, account_id integer references account on delete cascade)",
        "insert into child values (1, 1)",
        "delete from account where id = 1",
    ),
}  # fmt: skip

GAPS = {
    "a row inserted": "insert into account values (9, 'nine', 9)",
    "a row updated": "update account set cents = -1 where id = 4",
    "a row updated that the run wrote too": "update account set cents = -1 where id = 1",
    "a row deleted that the run wrote": "delete from account where id = 1",
    "in a savepoint that was kept": "savepoint a; update account set cents = -1 where id = 4; release a",
}

HONEST = {
    "savepoints rolled back": (
        "savepoint a",
        "update account set cents = 2",
        "delete from account where id > 3",
        "insert into account values (7, 'seven', 7)",
        "rollback to a",
        "savepoint a",
        "alter table account disable trigger user",
        "update account set cents = 3",
        "rollback to a",
    ),
    "a retry within a function": (
        """do $$ begin
            for i in 1 .. 3 loop
                begin
                    update account set cents = cents + 1;
                    delete from account where id = 5;
                    insert into account values (1, 'twice', 1);
                exception when unique_violation then null;
                end;
            end loop;
        end $$""",
    ),
    "a statement that fails": (
        """do $$ begin
            insert into account values (8, 'x', 1), (9, 'A2', 1);
        exception when unique_violation then null;
        end $$""",
    ),
    "statistics, an index, a comment": (
        "analyze account",
        "create index on account (cents)",
        "comment on table account is 'Ours.'",
        "comment on column account.cents is 'Whole.'",
    ),
    "rows only locked": ("select from account for update", "select from account where id = 2 for key share"),
    "a table of its own": ("create table scratch (id integer)", "insert into scratch values (1)", "drop table scratch"),
    "on conflict and merge": (
        "insert into account values (1, 'A1', 1) on conflict do nothing",
        "insert into account values (2, 'x', 1) on conflict (id) do update set cents = 9",
        (
            "merge into account as a using (values (3), (9)) as s (id) on a.id = s.id"
            " when matched then delete when not matched then insert values (s.id, 'merged', 0)"
        ),
    ),
}


@pytest.fixture
def account(conn: psycopg.Connection) -> psycopg.Connection:
    """Two tracked tables, five accounts of 100 cents."""
    make(conn, ACCOUNT, "account", "other")
    do(
        conn,
        "insert into account select i, 'A' || i, 100 from generate_series(1, 5) as i",
        "insert into other values (1)",
    )
    conn.commit()
    return conn


def refuse(conn: psycopg.Connection, *statements: str) -> str:
    """What finishing the open run says; nothing of it is kept."""
    with pytest.raises(psycopg.Error) as caught:
        do(conn, *statements, "select backfill.finish_run()")
    assert caught.value.sqlstate == "BF012", refused(caught)
    conn.rollback()
    assert value(conn, "select count(*) from backfill.backfill_log") == 0
    return refused(caught)


@pytest.mark.parametrize("case", ALTERED)
def test_a_table_that_was_altered_cannot_be_finished(account: psycopg.Connection, case: str) -> None:
    before = images(account, "account")
    do(account, "select backfill.begin_run('deceived')", "update account set cents = 7 where id = 2")
    said = refuse(account, *ALTERED[case])
    assert "public.account" in said or "backfill_open_run" in said or "public.child" in said
    assert "what was captured is not all that happened" in said
    assert images(account, "account") == before


@pytest.mark.parametrize(  # outside of a run there is no switch of it; with the function, or unlogged, none would begin
    "case", sorted(ALTERED.keys() - {"the switch dropped", "the switch made anew", "a function replaced", "unlogged"})
)
def test_the_same_before_the_run_is_none_of_it(account: psycopg.Connection, case: str) -> None:
    do(account, *ALTERED[case])
    if case == "the table dropped":
        do(account, "create table account (id integer primary key, code text, cents bigint)")
    name = "gone" if case == "another table in its place" else "account"
    name = "elsewhere.account" if case == "moved to another schema" else name
    run_id = done(account, f"insert into {name} (id, cents) values (77, 7)")
    assert changes(account, run_id, "operation, business_key") == [("INSERT", "77")]


@pytest.mark.parametrize("earlier", ["select 1", "update account set cents = 5 where id in (3, 5)"])
@pytest.mark.parametrize("case", GAPS)
def test_a_row_written_past_the_capture_is_found(account: psycopg.Connection, case: str, earlier: str) -> None:
    """As a fault of the engine would: its triggers are there, and still a row is in no image."""
    do(account, earlier, "select backfill.begin_run('gap')", "update account set cents = 7 where id <= 2")
    do(account, "insert into other values (2)", "select backfill.pause_capture(true)")
    said = refuse(account, GAPS[case], "select backfill.pause_capture(false)")
    assert "public.account: 1 rows were" in said
    assert "past the capture" in said
    assert "public.other" not in said


@pytest.mark.parametrize("earlier", ["select 1", "update account set cents = 5 where id in (1, 5)"])
@pytest.mark.parametrize("case", HONEST)
def test_an_honest_run_is_finished(account: psycopg.Connection, case: str, earlier: str) -> None:
    do(account, earlier)
    before = images(account, "account")
    with run(account) as run_id:
        do(
            account,
            "update account set cents = 1 where id = 1",
            *HONEST[case],
            "update account set cents = 4 where id = 4",
        )
    assert images(account, "account") != before
    assert set(reverse(account, run_id)) == {"restored"}
    assert images(account, "account") == before


def test_what_others_may_do_meanwhile(account: psycopg.Connection, database_url: str) -> None:
    """A right that another session gives, and a table that it alters and the run does not write to."""
    with psycopg.connect(database_url) as other:
        do(account, "select backfill.begin_run('quiet')", "update account set cents = 1")
        do(other, "grant select on account to public", "alter table other add column note text")
        other.commit()
        do(account, "select backfill.finish_run()")
        account.commit()
        do(account, "select backfill.begin_run('surprised')")
        do(other, "alter table account add column note text")
        other.commit()
        with pytest.raises(psycopg.Error, match=r"public\.account: a column was added") as caught:
            do(account, "update account set note = 'x'", "select backfill.finish_run()")
        assert caught.value.sqlstate == "BF012"


def test_replica_mode_is_captured_too(account: psycopg.Connection) -> None:
    """R4b: ENABLE ALWAYS. The audit stays append-only as well."""
    with run(account) as run_id:
        do(account, "set local session_replication_role = replica", "update account set cents = 900 where id = 1")
    assert changes(account, run_id, "amount_after, after ->> 'cents'") == [(None, "900")]
    do(account, "set session_replication_role = replica")
    for statement in ("delete from backfill_audit.public_account_row", "delete from backfill.backfill_log"):
        with pytest.raises(psycopg.Error, match="append-only"), account.transaction():
            do(account, statement)
    do(account, "set session_replication_role = origin", "select backfill.begin_run('open')")
    do(account, "set local session_replication_role = replica")
    with pytest.raises(psycopg.Error, match="is still open: nothing was committed"):
        account.commit()


ADD_UP = """
    create table balance (id integer primary key, cents bigint);
    create table payment (id integer primary key, cents bigint);
    create function add_up() returns trigger language plpgsql as $$ begin
        update balance set cents = cents + new.cents; return null; end $$;
    create constraint trigger add_up after insert on payment deferrable initially deferred
        for each row execute function add_up();
    insert into balance values (1, 0)"""


def test_a_deferred_trigger_writes_before_the_end(conn: psycopg.Connection) -> None:
    """D: what waits for the commit is fired, and captured; it names its table without a schema."""
    make(conn, ADD_UP, "balance", "payment")
    run_id = done(conn, "insert into payment values (1, 50)")
    assert changes(conn, run_id, "table_name, operation") == [
        ("public.payment", "INSERT"),
        ("public.balance", "UPDATE"),
    ]
    assert rows(conn, "select cents from balance") == [(50,)]


def test_a_deferred_trigger_at_the_commit_of_a_run_over_several_transactions(conn: psycopg.Connection) -> None:
    make(conn, ADD_UP, "balance", "payment")
    run_id = value(conn, "select backfill.begin_run('long', p_spans_transactions => true)")
    do(conn, "insert into payment values (1, 50)")
    conn.commit()
    assert value(conn, "select count(*) from backfill.run_transaction") == 0
    conn.execute("select backfill.resume_run(%s)", [run_id])
    do(
        conn,
        "insert into payment values (2, 1)",
        "select backfill.leave_run()",
        "update balance set cents = cents + 100",
    )
    conn.commit()
    conn.execute("select backfill.resume_run(%s)", [run_id])
    do(
        conn,
        "alter table balance disable trigger user",
        "update balance set cents = 0",
        "alter table balance enable trigger all",
    )
    with pytest.raises(psycopg.Error, match=r"public\.balance: triggers of the engine were switched off") as caught:
        conn.commit()
    assert caught.value.sqlstate == "BF012"
    conn.execute("select backfill.resume_run(%s)", [run_id])
    do(conn, "select backfill.finish_run()")
    conn.commit()
    assert changes(conn, run_id, "operation, before ->> 'cents', after ->> 'cents'") == [
        ("INSERT", None, "50"),
        ("UPDATE", "0", "50"),
        ("INSERT", None, "1"),
        ("UPDATE", "50", "51"),
    ]
    assert rows(conn, "select cents from balance") == [(151,)]


def test_keys_may_be_checked_early_and_the_run_must_still_be_finished(account: psycopg.Connection) -> None:
    do(account, "create table child (id integer references account deferrable initially deferred)")
    account.commit()
    for early in (0, 1, 3):
        do(account, "select backfill.begin_run('early')", "update account set cents = 1 where id = 1")
        for _ in range(early):
            do(account, "set constraints all immediate", "set constraints all deferred")
        do(account, "update account set cents = 2 where id = 1")
        with pytest.raises(psycopg.Error, match="is still open: nothing was committed"):
            account.commit()
    do(account, "set constraints all immediate", "select backfill.begin_run('first')", "set constraints all immediate")
    do(account, "update account set cents = 1 where id = 1", "select backfill.finish_run()")
    # Afterwards what waits for the commit waits again.
    do(
        account,
        "select backfill.begin_run('second')",
        "insert into child values (9)",
        "insert into account values (9, 'A9')",
    )
    do(account, "select backfill.finish_run()")
    account.commit()
    do(account, "select backfill.begin_run('third')", "insert into child values (10)")
    with pytest.raises(psycopg.errors.ForeignKeyViolation):
        do(account, "select backfill.finish_run()")


@pytest.mark.parametrize("statement", ["select backfill.untrack('account')", "select backfill.track('account')"])
def test_the_capture_is_not_changed_within_a_run(account: psycopg.Connection, statement: str) -> None:
    do(account, "select backfill.begin_run('x')")
    with pytest.raises(psycopg.Error, match="its capture would have a gap") as caught:
        do(account, statement)
    assert caught.value.sqlstate == "BF001"


def test_a_function_fires_for_its_own_table_only(account: psycopg.Connection) -> None:
    do(
        account,
        "create table twin (like account including all)",
        """create trigger stray after insert on twin referencing new table as new_rows for each statement
        execute function backfill_audit.public_account_insert()""",
        "select backfill.begin_run('x')",
    )
    with pytest.raises(psycopg.Error, match=r"fires for .*twin, and was made for public\.account"):
        do(account, "insert into twin values (5)")


CHILD = (
    "create table child (id integer primary key,"
    " account_id integer references account on delete cascade on update cascade, n integer)"
)
NOTE = """create function note() returns trigger language plpgsql as $$ begin
        update public.child set n = n + 1 where id = 1; return null; end $$;
    create trigger note after update on account for each row execute function note()"""


def test_an_update_that_carries_nothing_on_is_harmless(account: psycopg.Connection) -> None:
    """J, R6: the child was changed earlier, by the person, or by a trigger of the application."""
    do(account, CHILD, "insert into child values (1, 1, 0)", NOTE)
    account.commit()
    do(account, "update child set n = 1")
    run_id = done(
        account, "update child set n = 2", "update account set cents = 5 where id = 2", "update child set n = 3",
                  "delete from account where id = 3", "delete from child where id = 7")  # fmt: skip
    assert changes(account, run_id, "operation") == [("UPDATE",), ("DELETE",)]


@pytest.mark.parametrize(
    "statement",
    ["delete from account", "update account set id = id + 10", NOTE + "; update account set id = 9 where id = 1"],
)
def test_a_cascade_is_seen_without_counters(account: psycopg.Connection, statement: str) -> None:
    """R8: track_counts is off."""
    do(account, CHILD, "insert into child values (1, 1, 0)")
    account.commit()
    do(account, "set track_counts = off", "select backfill.begin_run('x')")
    with pytest.raises(
        psycopg.Error, match=r"of public\.account changes rows of public\.child, which is not tracked"
    ) as caught:
        do(account, statement)
    assert caught.value.sqlstate == "BF003"


Dump = Callable[..., str]


def test_guards_come_and_go_with_the_foreign_key(account: psycopg.Connection) -> None:
    guards = "select count(*) from pg_trigger where tgrelid = 'child'::regclass and tgname ~ '^backfill_'"
    do(account, CHILD)
    done(account, "select 1")
    assert value(account, guards) == 2
    do(account, "select backfill.track('child')")
    assert value(account, guards) == 4, "it captures now"
    do(account, "select backfill.untrack('child')")
    assert value(account, guards) == 2
    do(account, "alter table child drop constraint child_account_id_fkey")
    done(account, "select 1")
    assert value(account, guards) == 0
