"""Each thing that can go wrong on a server: one SQLSTATE, one exit code, one message with the way out.

The server raises every one of these itself; only a full disk is imitated, by RAISE with its SQLSTATE.
"""

from __future__ import annotations

import re
from typing import Any

import psycopg
import pytest

from runner import errors
from runner.database import connect, transaction
from runner.errors import RunnerError, SqlError
from runner.settings import Settings
from tests.place import MIGRATIONS


def translated(settings: Settings, *statements: str) -> RunnerError:
    with pytest.raises(RunnerError) as caught:
        with connect(settings) as conn, transaction(conn, settings):
            for statement in statements:
                conn.execute(statement.encode())
    assert isinstance(caught.value.__cause__, psycopg.Error)
    return caught.value


@pytest.mark.parametrize(
    ("statements", "sqlstate", "exit_code", "words"),
    [
        (["select * from nothing.there"], "42P01", 1, 'relation "nothing.there" does not exist. Is this the right'),
        (["select nosuch from pg_class"], "42703", 1, 'column "nosuch" does not exist'),
        (["set transaction read only", "create table t ()"], "25006", 1, "primary server"),
        (["set local statement_timeout = 10", "select pg_sleep(5)"], "57014", 1, "raise statement_timeout"),
        (["select 1 / 0"], "22012", 1, "division by zero [SQLSTATE 22012]"),
        (["do $$ begin raise 'no room' using errcode = '53100'; end $$"], "53100", 1, "make room"),
        (["do $$ begin raise 'x' using errcode = '40001'; end $$"], "40001", 5, "run the same command"),
        (["do $$ begin raise 'x' using errcode = '40P01', hint = 'Wait.'; end $$"], "40P01", 5, "run the same command"),
    ],
)
def test_server_errors_name_the_way_out(
    empty_settings: Settings, statements: list[str], sqlstate: str, exit_code: int, words: str
) -> None:
    error = translated(empty_settings, *statements)
    assert isinstance(error, SqlError)
    assert (error.sqlstate, error.exit_code) == (sqlstate, exit_code)
    assert words in str(error)


def test_a_server_that_goes_away_says_what_was_kept(empty_settings: Settings) -> None:
    error = translated(empty_settings, "select pg_terminate_backend(pg_backend_pid())")
    assert type(error) is errors.ServerGoneError
    assert error.exit_code == 1
    assert "Nothing of the open transaction" in str(error)


@pytest.mark.parametrize("sqlstate", sorted(errors.CODES))
def test_each_sqlstate_of_our_own_keeps_message_and_hint(empty_settings: Settings, sqlstate: str) -> None:
    raising = f"do $$ begin raise 'row 7 is wrong' using errcode = '{sqlstate}', hint = 'Mend it.'; end $$"
    error = translated(empty_settings, raising)
    assert isinstance(error, SqlError)
    assert (error.sqlstate, str(error)) == (sqlstate, "row 7 is wrong. Mend it.")
    assert error.exit_code == errors.CODES[sqlstate].exit_code


def test_custom_exit_codes() -> None:
    """Of the engine's own; the systems' (BF020 and up) are tested where they are raised."""
    codes = {state: code.exit_code for state, code in errors.CODES.items() if state < "BF020"}
    assert {state: code for state, code in codes.items() if code != 1} == {
        "BF004": 3, "BF005": 6, "BF009": 2, "BF015": 2, "BF016": 5, "BF017": 6, "BF019": 3,
    }  # fmt: skip


def test_each_sqlstate_that_the_migrations_raise_has_its_meaning() -> None:
    raised = {
        state
        for file in MIGRATIONS.rglob("*.sql")
        for state in re.findall(r"'(BF\d{3})'", file.read_text(encoding="utf-8"))
    }
    assert raised == set(errors.CODES)


@pytest.fixture
def reader(empty_settings: Settings) -> Any:
    """A table with a row-security policy, and a role that may read it but not write."""
    with psycopg.connect(empty_settings.conninfo, autocommit=True) as conn:
        conn.execute("create role reader nologin")
        conn.execute("create table money (id int)")
        conn.execute("alter table money enable row level security")
        conn.execute("create policy few on money using (id < 10)")
        conn.execute("create table plain (id int)")
        conn.execute("grant select on money, plain to reader")
        yield
        conn.execute("drop owned by reader")
        conn.execute("drop role reader")


@pytest.mark.usefixtures("reader")
def test_rows_hidden_by_a_policy_are_an_error_not_a_smaller_count(empty_settings: Settings) -> None:
    error = translated(empty_settings, "set local role reader", "select count(*) from public.money")
    assert isinstance(error, SqlError)
    assert error.sqlstate == "42501"
    assert 'table "money"' in str(error)
    assert "BYPASSRLS" in str(error)


@pytest.mark.usefixtures("reader")
def test_a_role_that_may_only_read_is_told_which_table_and_what_to_do(empty_settings: Settings) -> None:
    error = translated(empty_settings, "set local role reader", "insert into public.plain values (1)")
    assert isinstance(error, SqlError)
    assert error.sqlstate == "42501"
    assert "permission denied for table plain" in str(error)
    assert "backfill_operator" in str(error)


def test_a_lock_that_cannot_be_got_in_time_exits_with_5(empty_settings: Settings) -> None:
    with psycopg.connect(empty_settings.conninfo) as other:
        other.execute("create table money (id int)")
        other.commit()
        other.execute("lock table money")
        error = translated(empty_settings, "select * from public.money")
    assert type(error) is errors.LockedError
    assert error.exit_code == 5
    assert "could not get the lock within lock_timeout" in str(error)
    assert "raise lock_timeout" in str(error)
