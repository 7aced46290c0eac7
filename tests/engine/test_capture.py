"""Capture: whatever way a statement writes, its rows are in change_log; outside a run nothing is."""

from __future__ import annotations

from collections import Counter
from typing import Any

import psycopg
import pytest

from tests.engine.words import Connection, changes, do, done, images, make, refused, reverse, rows, run, value

ACCOUNT = "create table account (id integer primary key, code text, cents bigint not null default 0)"


@pytest.fixture
def account(conn: psycopg.Connection) -> psycopg.Connection:
    """A tracked table of five accounts of 100 cents."""
    make(conn, ACCOUNT, "account")
    do(conn, "insert into account select i, 'A' || i, 100 from generate_series(1, 5) as i")
    conn.commit()
    return conn


def operations(conn: Connection, run_id: object) -> Counter[str]:
    sql = "select table_name || ' ' || operation, count(*) from backfill.change_log where run_id = %s group by 1"
    return Counter(dict(rows(conn, sql, [run_id])))


def test_insert_update_delete_with_before_and_after(account: psycopg.Connection) -> None:
    run_id = done(
        account,
        "insert into account values (6, 'new', 7)",
        "update account set cents = cents + 1 where id <= 2",
        "delete from account where id = 5",
    )
    assert changes(account, run_id, "operation, business_key, amount_before, amount_after, before, after") == [
        ("INSERT", "6", None, None, None, {"id": 6, "code": "new", "cents": 7}),
        ("UPDATE", "1", None, None, {"id": 1, "code": "A1", "cents": 100}, {"id": 1, "code": "A1", "cents": 101}),
        ("UPDATE", "2", None, None, {"id": 2, "code": "A2", "cents": 100}, {"id": 2, "code": "A2", "cents": 101}),
        ("DELETE", "5", None, None, {"id": 5, "code": "A5", "cents": 100}, None),
    ]


def test_business_key_and_cents_are_those_that_track_was_told(account: psycopg.Connection) -> None:
    do(account, "select backfill.track('account', '{code,id}', 'cents')")
    account.commit()
    run_id = done(account, "update account set cents = -5 where id = 1", "delete from account where id = 2")
    assert changes(account, run_id, "business_key, amount_before, amount_after") == [
        ("A1 / 1", 100, -5),
        ("A2 / 2", 100, None),
    ]
    assert rows(account, "select * from backfill.run_totals(%s)", [run_id]) == [
        ("public.account", 0, 1, 1, {"amounts": -205}, 0)
    ]


def test_outside_a_run_nothing_is_captured(account: psycopg.Connection) -> None:
    do(account, "update account set cents = 1", "delete from account", "truncate account")
    account.commit()
    assert value(account, "select count(*) from backfill.change_log") == 0
    run_id = done(account, "insert into account values (1)")
    do(account, "insert into account values (2)")
    account.commit()
    assert operations(account, run_id) == {"public.account INSERT": 1}


def test_statements_that_write_nothing_leave_nothing(account: psycopg.Connection) -> None:
    run_id = done(account, "update account set cents = 1 where false", "delete from account where false")
    assert changes(account, run_id) == []


def test_merge(account: psycopg.Connection) -> None:
    before = images(account, "account")
    run_id = done(
        account,
        """merge into account as a using (values (1, 1), (2, -1), (9, 9)) as s (id, cents) on a.id = s.id
        when matched and s.cents < 0 then delete
        when matched then update set cents = s.cents
        when not matched then insert values (s.id, 'merged', s.cents)""",
    )
    assert operations(account, run_id) == {
        "public.account INSERT": 1,
        "public.account UPDATE": 1,
        "public.account DELETE": 1,
    }
    assert reverse(account, run_id) == {"restored": 3}
    assert images(account, "account") == before


def test_on_conflict_do_update(account: psycopg.Connection) -> None:
    before = images(account, "account")
    run_id = done(
        account,
        """insert into account select i, 'upsert', i from generate_series(4, 8) as i
        on conflict (id) do update set code = excluded.code, cents = excluded.cents""",
        "insert into account values (1) on conflict do nothing",
    )
    assert operations(account, run_id) == {"public.account INSERT": 3, "public.account UPDATE": 2}
    assert reverse(account, run_id) == {"restored": 5}
    assert images(account, "account") == before


def test_copy(account: psycopg.Connection) -> None:
    with run(account) as run_id, account.cursor() as cursor, cursor.copy("copy account (id, cents) from stdin") as copy:
        for i in range(10, 2510):
            copy.write_row((i, i))
    assert operations(account, run_id) == {"public.account INSERT": 2500}
    assert sorted(set(changes(account, run_id, "dense_rank() over (order by statement), pack"))) == [
        (1, 0),
        (1, 1),
        (1, 2),
    ]
    assert reverse(account, run_id) == {"restored": 2500}


def test_data_modifying_ctes(account: psycopg.Connection) -> None:
    make(account, "create table archive (id integer primary key, cents bigint)", "archive")
    before = images(account, "account", "archive")
    run_id = done(
        account,
        """with gone as (delete from account where id > 2 returning id, cents),
            raised as (update account set cents = 0 where id = 1)
        insert into archive select id, cents from gone""",
    )
    assert operations(account, run_id) == {
        "public.account DELETE": 3,
        "public.account UPDATE": 1,
        "public.archive INSERT": 3,
    }
    assert reverse(account, run_id) == {"restored": 7}
    assert images(account, "account", "archive") == before


@pytest.mark.parametrize("action", ["cascade", "set null", "set default"])
def test_foreign_key_actions_are_captured(account: psycopg.Connection, action: str) -> None:
    make(
        account,
        f"""create table posting (id integer primary key,
            account_id integer default 1 references account on delete {action} on update cascade,
            other_id integer default 1 references account on delete {action} on update cascade)""",
        "posting",
    )
    do(account, "insert into posting select i, 1 + i % 5, 1 + i / 3 % 5 from generate_series(1, 30) as i")
    before = images(account, "account", "posting")
    # A row with both references to the account is met twice by one statement.
    run_id = done(account, "delete from account where id in (2, 4)", "update account set id = id + 10 where id = 3")
    assert images(account, "posting") != before
    assert reverse(account, run_id)["restored"] > 3
    assert images(account, "account", "posting") == before


def test_a_cascade_within_one_table(conn: psycopg.Connection) -> None:
    """The key moves and the cascade follows in the same statement: some rows are updated twice."""
    make(
        conn,
        """create table node (id integer primary key,
            parent integer references node on update cascade on delete cascade, label text)""",
        "node",
    )
    do(conn, "insert into node values (1, null, 'a'), (2, 1, 'b'), (3, 2, 'c'), (4, 2, 'd'), (5, null, 'e')")
    before = images(conn, "node")
    run_id = done(conn, "update node set id = id + 100 where id <= 3")
    moved = images(conn, "node")
    assert value(conn, "select array_agg(parent order by id) from node") == [102, None, None, 101, 102]
    assert reverse(conn, run_id) == {"restored": 7}
    assert images(conn, "node") == before
    again = value(conn, "select reversed_by from backfill.backfill_log where run_id = %s", [run_id])
    assert reverse(conn, again) == {"restored": 7}
    assert images(conn, "node") == moved
    deleted = done(conn, "delete from node where id = 101")
    assert operations(conn, deleted) == {"public.node DELETE": 4}
    assert reverse(conn, deleted) == {"restored": 4}
    assert images(conn, "node") == moved


@pytest.mark.parametrize("work_mem", ["64kB", "64MB"])
def test_old_and_new_images_are_paired_across_packs(conn: psycopg.Connection, work_mem: str) -> None:
    """2,500 rows, wide enough to spill to disk, whose keys all move at once."""
    make(
        conn,
        "create table ticket (id integer primary key deferrable, cents bigint, note text)",
        "ticket",
    )
    do(conn, f"set work_mem = '{work_mem}'")
    do(conn, "insert into ticket select i, i * 7, repeat(md5(i::text), 20) from generate_series(1, 2500) as i")
    before = images(conn, "ticket")
    run_id = done(
        conn, "update ticket set id = 2501 - id, cents = cents + 1", "update ticket set note = '' where id > 2490"
    )
    pairs: list[tuple[Any, ...]] = rows(
        conn,
        """select count(*), count(*) filter (where (after ->> 'id')::int = 2501 - (before ->> 'id')::int
            and (after ->> 'cents')::int = (before ->> 'cents')::int + 1
            and before ->> 'note' = repeat(md5(before ->> 'id'), 20))
        from (select *, dense_rank() over (order by statement) as nth from backfill.change_log where run_id = %s) as c
        where nth = 1""",
        [run_id],
    )
    assert pairs == [(2500, 2500)]
    assert reverse(conn, run_id) == {"restored": 2500}
    assert images(conn, "ticket") == before


def test_swapped_keys(account: psycopg.Connection) -> None:
    make(account, "create table swap (id integer primary key deferrable, label text)", "swap")
    do(account, "insert into swap values (1, 'same'), (2, 'same'), (3, 'x'), (4, 'y')")
    before = images(account, "swap")
    run_id = done(account, "update swap set id = case id when 1 then 2 when 2 then 1 when 3 then 4 else 3 end")
    assert reverse(account, run_id) == {"restored": 2}, "two rows that differ in nothing but the key did not change"
    assert images(account, "swap") == before


def test_triggers_that_write_are_captured_in_any_nesting(account: psycopg.Connection) -> None:
    """Row triggers write before the statement that fires them is captured: the undo must not depend on the order."""
    do(
        account,
        """create function touch() returns trigger language plpgsql as $$ begin
            if pg_trigger_depth() = 1 then
                update account set code = code || '!' where id = new.id;
                update account set cents = cents where id = new.id;
            end if;
            return new;
        end $$""",
        "create trigger touch after insert or update on account for each row execute function touch()",
    )
    account.commit()
    before = images(account, "account")
    run_id = done(
        account,
        "insert into account values (6, 'six', 6), (7, 'seven', 7)",
        "update account set cents = 3 where id in (1, 6)",
        "delete from account where id in (2, 7)",
    )
    account.execute("alter table account disable trigger touch")
    assert reverse(account, run_id) == {"restored": 3}
    assert images(account, "account") == before


def test_truncate_in_a_run_is_refused(account: psycopg.Connection) -> None:
    do(account, "create table child (account_id integer references account)")
    do(account, "select backfill.begin_run('clean up')")
    with pytest.raises(psycopg.Error, match=r"TRUNCATE of public\.account is refused inside a run") as caught:
        do(account, "truncate child, account")
    assert caught.value.sqlstate == "BF003"
    assert "Use DELETE" in refused(caught)


@pytest.mark.parametrize(
    ("action", "statement"),
    [
        ("on delete cascade", "delete from account where id = 1"),
        ("on delete set null", "delete from account where id = 1"),
        ("on update cascade", "update account set id = 9 where id = 1"),
    ],
)
def test_a_cascade_into_a_table_that_is_not_tracked_is_refused(
    account: psycopg.Connection, action: str, statement: str
) -> None:
    do(account, f"create table child (id integer primary key, account_id integer references account {action})")
    do(account, "insert into child values (1, 1)")
    account.commit()
    do(account, "select backfill.begin_run('clean up')")
    do(account, "update account set cents = 7 where id = 2", "delete from account where id = 5")  # of no child
    with pytest.raises(psycopg.Error, match=r"of public\.account changes rows of public\.child, which") as caught:
        do(account, statement)
    assert caught.value.sqlstate == "BF003"
    assert "select backfill.track('public.child');" in refused(caught)
    account.rollback()
    do(account, "select backfill.track('public.child')")
    account.commit()
    before = images(account, "child")
    run_id = done(account, statement)
    assert images(account, "child") != before
    reverse(account, run_id)
    assert images(account, "child") == before


def test_a_savepoint_takes_its_changes_with_it(account: psycopg.Connection) -> None:
    with run(account) as run_id:
        do(
            account,
            "update account set cents = 1 where id = 1",
            "savepoint a",
            "update account set cents = 2",
            "delete from account where id = 5",
            "rollback to a",
            "update account set cents = 3 where id = 2",
        )
    assert changes(account, run_id, "dense_rank() over (order by statement), business_key") == [(1, "1"), (2, "2")]
    assert reverse(account, run_id) == {"restored": 2}


ODD_COLUMNS = """
    "Id" integer, "new" text, "old" text, v_run text, "%s" text, "it's ""x" text, "{umlauts}" json,
    pack integer, result text, has_before boolean, primary key ("Id", "it's ""x")
"""


def test_names_that_need_quotes_or_are_too_long(conn: psycopg.Connection) -> None:
    tables = [f'"Odd Schema"."{"ä" * 31}"', '"Odd Schema"."it\'s a ""table"""', "a_b.c", "a.b_c"]
    do(conn, 'create schema "Odd Schema"', "create schema a", "create schema a_b")
    for table in tables:
        make(conn, f"create table {table} ({ODD_COLUMNS.replace('{umlauts}', 'ü' * 31)})", table)
    do(conn, *(f"insert into {table} values (1, '', '', '', '', 'k', '[]', 1, 'r', true)" for table in tables))
    before = images(conn, *tables)
    run_id = done(
        conn,
        *(f"insert into {table} values (2, 'a', 'b', 'c', 'd', 'e', '{{}}', 1, 'r', true)" for table in tables),
        *(f"""update {table} set "new" = 'z', "%s" = '%' where "Id" = 1""" for table in tables),
    )
    assert operations(conn, run_id) == {f"{t} {op}": 1 for t in tables for op in ("INSERT", "UPDATE")}
    assert reverse(conn, run_id) == {"restored": 8}
    assert images(conn, *tables) == before


def test_a_run_that_changes_rows_twice_reports_each_statement(account: psycopg.Connection) -> None:
    run_id = done(account, *["update account set cents = cents + 1 where id = 1"] * 3)
    assert changes(
        account, run_id, "dense_rank() over (order by statement), before ->> 'cents', after ->> 'cents'"
    ) == [
        (1, "100", "101"),
        (2, "101", "102"),
        (3, "102", "103"),
    ]
