"""What an application does to its tables outside of runs, and the engine's triggers, are not in each other's way."""

from __future__ import annotations

import subprocess

import psycopg
import pytest

from runner import embedded
from tests.engine.words import changes, do, done, make, refused, reverse, rows, value

PARENT = "create table account (id integer primary key, cents bigint)"
CHILD = "account_id integer references account on delete cascade on update cascade"
GUARDS = """select tgrelid::regclass::text, tgname::text from pg_trigger
    where tgfoid = 'backfill.refuse_cascade'::regproc and tgparentid = 0 order by 1"""


@pytest.fixture
def account(conn: psycopg.Connection) -> psycopg.Connection:
    """A tracked table to which a partitioned table, two tables of the same shape and one of its own refer."""
    make(conn, PARENT, "account")
    do(
        conn,
        f"create table event (id integer, {CHILD}) partition by list (id)",
        f"create table event_1 (id integer, {CHILD})",
        f"create table event_2 (id integer, {CHILD}) partition by list (account_id)",
        f"create table event_2_old (id integer, {CHILD})",
        f"create table other (id integer, {CHILD})",
        "insert into account values (1, 10), (2, 20)",
    )
    conn.commit()
    done(conn, "update account set cents = cents")  # the first run puts the guards on
    return conn


ATTACH = (
    "alter table event_2 attach partition event_2_old default",
    "alter table event attach partition event_1 for values in (1)",
    "alter table event attach partition event_2 for values in (2)",
)


def cascade_is_refused(conn: psycopg.Connection, child: str) -> None:
    """In a run; what was told to the application's own statement is as ever."""
    do(conn, "select backfill.begin_run('x')")
    with pytest.raises(psycopg.Error) as caught:
        do(conn, "delete from account where id = 1")
    assert caught.value.sqlstate == "BF003"
    assert f"changes rows of public.{child}, which is not tracked" in refused(caught)
    conn.rollback()


def test_tables_with_guards_become_partitions_and_tables_of_their_own_again(account: psycopg.Connection) -> None:
    assert len({name for _, name in rows(account, GUARDS)}) == 5
    do(account, *ATTACH)
    do(account, f"create table event_3 (id integer, {CHILD})", "create table event_9 partition of event default")
    do(account, "insert into event values (1, 1), (2, 1), (9, 1)")
    account.commit()
    cascade_is_refused(account, "event")
    run_id = done(account, "update account set cents = 0 where id = 2")
    assert [table for table, _ in rows(account, GUARDS)] == ["event", "event_3", "other"]
    assert reverse(account, run_id) == {"restored": 1}
    # Outside of a run the foreign keys act as ever.
    do(account, "update account set id = 3 where id = 1")
    assert rows(account, "select id, account_id from event order by id") == [(1, 3), (2, 3), (9, 3)]
    account.rollback()

    do(account, "alter table event detach partition event_1", "delete from event")
    account.commit()
    cascade_is_refused(account, "event_1")
    done(account, "select 1")
    do(account, "alter table event attach partition event_1 for values in (1)")
    do(account, "alter table event attach partition event_3 for values in (3)")
    account.commit()
    cascade_is_refused(account, "event")


def test_guarded_tables_are_renamed_exchanged_inherited_and_copied(account: psycopg.Connection) -> None:
    do(
        account,
        "alter table other rename to other_old",
        f"create table other (id integer, {CHILD}) partition by list (id)",
        "create table copy (like other_old including all)",
        "create table heir () inherits (other_old)",
        "create table base (id integer, account_id integer)",
        "alter table event_1 inherit base",
    )
    account.commit()
    done(account, "select 1")
    do(
        account,
        "drop table heir",
        "alter table other attach partition other_old default",
        "alter table other attach partition copy for values in (5)",
        "insert into other values (1, 1)",
    )
    account.commit()
    cascade_is_refused(account, "other")
    do(account, "delete from other", "insert into event_1 values (1, 1)", "alter table event_1 rename to event_one")
    account.commit()
    cascade_is_refused(account, "event_one")
    # Renamed in the run itself: nobody's business, and still guarded.
    do(account, "select backfill.begin_run('x')", "alter table event_one rename to event_uno")
    with pytest.raises(psycopg.Error, match=r"changes rows of public\.event_uno"):
        do(account, "delete from account")
    account.rollback()
    done(account, "alter table event_one rename to event_uno", "update account set cents = 1")


def test_a_dump_of_guarded_partitions_can_be_restored(
    account: psycopg.Connection, database_url: str, empty_database_url: str, server: embedded.Server
) -> None:
    """Before the next run each of them has its own guard beside that of the table above it."""
    do(account, *ATTACH, "insert into event values (1, 1), (2, 1)")
    account.commit()
    programs = server.programs
    dumped = subprocess.run(
        [str(programs / "pg_dump"), "--format=custom", f"--dbname={database_url}"], capture_output=True, check=True
    ).stdout
    restore = [str(programs / "pg_restore"), "--exit-on-error", f"--dbname={empty_database_url}"]
    subprocess.run(restore, input=dumped, check=True)
    with psycopg.connect(empty_database_url) as copy:
        cascade_is_refused(copy, "event")
        do(copy, "alter table event detach partition event_1", "delete from event")
        copy.commit()
        cascade_is_refused(copy, "event_1")


LEFT = {
    "a partition": (
        ["create table whole (id integer primary key, cents bigint) partition by list (id)"],
        "alter table whole attach partition account default",
        "alter table whole detach partition account",
        "it is a partition",
    ),
    "an heir": (
        ["create table whole (id integer, cents bigint)"],
        "alter table account inherit whole",
        "alter table account no inherit whole",
        "takes part in inheritance",
    ),
    "a parent": (
        ["select 1"],
        "create table heir () inherits (account)",
        "drop table heir",
        "takes part in inheritance",
    ),
}


@pytest.mark.parametrize("case", LEFT)
def test_a_tracked_table_that_becomes_something_else_serves_the_application(
    account: psycopg.Connection, case: str
) -> None:
    """Its triggers, also those of the application, are in nobody's way; only a run is refused, and told why."""
    first, there, back, why = LEFT[case]
    do(
        account,
        "create function public.nothing() returns trigger language plpgsql as 'begin return new; end'",
        "create trigger nothing before insert or update on account for each row execute function public.nothing()",
        "select backfill.track('account')",
    )
    account.commit()
    do(account, *first, there)
    do(account, "insert into account values (5, 5)", "update account set cents = 6", "delete from account where id = 5")
    if case != "a parent":
        do(account, "insert into whole values (7, 7)", "update whole set cents = 8", "delete from whole where id = 7")
    account.commit()
    with pytest.raises(psycopg.Error, match=f"account.*{why}") as caught:
        do(account, "select backfill.begin_run('x')")
    assert caught.value.sqlstate == "BF002"
    account.rollback()
    do(account, back)
    run_id = done(account, "insert into account values (5, 5)")
    assert len(changes(account, run_id)) == 1
    assert reverse(account, run_id) == {"restored": 1}
    do(account, "create table copy (like account including all)", "insert into copy select * from account")
    assert value(account, "select count(*) from pg_trigger where tgrelid = 'copy'::regclass") == 0
