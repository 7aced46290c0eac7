"""Runs: opened, finished, over several transactions, two at once; and who may be captured."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql

from tests.engine.words import changes, do, done, make, refused, reverse, rows, run, value


@pytest.fixture
def entry(conn: psycopg.Connection) -> psycopg.Connection:
    """A tracked, empty table."""
    make(conn, "create table entry (id integer primary key, cents bigint)", "entry")
    return conn


@pytest.fixture
def role(conn: psycopg.Connection) -> Iterator[str]:
    """A login role of the application, which has no right on anything of the project."""
    name = f"app_{uuid4().hex[:8]}"
    conn.execute(sql.SQL("create role {} login").format(sql.Identifier(name)))
    conn.commit()
    yield name
    conn.rollback()
    conn.execute("reset role")
    conn.execute(sql.SQL("drop owned by {0}; drop role {0}").format(sql.Identifier(name)))
    conn.commit()


def refusal(conn: psycopg.Connection, statement: str, *params: object) -> tuple[str | None, str]:
    """SQLSTATE and text with which the server refuses a statement; what was open is rolled back."""
    with pytest.raises(psycopg.Error) as caught:
        conn.execute(statement.encode(), params)
        conn.commit()
    conn.rollback()
    return caught.value.sqlstate, refused(caught)


def test_the_log_says_who_what_and_when(entry: psycopg.Connection) -> None:
    do(entry, "set timezone = 'Europe/Zurich'")
    run_id = value(
        entry,
        """select backfill.begin_run('hotfix: why', '{"a": 1}', '{"entry": 7}', p_actor => 'a person')""",
    )
    assert value(entry, "select backfill.open_run()") == run_id
    do(entry, "insert into entry values (7, 70)")
    entry.execute("""select backfill.finish_run('{"note": "x"}', '[{"entry": 8, "reason": "locked"}]')""")
    entry.commit()
    columns = "backfill, parameters, actor, mode, status, metrics, errors, time_zone, completed_at > started_at"
    assert rows(entry, f"""select {columns} from backfill.backfill_log where subject @> '{{"entry": 7}}'""") == [
        (
            "hotfix: why",
            {"a": 1},
            "a person (claimed) via postgres",
            "manual",
            "partial",
            {
                "note": "x",
                "tables": {"public.entry": {"inserted": 1, "updated": 0, "deleted": 0, "money": None, "finer": 0}},
            },
            [{"entry": 8, "reason": "locked"}],
            "Europe/Zurich",
            True,
        )
    ]
    assert value(entry, "select backfill.open_run()") is None


def test_states_that_are_refused(entry: psycopg.Connection) -> None:
    assert refusal(entry, "select backfill.finish_run()")[0] == "BF001"
    assert refusal(entry, "select backfill.begin_run('')")[0] == "BF009"
    assert refusal(entry, "select backfill.begin_run(null)")[0] == "BF009"
    assert refusal(entry, "select backfill.begin_run('mine', p_mode => 'reversal')")[0] == "BF001"
    assert refusal(entry, "select backfill.run('charge')")[1].startswith(
        "there is no backfill charge; there are: charges"
    )
    do(entry, "select backfill.begin_run('one')")
    state, said = refusal(entry, "select backfill.begin_run('two')")
    assert state == "BF001"
    assert "already open" in said
    do(entry, "select backfill.begin_run('one')")
    assert refusal(entry, "select backfill.run('charges')")[0] == "BF001"
    assert value(entry, "select count(*) from backfill.backfill_log") == 0


def test_an_unfinished_run_cannot_commit(entry: psycopg.Connection) -> None:
    do(entry, "select backfill.begin_run('forgotten')", "insert into entry values (1)")
    with pytest.raises(psycopg.Error, match=r"run .* \(forgotten\) is still open: nothing was committed") as caught:
        entry.commit()
    assert caught.value.sqlstate == "BF001"
    assert rows(entry, "select from entry") == []
    assert value(entry, "select count(*) from backfill.backfill_log") == 0


def test_several_runs_in_one_transaction(entry: psycopg.Connection) -> None:
    ids = []
    for i in range(3):
        ids.append(value(entry, "select backfill.begin_run('each')"))
        entry.execute("insert into entry values (%s)", [i])
        do(entry, "select backfill.finish_run()")
    entry.commit()
    assert [changes(entry, run_id, "business_key") for run_id in ids] == [[("0",)], [("1",)], [("2",)]]
    assert reverse(entry, ids[1]) == {"restored": 1}


def test_a_run_rolled_back_to_a_savepoint_is_closed(entry: psycopg.Connection) -> None:
    do(entry, "savepoint a", "select backfill.begin_run('gone')", "insert into entry values (1)", "rollback to a")
    assert value(entry, "select backfill.open_run()") is None
    do(entry, "insert into entry values (2)")
    entry.commit()
    assert value(entry, "select count(*) from backfill.change_log") == 0


def test_a_run_over_several_transactions(entry: psycopg.Connection, database_url: str) -> None:
    run_id = value(entry, "select backfill.begin_run('long', p_spans_transactions => true)")
    entry.commit()
    with psycopg.connect(database_url) as other:
        status = "select status from backfill.backfill_log where run_id = %s"
        assert value(other, status, [run_id]) == "running", "its row is there before the work"
        for i in range(1, 4):
            other.execute("select backfill.resume_run(%s)", [run_id])
            do(other, f"insert into entry values ({i}, {i})", f"update entry set cents = 10 * id where id = {i}")
            if i == 2:
                other.rollback()
            else:
                other.commit()
        do(other, "insert into entry values (9)")
        other.commit()
        other.execute("select backfill.resume_run(%s)", [run_id])
        other.execute("select backfill.finish_run(p_status => 'failed')")
        other.commit()
    assert changes(entry, run_id, "dense_rank() over (order by statement), operation, business_key") == [
        (1, "INSERT", "1"),
        (2, "UPDATE", "1"),
        (3, "INSERT", "3"),
        (4, "UPDATE", "3"),
    ]
    assert refusal(entry, "select backfill.resume_run(%s)", run_id)[0] == "BF001"
    assert reverse(entry, run_id) == {"restored": 2}
    assert rows(entry, "select id from entry") == [(9,)]


def test_what_others_did_between_the_transactions_of_a_run_is_not_undone(entry: psycopg.Connection) -> None:
    do(entry, "insert into entry values (1, 0)")
    run_id = value(entry, "select backfill.begin_run('long', p_spans_transactions => true)")
    do(entry, "update entry set cents = 1")
    entry.commit()
    do(entry, "update entry set cents = 50")
    entry.commit()
    entry.execute("select backfill.resume_run(%s)", [run_id])
    do(entry, "update entry set cents = 51", "select backfill.finish_run()")
    entry.commit()
    assert refusal(entry, "select backfill.reverse_run(%s)", run_id)[0] == "BF005"


def test_only_such_a_run_is_resumed(entry: psycopg.Connection) -> None:
    run_id = done(entry, "insert into entry values (1)")
    for other in (run_id, uuid4()):
        state, said = refusal(entry, "select backfill.resume_run(%s)", other)
        assert (state, "is not a running run that spans transactions" in said) == ("BF001", True)


def test_two_sessions_take_turns(entry: psycopg.Connection, database_url: str) -> None:
    do(entry, "select backfill.begin_run('first')", "insert into entry values (1)")
    with psycopg.connect(database_url) as other:
        do(other, "set lock_timeout = '50ms'")
        other.commit()
        for statement in ("select backfill.begin_run('second')", "select backfill.run('charges')"):
            assert refusal(other, statement)[0] == "55P03", "lock_timeout decides how long to wait"
        other.execute("insert into entry values (2)")  # who is in no run waits for nobody
        other.commit()
        entry.execute("select backfill.finish_run()")
        entry.commit()
        second = done(other, "insert into entry values (3)")
        assert changes(other, second, "business_key") == [("3",)]


def test_a_killed_session_leaves_nothing_and_no_lock(entry: psycopg.Connection, database_url: str) -> None:
    with psycopg.connect(database_url) as victim:
        do(victim, "select backfill.begin_run('killed')", "insert into entry values (1)")
        pid = victim.info.backend_pid
        assert value(entry, "select pg_terminate_backend(%s, 10000)", [pid]) is True
        with pytest.raises(psycopg.OperationalError):
            victim.execute("select 1")
    entry.commit()
    done(entry, "insert into entry values (2)")
    assert rows(entry, "select backfill from backfill.backfill_log") == [("a correction",)]


def test_an_application_without_any_right_writes_inside_and_outside(entry: psycopg.Connection, role: str) -> None:
    name = sql.Identifier(role)
    entry.execute(sql.SQL("grant select, insert, update, delete on entry to {}").format(name))
    entry.execute(sql.SQL("set role {}").format(name))
    do(entry, "insert into entry values (1, 1)", "update entry set cents = 2", "delete from entry")
    entry.execute("reset role")
    with run(entry) as run_id:
        entry.execute(sql.SQL("set role {}").format(name))
        do(entry, "insert into entry values (2, 2)", "update entry set cents = 3")
        entry.execute("reset role")
    assert changes(entry, run_id, "operation, before, after") == [
        ("INSERT", None, {"id": 2, "cents": 2}),
        ("UPDATE", {"id": 2, "cents": 2}, {"id": 2, "cents": 3}),
    ]


def test_a_run_is_forged_by_no_setting_and_no_table(entry: psycopg.Connection, role: str) -> None:
    """Whose run it is follows from the transaction."""
    finished = done(entry, "insert into entry values (1)")
    entry.execute(sql.SQL("grant insert on entry to {}").format(sql.Identifier(role)))
    entry.execute(sql.SQL("grant temporary on database {} to {}").format(
        sql.Identifier(entry.info.dbname), sql.Identifier(role)))  # fmt: skip
    entry.execute("select set_config('backfill.run_id', %s, false)", [str(finished)])
    entry.execute(sql.SQL("set role {}").format(sql.Identifier(role)))
    do(entry, "insert into entry values (2)")
    entry.commit()
    do(entry, "create temporary table backfill_open_run ()")
    for values in ("(3)", "(3), (4)"):
        with pytest.raises(psycopg.Error, match="no run is open in this transaction") as caught, entry.transaction():
            entry.execute(f"insert into entry values {values}")
        assert caught.value.sqlstate == "BF001"
    entry.execute("reset role")
    entry.commit()
    assert refusal(entry, "select backfill.begin_run('mine')")[0] == "BF001"
    assert len(changes(entry, finished)) == 1
    entry.execute("reset backfill.run_id")


def test_a_run_refuses_where_nothing_would_be_captured(entry: psycopg.Connection) -> None:
    do(entry, "set session_replication_role = replica")
    assert refusal(entry, "select backfill.begin_run('x')") == (
        "BF001",
        (
            "session_replication_role is replica: neither foreign keys nor triggers of the application would act\n"
            "set session_replication_role = origin;"
        ),
    )
    do(entry, "set session_replication_role = origin", "alter table entry disable trigger user")
    entry.commit()
    state, said = refusal(entry, "select backfill.begin_run('x')")
    assert (state, "triggers of public.entry are disabled" in said) == ("BF001", True)
    do(entry, "alter table entry enable trigger all")
    assert len(changes(entry, done(entry, "insert into entry values (1)"))) == 1


def test_a_table_made_anew_is_captured_again(entry: psycopg.Connection) -> None:
    do(entry, "drop table entry", "create table entry (id integer primary key, cents bigint)")
    run_id = done(entry, "insert into entry values (1)")
    assert len(changes(entry, run_id)) == 1


def test_columns_added_dropped_and_retyped_are_taken_over_by_the_next_run(entry: psycopg.Connection) -> None:
    first = done(entry, "insert into entry values (1, 1)")
    do(entry, "alter table entry add column note text default 'x', alter column cents type numeric(10,2)")
    second = done(entry, "insert into entry values (2, 2.5)")
    do(entry, "alter table entry drop column note", "alter table entry rename column cents to euros")
    third = done(entry, "insert into entry values (3, 3)", "update entry set euros = 4 where id = 3")
    assert changes(entry, first, "after") == [({"id": 1, "euros": 1, "note": None},)]
    assert changes(entry, second, "after") == [({"id": 2, "euros": 2.5, "note": "x"},)]
    assert changes(entry, third, "after ->> 'euros'") == [("3.00",), ("4.00",)]
    assert reverse(entry, third) == {"restored": 1}


def test_a_run_without_news_does_not_touch_the_tables(entry: psycopg.Connection, database_url: str) -> None:
    """begin_run() looks at every tracked table; only one that was altered may be locked by it."""
    do(entry, "alter table entry add column note text", "alter table entry drop column cents")
    done(entry, "insert into entry values (1)")
    do(entry, "select backfill.begin_run('x')")
    modes = "select distinct mode from pg_locks where relation = 'entry'::regclass and pid = pg_backend_pid()"
    assert rows(entry, modes) == []
