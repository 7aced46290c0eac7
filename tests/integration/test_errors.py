"""Each thing that can go wrong on a server: one class, one exit code, one message with the way out.

The server raises every one of these itself; only a full disk is imitated, by RAISE with its SQLSTATE.
"""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from runner import errors
from runner.database import connect, transaction
from runner.errors import RunnerError
from runner.settings import Settings


def translated(settings: Settings, *statements: str) -> RunnerError:
    with pytest.raises(RunnerError) as caught:
        with connect(settings) as conn, transaction(conn, settings):
            for statement in statements:
                conn.execute(statement.encode())
    assert isinstance(caught.value.__cause__, psycopg.Error)
    return caught.value


@pytest.mark.parametrize(
    ("statements", "expected", "exit_code", "words"),
    [
        (["select * from nothing.there"], errors.MissingObjectError, 1, 'relation "nothing.there" does not exist'),
        (["select nosuch from pg_class"], errors.MissingObjectError, 1, 'column "nosuch" does not exist'),
        (["set transaction read only", "create table t ()"], errors.ReadOnlyError, 1, "primary server"),
        (
            ["set local statement_timeout = 10", "select pg_sleep(5)"],
            errors.StatementTimeoutError,
            1,
            "raise statement",
        ),
        (["select 1 / 0"], errors.DatabaseError, 1, "division by zero [SQLSTATE 22012]"),
        (
            ["select pg_terminate_backend(pg_backend_pid())"],
            errors.ServerGoneError,
            1,
            "Nothing of the open transaction",
        ),
        (["do $$ begin raise 'no room' using errcode = '53100'; end $$"], errors.DiskFullError, 1, "make room"),
        (
            ["do $$ begin raise 'x' using errcode = '40001'; end $$"],
            errors.SerializationError,
            5,
            "run the same command",
        ),
        (
            ["do $$ begin raise 'x' using errcode = '40P01'; end $$"],
            errors.SerializationError,
            5,
            "run the same command",
        ),
    ],
)
def test_server_errors_name_the_way_out(
    empty_settings: Settings, statements: list[str], expected: type[RunnerError], exit_code: int, words: str
) -> None:
    error = translated(empty_settings, *statements)
    assert type(error) is expected
    assert error.exit_code == exit_code
    assert words in str(error)


@pytest.mark.parametrize("sqlstate", sorted(errors.CUSTOM))
def test_each_custom_sqlstate_has_its_class(empty_settings: Settings, sqlstate: str) -> None:
    raising = f"do $$ begin raise 'row 7 is wrong' using errcode = '{sqlstate}', hint = 'Mend it.'; end $$"
    error = translated(empty_settings, raising)
    assert type(error) is errors.CUSTOM[sqlstate]
    assert (error.sqlstate, str(error)) == (sqlstate, "row 7 is wrong. Mend it.")


def test_custom_exit_codes() -> None:
    """Of the engine's own; the systems' (BF020 and up) are tested where they are raised."""
    codes = {state: error.exit_code for state, error in errors.CUSTOM.items() if state < "BF020"}
    assert {state: code for state, code in codes.items() if code != 1} == {"BF004": 3, "BF005": 6, "BF009": 2}


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
    error = translated(empty_settings, "set local role reader", "select count(*) from money")
    assert type(error) is errors.RowSecurityError
    assert 'table "money"' in str(error)
    assert "BYPASSRLS" in str(error)


@pytest.mark.usefixtures("reader")
def test_a_role_that_may_only_read_is_told_which_table_and_what_to_do(empty_settings: Settings) -> None:
    error = translated(empty_settings, "set local role reader", "insert into plain values (1)")
    assert type(error) is errors.PrivilegeError
    assert "permission denied for table plain" in str(error)
    assert "backfill_operator" in str(error)


def test_a_lock_that_is_not_to_be_had_exits_with_5(empty_settings: Settings) -> None:
    with psycopg.connect(empty_settings.conninfo) as other:
        other.execute("create table money (id int)")
        other.commit()
        other.execute("lock table money")
        error = translated(empty_settings, "select * from money")
    assert type(error) is errors.LockedError
    assert error.exit_code == 5
    assert "raise lock_timeout" in str(error)
