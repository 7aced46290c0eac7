"""Ways past the capture that leave no trigger switched off and no table altered: found, and what only looks so not."""

from __future__ import annotations

from itertools import product

import psycopg
import pytest

from tests.engine.words import changes, do, done, images, make, refused, reverse, rows, value

TABLES = """
    create table account (id integer primary key, code text unique, cents bigint not null default 0);
    create table other (id integer primary key, cents bigint);
    create table child (id integer primary key, account_id integer constraint fk references account);
    insert into account select i, 'A' || i, 100 from generate_series(1, 5) as i;
    insert into other values (1);
    create table free (id integer primary key, account_id integer);
    insert into child values (3, 3);
    insert into free values (4, 4)"""
CASCADE = "alter table free add constraint new foreign key (account_id) references account on delete cascade"
DROPPED = "alter table free drop constraint new"


@pytest.fixture
def account(conn: psycopg.Connection) -> psycopg.Connection:
    """Two tracked tables, and one that is not and refers to the first; five accounts of 100 cents."""
    make(conn, TABLES, "account", "other")
    return conn


def refuse(conn: psycopg.Connection, *statements: str) -> str:
    """What finishing the open run says; nothing of it is kept."""
    with pytest.raises(psycopg.Error) as caught:
        do(conn, *statements, "select backfill.finish_run()")
    assert caught.value.sqlstate == "BF012", refused(caught)
    conn.rollback()
    assert value(conn, "select count(*) from backfill.backfill_log") == 0
    return refused(caught)


CARRIED = {
    "made and dropped again": (CASCADE, "delete from account where id = 4", DROPPED),
    "exchanged there and back": (
        "alter table child drop constraint fk",
        "alter table child add constraint fk foreign key (account_id) references account on delete cascade",
        "delete from account where id = 3",
        "alter table child drop constraint fk",
        "alter table child add constraint fk foreign key (account_id) references account",
    ),
    "of updates": (
        "alter table child drop constraint fk",
        "alter table child add constraint fk foreign key (account_id) references account on update cascade",
        "update account set id = 33 where id = 3",
        "alter table child drop constraint fk",
        "alter table child add constraint fk foreign key (account_id) references account",
    ),
    "of a table that came and went": (
        "create table guest (id integer references account on delete set null)",
        "insert into guest values (4)",
        "delete from account where id = 4",
        "drop table guest",
    ),
    "in a savepoint that was kept": (
        "savepoint a",
        CASCADE,
        "delete from account where id = 4",
        "savepoint b",
        DROPPED,
        "release a",
    ),
    "left there": (CASCADE, "delete from account where id = 4"),
    "left there, with guards that came too late": (
        CASCADE,
        "delete from account where id = 4",
        "select backfill.guard_children()",
    ),
    "and what it carried on to has no guard any more": (
        "alter table late disable trigger user",
        "delete from account where id = 5",
        "alter table late enable trigger user",
    ),
}


@pytest.mark.parametrize("case", CARRIED)
def test_a_foreign_key_of_the_run_itself_may_have_carried_on(account: psycopg.Connection, case: str) -> None:
    do(account, "create table late (id integer references account on delete cascade)", "insert into late values (5)")
    account.commit()
    for earlier in ("select 1", "alter table account add check (cents >= 0)", "alter table child drop constraint fk"):
        if earlier.endswith("fk") and "drop constraint fk" in str(CARRIED[case]):
            continue
        do(account, earlier, "select backfill.begin_run('x')", "update account set cents = 7 where id = 2")
        said = refuse(account, *CARRIED[case])
        assert "public.account: a foreign key" in said or "account by a new foreign" in said or "public.late" in said
    assert rows(account, "select id from child union all select id from free order by 1") == [(3,), (4,)]


HARMLESS = {
    "dropped and made again": (
        "alter table child drop constraint fk",
        "insert into child values (9, 9)",
        "insert into account values (9, 'A9')",
        "alter table child add constraint fk foreign key (account_id) references account",
    ),
    "only dropped": ("alter table child drop constraint fk", "delete from account where id = 3"),
    "between tables that came and went": (
        "lock table account",
        "create table mother (id integer primary key)",
        "create table daughter (id integer primary key references mother on delete cascade)",
        "drop table mother, daughter",
    ),
    "taken back": ("savepoint a", CASCADE, "delete from account where id = 4", "rollback to a"),
    "made, used and dropped, and taken back": ("savepoint a", *CARRIED["made and dropped again"], "rollback to a"),
    "between tracked tables": (
        "alter table other add foreign key (id) references account on delete cascade",
        "delete from account where id = 1",
    ),
    "none at all": (
        "create temporary table scratch (id integer primary key, code text unique)",
        "drop table scratch",
        "create temporary view seen as select 1",
        "drop view seen",
    ),
    "a right, given": ("grant select on account to public", "grant select (cents) on account to public"),
}


@pytest.mark.parametrize("earlier", ["select 1", "alter table account add check (cents >= 0)"])
@pytest.mark.parametrize("case", HARMLESS)
def test_a_foreign_key_that_carried_nothing_on_is_no_reason(
    account: psycopg.Connection, case: str, earlier: str
) -> None:
    do(account, earlier)
    if case == "a right, given":  # after an ALTER TABLE of the same transaction it would look like another
        account.commit()
    before = images(account, "account", "other")
    run_id = done(account, "update account set cents = 7 where id = 2", *HARMLESS[case], "analyze account")
    if case != "between tracked tables":
        do(account, "delete from child where id = 9")
        assert set(reverse(account, run_id)) == {"restored"}
        assert images(account, "account", "other") == before


KEPT_BY = ("backfill_audit.public_account_row", "backfill_audit.public_account")
RULES = [f"create rule nothing as on insert to {table} do instead nothing" for table in KEPT_BY]
TRIGGERS = [
    f"create trigger swallow before insert on {table} for each row execute function swallow()" for table in KEPT_BY
]
HIDDEN = {
    "the switch renamed there and back": (
        "alter table pg_temp.backfill_open_run rename to away",
        "{0}",
        "alter table pg_temp.away rename to backfill_open_run",
    ),
    "rules on what keeps the images": (*RULES, "{0}"),
    "rules that are gone again": (*RULES, "{0}", *(f"drop rule nothing on {table}" for table in KEPT_BY)),
    "triggers on what keeps the images": (*TRIGGERS, "{0}"),
    "triggers that are gone again": (*TRIGGERS, "{0}", *(f"drop trigger swallow on {table}" for table in KEPT_BY)),
    "the images deleted": (
        "{0}",
        f"alter table {KEPT_BY[0]} disable trigger refuse_change",
        f"delete from {KEPT_BY[0]} where statement = (select max(statement) from {KEPT_BY[0]})",
        f"alter table {KEPT_BY[0]} enable always trigger refuse_change",
    ),
    "out of the register": ("update backfill.tracked set active = false where table_name = 'public.account'", "{0}"),
}
WRITES = ["delete from account where id = 4", "update account set cents = 0 where id = 4"]


@pytest.mark.parametrize("case", HIDDEN)
def test_the_owner_of_the_engine_hides_a_write(account: psycopg.Connection, case: str) -> None:
    do(account, "create function swallow() returns trigger language plpgsql as 'begin return null; end'")
    account.commit()
    for write, counting in product(WRITES, ("on", "off")):
        do(account, "select backfill.begin_run('x')", "update account set cents = 7 where id = 2")
        if counting == "off":
            do(account, "set local track_counts = off")
        said = refuse(account, *(statement.format(write) for statement in HIDDEN[case]))
        assert "account" in said or "backfill_open_run" in said
    assert rows(account, "select sum(cents), count(*) from account") == [(500, 5)]


@pytest.mark.parametrize("case", HIDDEN)
def test_a_table_that_is_tracked_in_the_same_transaction(conn: psycopg.Connection, case: str) -> None:
    """What the transaction altered before the run began says nothing of the run; the rows do."""
    do(conn, "create function swallow() returns trigger language plpgsql as 'begin return null; end'", TABLES)
    do(conn, "select backfill.track('account')", "select backfill.begin_run('x')")
    refuse(conn, *(statement.format("delete from account where id = 4") for statement in HIDDEN[case]))


def test_a_rule_of_another_day_keeps_every_image_out(account: psycopg.Connection) -> None:
    do(account, RULES[0])
    account.commit()
    do(account, "select backfill.begin_run('x')")
    assert "backfill_audit.public_account_row, which keeps the images of public.account" in refuse(account, *WRITES)


GAPS = {
    "a row that the run left alone": ("delete from account where id = 4", "deleted past the capture: 4"),
    "several": ("delete from account where id in (3, 4, 5)", "3 rows were deleted past the capture: 3, 4, 5"),
    "a row that the run wrote": ("delete from account where id = 1", "deleted past the capture: 1"),
    "a row that the run made": ("delete from account where id = 8", "deleted past the capture: 8"),
    "a row that was written before the run": ("delete from account where id = 2", "deleted past the capture: 2"),
    "a row made again": ("delete from account where id = 4", "deleted past the capture: 4"),
    "a row locked afterwards": ("update account set cents = 0 where id = 2", "written past the capture: 2"),
}


@pytest.mark.parametrize("case", GAPS)
def test_what_went_past_the_capture_is_named(account: psycopg.Connection, case: str) -> None:
    """As a fault of the engine would write: nothing shows it but the rows."""
    statement, said = GAPS[case]
    for off, on in (("select 1", "select 1"), ("set track_counts = off", "select 1"),
                    ("set track_counts = off", "set track_counts = on")):  # fmt: skip
        do(account, "delete from child", "update account set cents = 5 where id = 2", "select backfill.begin_run('x')")
        do(account, "insert into account values (8, 'A8')")
        do(account, "savepoint a", "delete from account where id = 3", "rollback to a")
        do(account, "update account set cents = 1 where id = 1", "update other set cents = 1")
        do(account, "select backfill.pause_capture(true)", off, statement, on, "select backfill.pause_capture(false)")
        if case == "a row made again":
            do(account, "insert into account values (4, 'A4', 100)")
        elif case == "a row locked afterwards":
            do(account, "select from account where id = 2 for update")
        assert said in refuse(account)


def test_counters_that_are_off_are_no_reason(account: psycopg.Connection) -> None:
    before = images(account, "account", "other")
    do(account, "delete from child", "update account set cents = 3 where id = 5")
    account.commit()
    do(account, "set track_counts = off", "update account set cents = 100 where id = 5")
    run_id = done(
        account,
        "update account set cents = 1 where id <= 2",
        "update account set id = id + 10 where id = 1",
        "delete from account where id = 3",
        "insert into account values (3, 'again')",
        "savepoint a",
        "delete from account",
        "rollback to a",
        "select from account for update",
        "insert into account values (9, 'A9')",
        "delete from account where id in (9, 4)",
        "set track_counts = on",
    )
    assert set(reverse(account, run_id)) == {"restored"}
    assert images(account, "account", "other") == before


def test_keys_that_are_equal_in_another_spelling(conn: psycopg.Connection) -> None:
    make(conn, "create table rate (at numeric, note text, primary key (at, note))", "rate")
    do(conn, "insert into rate values (1.0, 'a'), (2.00, 'b c'), (3, 'd')")
    conn.commit()
    do(conn, "set track_counts = off", "select backfill.begin_run('x')", "update rate set at = 1.000 where at = 1")
    do(conn, "delete from rate where at = 2", "insert into rate values (2, 'b c')", "select backfill.finish_run()")
    do(conn, "select backfill.begin_run('y')", "update rate set note = note || '!'")
    do(
        conn,
        "select backfill.pause_capture(true)",
        "delete from rate where at = 3",
        "select backfill.pause_capture(false)",
    )
    with pytest.raises(psycopg.Error, match=r"1 rows were deleted past the capture: 3 / d!"):
        do(conn, "select backfill.finish_run()")


AS_OURS = (
    "select r.* from (select generate_series(1, 1000000) as i) as x cross join lateral backfill.rows_before(x.i) as r"
)


def test_the_cursor_of_the_proof_is_needed_only_where_something_is_in_doubt(account: psycopg.Connection) -> None:
    done(account, "close all", "update account set cents = 1")
    for another in ("select true, null::jsonb, null::tid[] /* backfill.rows_before */", AS_OURS):
        do(account, "select backfill.begin_run('x')", "update other set cents = 1", "savepoint a")
        do(account, "delete from other", "rollback to a", "close all", f"declare backfill_before cursor for {another}")
        with pytest.raises(psycopg.Error, match=r"public\.other: .* backfill_before, .* was closed") as caught:
            do(account, "select backfill.finish_run()")
        assert caught.value.sqlstate == "BF012"
        account.rollback()


@pytest.mark.parametrize("level", ["read committed", "repeatable read"])
def test_what_another_session_deletes_meanwhile(account: psycopg.Connection, database_url: str, level: str) -> None:
    with psycopg.connect(database_url) as other:
        do(account, f"set transaction isolation level {level}", "select backfill.begin_run('x')")
        do(account, "update account set cents = 1 where id = 1", "savepoint a", "delete from account where id = 2")
        do(account, "rollback to a")
        do(other, "select from account where id = 1 for key share", "delete from account where id in (4, 5)")
        do(other, "insert into account values (6, 'A6', 6)", "update account set cents = 8 where id = 3")
        other.commit()
        do(account, "insert into account values (5, 'new', 0)", "select backfill.finish_run()")
        account.commit()


SHAPES = {
    "a column renamed": "alter table account rename column code to name",
    "a column dropped": "alter table account drop column code",
    "the key renamed": "alter table account rename column id to number",
    "a column retyped": "alter table account alter column cents type text",
    "a column dropped and made again": "alter table account drop column cents, add column cents text",
    "all of it": "alter table account drop column code, drop column cents, add column code text, add column v_run text",
}


@pytest.mark.parametrize("case", SHAPES)
def test_a_write_after_a_column_was_altered_is_told_apart(account: psycopg.Connection, case: str) -> None:
    """Not by an error of the capture function, which knows nothing of who altered what."""
    do(account, "delete from child", "select backfill.begin_run('x')")
    do(account, "update account set code = code where id = 1", "delete from account where id < 3", SHAPES[case])
    key = "number" if "number" in SHAPES[case] else "id"
    said = refuse(account, f"update account set {key} = {key}", f"insert into account ({key}) values (9)",
                  f"delete from account where {key} = 9", "delete from account")  # fmt: skip
    assert "public.account: a column was added, dropped, renamed or retyped" in said


def test_a_column_may_be_called_as_a_variable_of_the_capture(conn: psycopg.Connection) -> None:
    make(
        conn,
        """create table odd (tg_relid integer primary key, v_rows text, found text, new_rows text, c1 text, n text,
        r text, "%s" text, pack integer)""",
        "odd",
    )
    for last in (1, 3):
        run_id = done(
            conn,
            "insert into odd (tg_relid, v_rows, found, c1, r, pack)"
            f" select i, 'a', 'b', 'c', 'd', 7 from generate_series(1, {last}) as i",
            """update odd set c1 = 'new', n = 'y', "%s" = 'percent'""",
        )
        assert {row[0]["v_rows"] for row in changes(conn, run_id, "after")} == {"a"}
        assert reverse(conn, run_id) == {"restored": last}


OTHERS = {
    "triggers off and on": ("alter table other disable trigger user", "alter table other enable trigger user",
        "alter table other enable always trigger backfill_capture_insert"),
    "triggers off": ("alter table other disable trigger user",),
    "a foreign key": ("create table guest (id integer references other on delete cascade)",),
    "a column": ("alter table other drop column cents", "alter table other add column note text"),
    "a name": ("alter table other rename to another",),
    "gone": ("drop table other",),
    "tracked anew": ("alter table other add column note text", "select backfill.track('other')"),
    "no longer tracked": ("select backfill.untrack('other')",),
    "a rule on its images": ("create rule nothing as on insert to backfill_audit.public_other do instead nothing",),
}  # fmt: skip


@pytest.mark.parametrize("case", OTHERS)
def test_what_another_session_does_to_a_table_that_the_run_leaves_alone(
    account: psycopg.Connection, database_url: str, case: str
) -> None:
    before = images(account, "account")
    do(account, "select backfill.begin_run('x')", "update account set cents = 1 where id = 1")
    with psycopg.connect(database_url) as other:
        do(other, *OTHERS[case])
    do(account, "select count(*) from account", "select backfill.finish_run()")
    account.commit()
    if case != "triggers off":  # otherwise the undo itself is refused
        run_id = value(account, "select run_id from backfill.backfill_log")
        assert set(reverse(account, run_id)) == {"restored"}
        assert images(account, "account") == before


@pytest.mark.parametrize("case", ["triggers off", "a foreign key", "a column"])
def test_the_same_is_a_reason_where_the_run_writes_the_table(
    account: psycopg.Connection, database_url: str, case: str
) -> None:
    do(account, "select backfill.begin_run('x')")
    with psycopg.connect(database_url) as other:
        do(other, *OTHERS[case])
    assert "other" in refuse(account, "insert into other (id) values (9)", "delete from other where id = 1")


def test_a_foreign_key_of_another_session_carries_nothing_on_of_an_insert(
    account: psycopg.Connection, database_url: str
) -> None:
    do(account, "select backfill.begin_run('x')")
    with psycopg.connect(database_url) as other:
        do(other, *OTHERS["a foreign key"])
    do(account, "insert into other (id) values (9)", "select backfill.finish_run()")
    account.commit()


@pytest.mark.parametrize(
    "made",
    [
        "create temporary table backfill_open_run ()",
        "create temporary view backfill_open_run as select 1",
        "create temporary sequence backfill_paused_run",
        "create type pg_temp.backfill_open_run as enum ('on')",
        "declare backfill_before cursor for select 1",
    ],
)
def test_a_name_of_the_engine_is_taken(account: psycopg.Connection, made: str) -> None:
    do(account, made)
    with pytest.raises(psycopg.Error, match=r"in the way") as caught:
        do(account, "select backfill.begin_run('x')")
    assert caught.value.sqlstate == "BF001"
    account.rollback()
    do(account, made, "close all", "discard temp")
    done(account, "update account set cents = 1")
