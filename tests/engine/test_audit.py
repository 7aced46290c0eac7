"""The audit: append-only for everybody, readable by auditors, usable by operators, and it survives dump and restore."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import psycopg
import pytest
from psycopg import sql

from runner import embedded
from tests.engine.words import Connection, changes, do, done, images, make, refused, reverse, rows, value

ENTRY = """create table entry (id integer primary key, name text, cents bigint, kind json, valid tstzrange)"""


@pytest.fixture
def entry(conn: psycopg.Connection) -> psycopg.Connection:
    """A tracked table with money."""
    make(conn, ENTRY, "entry")
    do(conn, "select backfill.track('entry', '{name}', 'cents')")
    do(conn, "insert into entry select i, 'n' || i, 100, '{}' from generate_series(1, 1200) as i")
    conn.commit()
    return conn


def as_role(conn: Connection, role: str, statement: str) -> str | None:
    """SQLSTATE with which the role's statement is refused, None where it may; nothing is kept of it."""
    conn.execute(sql.SQL("set local role {}").format(sql.Identifier(role)))
    try:
        conn.execute(statement.encode())
    except psycopg.Error as error:
        return error.sqlstate
    finally:
        conn.rollback()
    return None


FORBIDDEN = (
    "delete from backfill.backfill_log",
    "truncate backfill.backfill_log cascade",
    "update backfill.backfill_log set actor = 'nobody'",
    "update backfill.backfill_log set status = 'reversed'",
    "update backfill.backfill_log set status = 'failed'",
    "update backfill.backfill_log set digest = null",
    "update backfill.backfill_log set metrics = '{}'",
    "update backfill.backfill_log set status = 'running', completed_at = null",
    "update backfill.backfill_log set run_id = gen_random_uuid()",
    "update backfill.reject set reason = ''",
    "delete from backfill.reject",
    "truncate backfill.reject",
    "update backfill.stored_failure set payload = null",
    "delete from backfill.stored_failure",
    "truncate backfill.stored_failure",
    "update backfill_audit.public_entry set row_count = 0",
    "delete from backfill_audit.public_entry",
    "truncate backfill_audit.public_entry",
    "delete from backfill.change_log",
)


def test_not_even_the_owner_changes_the_audit(entry: psycopg.Connection) -> None:
    run_id = done(entry, "update entry set cents = 1")
    entry.execute(
        """insert into backfill.reject (run_id, backfill, source, source_key, reason)
        values (%s, 'b', 's', 'k', 'r')""",
        [run_id],
    )
    entry.commit()
    # The view cannot be written to at all; that a reversed run names its reversal is a constraint.
    others = {
        "delete from backfill.change_log": "55000",
        "update backfill.backfill_log set status = 'reversed'": "23514",
    }
    for statement in FORBIDDEN:
        with pytest.raises(psycopg.Error) as caught:
            do(entry, statement)
        entry.rollback()
        assert caught.value.sqlstate == others.get(statement, "BF008"), statement
        assert statement in others or "reverse_run" in refused(caught)


def test_a_running_run_may_be_added_to_but_not_become_another(entry: psycopg.Connection) -> None:
    do(entry, "select backfill.begin_run('x')", """update backfill.backfill_log set metrics = '{"note": 1}'""")
    with pytest.raises(psycopg.Error, match="cannot be changed"):
        do(entry, "update backfill.backfill_log set run_id = gen_random_uuid()")


def test_a_restored_database_shows_the_same_and_can_still_undo(
    entry: psycopg.Connection, database_url: str, empty_database_url: str, server: embedded.Server
) -> None:
    before = images(entry, "entry")
    run_id = done(
        entry,
        "update entry set cents = cents + 1, kind = '[1.0]', valid = '[2024-01-01 12:00+02,)' where id > 7",
        "delete from entry where id = 3",
        "insert into entry values (0, 'n0', 1)",
    )
    log = rows(entry, "select * from backfill.backfill_log")
    expected = changes(entry, run_id, "*"), value(entry, "select backfill.run_digest(%s)", [run_id])
    assert expected[1] == log[0][10]
    entry.execute("select backfill.untrack('property.units')")
    entry.commit()
    archive = subprocess.run(
        [str(server.programs / "pg_dump"), "--format=custom", f"--dbname={database_url}"],
        capture_output=True,
        check=True,
    ).stdout
    subprocess.run(
        [str(server.programs / "pg_restore"), "--exit-on-error", f"--dbname={empty_database_url}"],
        input=archive,
        check=True,
    )
    with psycopg.connect(empty_database_url) as copy:
        assert rows(copy, "select * from backfill.backfill_log") == log
        assert (changes(copy, run_id, "*"), value(copy, "select backfill.run_digest(%s)", [run_id])) == expected
        for statement in ("delete from backfill_audit.public_entry", "truncate backfill.reject"):
            with pytest.raises(psycopg.Error, match="append-only"):
                do(copy, statement)
            copy.rollback()
        second = done(copy, "insert into entry values (5000, 'new', 1)")
        assert reverse(copy, second) == {"restored": 1}
        assert reverse(copy, run_id) == {"restored": 1195}
        assert images(copy, "entry") == before


WRITES = (
    "insert into property.units default values",
    "update property.charges set amount_cents = 0",
    "delete from property.payments",
    "insert into backfill.backfill_log (backfill, actor, mode) values ('x', 'y', 'manual')",
    "update backfill.backfill_log set actor = 'x'",
    "delete from backfill_audit.property_charges",
    "insert into backfill_audit.property_charges values (gen_random_uuid(), 1, 1, 'I', 1)",
    "update backfill.catalog set function_name = 'x'",
    "update backfill.tracked set active = false",
    "insert into backfill.baseline values ('x')",
    "update backfill.migration_checksum set sha256 = ''",
    "select backfill.track('property.units')",
    "select backfill.untrack('property.units')",
    "select backfill.unregister('charges')",
    "select backfill.create_baseline('a', 'b', '{}')",
    "select backfill.drop_baseline('property.units')",
    "select backfill.refresh_tracked()",
    "select backfill.next_statement()",
    "select backfill.charges()",
)
READS = (
    "select * from backfill.catalog",
    "select * from backfill.backfill_log",
    "select * from backfill.change_log",
    "select * from backfill.reject",
    "select * from backfill.tracked",
    "select * from backfill.charges_due",
    "select * from backfill.charges_rejects",
    "select * from backfill.due()",
    "select * from backfill.control_totals()",
    "select * from backfill.run_totals(gen_random_uuid())",
    "select * from backfill.new_rejects('charges')",
    "select * from backfill_audit.property_charges",
)
RUNS = (
    "select backfill.begin_run('by hand'); select * from backfill.finish_run()",
    "select * from backfill.run('charges')",
    "select backfill.begin_run('x', p_spans_transactions => true)",
)


def test_operators_run_and_auditors_read(entry: psycopg.Connection) -> None:
    for statement in READS:
        assert as_role(entry, "backfill_auditor", statement) is None, statement
        assert as_role(entry, "backfill_operator", statement) is None, statement
    for statement in RUNS:
        assert as_role(entry, "backfill_auditor", statement) == "42501", statement
        assert as_role(entry, "backfill_operator", statement) is None, statement
    for statement in WRITES:
        assert as_role(entry, "backfill_auditor", statement) == "42501", statement
        assert as_role(entry, "backfill_operator", statement) == "42501", statement


def test_an_operator_reverses_what_he_could_not_write(entry: psycopg.Connection) -> None:
    run_id = done(entry, "update entry set cents = 1")
    undo = f"select * from backfill.reverse_run('{run_id}')"
    assert as_role(entry, "backfill_auditor", undo) == "42501"
    assert as_role(entry, "backfill_operator", "update entry set cents = 2") == "42501"
    assert as_role(entry, "backfill_operator", f"select * from backfill.reversal_preview('{run_id}')") is None
    assert as_role(entry, "backfill_operator", undo) is None


@pytest.fixture
def nobody(conn: psycopg.Connection) -> Iterator[str]:
    """A role without any grant."""
    conn.execute("create role nobody_at_all")
    conn.commit()
    yield "nobody_at_all"
    conn.rollback()
    conn.execute("drop role nobody_at_all")
    conn.commit()


def test_the_public_may_nothing(entry: psycopg.Connection, nobody: str) -> None:
    for statement in (*READS, *RUNS, *WRITES):
        assert as_role(entry, nobody, statement) == "42501", statement
