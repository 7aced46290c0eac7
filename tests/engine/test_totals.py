"""What a run adds up to: digest, control totals, rejects, and the catalog of backfills."""

from __future__ import annotations

import psycopg
import pytest
from psycopg import IsolationLevel

from tests.engine.words import Connection, do, done, make, refused, reverse, rows, value

SOURCE = """
    create table source (id integer primary key, cents bigint);
    create table target (
        id integer primary key, cents bigint, note numeric, at timestamptz default now(), local timestamp
    );
    create view due as select id, cents from source where cents > 0 and id not in (select id from target);
    create view rejected as
        select 'source' as source, id::text as source_key, null::bigint as line, 'amount is ' || cents as reason, cents,
            '{}'::jsonb as payload
        from source where cents <= 0;
    create function fill(jsonb) returns jsonb language sql
        begin atomic
            insert into target (id, cents, note, local) select id, cents, 1, localtimestamp from due;
            select jsonb_build_object('called with', $1);
        end;
"""


@pytest.fixture
def fill(conn: psycopg.Connection) -> psycopg.Connection:
    """A registered backfill `fill` with 2,000 rows due, and nothing rejected."""
    make(conn, SOURCE, "source")
    do(
        conn,
        "select backfill.track('target', '{id}', 'cents')",
        """select backfill.register('fill', 'test', 'a test', 1, 'public.due', 'public.fill', '{public.target}',
            'public.rejected')""",
        "insert into source select i, i from generate_series(1, 2000) as i",
    )
    conn.commit()
    return conn


def digest_of(conn: Connection, *statements: str) -> str:
    """The digest of a run that is rolled back: a rehearsal."""
    do(conn, "select backfill.begin_run('rehearsal')", *statements)
    digest: str = value(conn, "select digest from backfill.finish_run()")
    conn.rollback()
    return digest


def test_a_rehearsal_and_the_apply_have_one_digest(fill: psycopg.Connection) -> None:
    rehearsed = value(fill, "select digest from backfill.run('fill')")
    fill.rollback()
    again = value(fill, "select digest from backfill.run('fill')")
    fill.rollback()
    do(fill, "update source set cents = cents", "delete from source where id < 900")
    do(fill, "insert into source select i, i from generate_series(899, 1, -1) as i", "cluster source using source_pkey")
    applied = value(fill, "select digest from backfill.run('fill')")
    fill.commit()
    assert rehearsed == again == applied


def test_one_cent_or_one_row_makes_another_digest(fill: psycopg.Connection) -> None:
    insert = "insert into target (id, cents) select id, cents from source"
    base = digest_of(fill, insert)
    assert base == digest_of(fill, insert)
    others = {
        digest_of(fill, "update source set cents = cents + 1 where id = 7", insert),
        digest_of(fill, insert + " where id <> 7"),
        digest_of(fill, insert, "update target set cents = cents + 1 where id = 7"),
        digest_of(fill, insert.replace("(id, cents)", "(cents, id)").replace("id, cents from", "id, cents + 1 from")),
        digest_of(fill, insert, "delete from target where id = 7"),
        digest_of(
            fill, insert.replace("(id, cents)", "(id, cents, at)").replace("cents from", "cents, '2024-01-01' from")
        ),
        digest_of(fill),
    }
    assert len(others | {base}) == 8


def test_amounts_that_change_places_make_another_digest(fill: psycopg.Connection) -> None:
    assert digest_of(fill, "insert into target values (1, 10), (2, 20)") != digest_of(
        fill, "insert into target values (1, 20), (2, 10)"
    )


def test_the_digest_does_not_know_packs_or_order(fill: psycopg.Connection) -> None:
    whole = digest_of(fill, "insert into target (id, cents) select id, cents from source")
    parts = digest_of(
        fill,
        "insert into target (id, cents) select id, cents from source where id > 1300",
        "insert into target (id, cents) select id, cents from source where id <= 1300 order by id desc",
    )
    assert whole == parts
    do(fill, "insert into target (id, cents, at) select id, cents, '2024-01-01' from source")
    fill.commit()
    whole = digest_of(fill, "update target set cents = 0 where id > 500")
    parts = digest_of(
        fill, "update target set cents = 0 where id > 1500", "update target set cents = 0 where id between 501 and 1500"
    )
    assert whole == parts


def test_a_column_added_later_leaves_the_digest_of_an_old_run(fill: psycopg.Connection) -> None:
    run_id = done(fill, "insert into target (id, cents) values (1, 1)")
    do(fill, "alter table target add column a_first text default 'x'", "alter table source add column b text")
    done(fill, "insert into target (id) values (2)", "insert into source values (5000, 1, 'b')")
    assert value(
        fill, "select digest = backfill.run_digest(run_id) from backfill.backfill_log where run_id = %s", [run_id]
    )


def test_a_table_that_is_renamed_leaves_the_digest_of_an_old_run(fill: psycopg.Connection) -> None:
    """Also where it then comes after another one by its name."""
    run_id = done(fill, "insert into target (id, cents) values (1, 1)", "insert into source values (5000, 1)")
    do(fill, "alter table source rename to zebra")
    done(fill, "insert into target (id) values (2)", "insert into zebra values (5001, 1)")
    assert value(
        fill, "select digest = backfill.run_digest(run_id) from backfill.backfill_log where run_id = %s", [run_id]
    )


def test_the_log_row_of_a_backfill(fill: psycopg.Connection) -> None:
    log = rows(fill, """select mode, status, metrics from backfill.run('fill', '{"p": 1}')""")
    total = {"table_name": "public.target", "rows_before": 0, "rows_changed": 2000, "rows_after": 2000}
    money = {"amounts": 2001000}
    total |= {"rows_updated": 0, "money_before": {}, "money_changed": money, "money_after": money, "finer": 0}
    assert log[0][:2] == ("apply", "succeeded")
    assert log[0][2]["called with"] == {"p": 1}
    assert log[0][2]["due"] == {"rows": 2000, "money": money}
    changed = {"inserted": 2000, "updated": 0, "deleted": 0, "money": money, "finer": 0}
    assert log[0][2]["tables"] == {"public.target": changed}
    assert total in log[0][2]["control_totals"]
    unchanged = {t["table_name"] for t in log[0][2]["control_totals"] if t["rows_changed"] == 0}
    assert {"public.source", "property.charges"} <= unchanged, "tables outside the plan are proved unchanged"
    assert rows(fill, "select status, metrics -> 'tables' from backfill.run('fill')") == [("succeeded", {})]


def test_totals_of_mixed_changes(fill: psycopg.Connection) -> None:
    do(fill, "insert into target (id, cents) select id, 10 from source")
    run_id = done(
        fill,
        "update target set cents = 7 where id <= 1500",
        "update target set note = 3",
        "update target set cents = null where id = 2000",
        "delete from target where id = 1",
        "insert into target (id, cents) values (3000, 2147483648000)",
    )
    assert rows(fill, "select * from backfill.run_totals(%s)", [run_id]) == [
        ("public.target", 1, 3501, 1, {"amounts": -1500 * 3 - 10 - 7 + 2147483648000}, 0)
    ]


@pytest.mark.parametrize("level", [IsolationLevel.REPEATABLE_READ, IsolationLevel.SERIALIZABLE])
def test_a_backfill_that_writes_past_the_capture_is_refused(fill: psycopg.Connection, level: IsolationLevel) -> None:
    do(
        fill,
        """create or replace function fill(jsonb) returns jsonb language plpgsql as $$
        begin
            insert into public.target (id, cents) values (1, 10);
            perform backfill.pause_capture(true);
            insert into public.source (id, cents) values (9999, 5);
            update public.target set cents = 11;
            perform backfill.pause_capture(false);
            return '{}';
        end $$""",
    )
    fill.commit()
    fill.isolation_level = level
    with pytest.raises(psycopg.Error, match="before \\+ changes do not make after") as caught:
        do(fill, "select backfill.run('fill')")
    assert caught.value.sqlstate == "BF011"
    said = refused(caught)
    assert "public.target: 1 rows, 0.10 expected, 1 rows, 0.11 found" in said
    assert "public.source" not in said  # outside the plan it is not counted: the capture is proved instead


def test_rejects_stop_a_run_and_are_listed(fill: psycopg.Connection) -> None:
    do(fill, "insert into source select 5000 + i, -i from generate_series(1, 12) as i")
    fill.commit()
    for allowed in (0, 11):
        with pytest.raises(psycopg.Error, match=f"fill: 12 source rows cannot be taken, {allowed} allowed") as caught:
            do(fill, f"select backfill.run('fill', p_allow_rejects => {allowed})")
        fill.rollback()
        assert caught.value.sqlstate == "BF004"
        assert "source 5001: amount is -1" in refused(caught)
        assert len((caught.value.diag.message_detail or "").splitlines()) == 10
    assert rows(fill, "select due_rows, rejects from backfill.due('{fill}')") == [(2000, 12)]


def test_allowed_rejects_are_kept_and_not_counted_again_until_reversed(fill: psycopg.Connection) -> None:
    do(fill, "insert into source values (5001, 0), (5002, -1)")
    run_id, metrics = rows(fill, "select run_id, metrics from backfill.run('fill', p_allow_rejects => 2)")[0]
    fill.commit()
    assert metrics["rejects"] == 2
    assert rows(
        fill,
        "select run_id, backfill, source, source_key, line, reason, amount, currency, payload from backfill.reject",
    ) == [
        (run_id, "fill", "source", "5001", None, "amount is 0", 0, None, {}),
        (run_id, "fill", "source", "5002", None, "amount is -1", -1, None, {}),
    ]
    assert rows(fill, "select due_rows, rejects from backfill.due('{fill}')") == [(0, 0)]
    do(fill, "insert into source values (5003, 0)")
    fill.commit()
    with pytest.raises(psycopg.Error, match="1 source row cannot be taken"):
        do(fill, "select backfill.run('fill')")
    fill.rollback()
    do(fill, "delete from source where id = 5003")
    second = value(fill, "select run_id from backfill.run('fill')")
    assert reverse(fill, second) == {}
    assert rows(fill, "select rejects from backfill.due('{fill}')") == [(0,)]
    assert reverse(fill, run_id) == {"restored": 2000}
    assert rows(fill, "select due_rows, rejects from backfill.due('{fill}')") == [(2000, 2)]


REGISTRATIONS = {
    "BF006": [
        ("public.nothing", "public.fill", "{public.target}", "public.rejected", "table public.nothing does not exist"),
        ("public.source", "public.fill", "{public.target}", "public.due", "column source is missing"),
        ("public.rejected", "public.fill", "{public.target}", "public.due", "column reason is missing"),
    ],
    "BF009": [
        ("public.due", "public.nothing", "{public.target}", "public.rejected", "there is no function public.nothing"),
        (
            "public.due",
            "public.fill",
            "{public.target,public.due}",
            "public.rejected",
            "table public.due is not tracked",
        ),
    ],
}


@pytest.mark.parametrize(("state", "case"), [(state, case) for state, cases in REGISTRATIONS.items() for case in cases])
def test_a_registration_that_would_not_run_is_refused(
    fill: psycopg.Connection, state: str, case: tuple[str, str, str, str, str]
) -> None:
    *arguments, told = case
    with pytest.raises(psycopg.Error, match=told) as caught:
        fill.execute("select backfill.register('bad', 'test', 'd', 1, %s, %s, %s, %s)", arguments)
    assert caught.value.sqlstate == state


def test_registering_twice_replaces_and_unregistering_keeps_the_runs(fill: psycopg.Connection) -> None:
    do(
        fill,
        "select backfill.run('fill')",
        "select backfill.register('fill', 'test', 'another', 2, 'public.due', 'public.fill', '{public.target}')",
    )
    assert rows(fill, "select description, rejects_relation from backfill.entry('fill')") == [("another", None)]
    do(fill, "select backfill.unregister('fill')")
    assert rows(fill, "select backfill, status from backfill.backfill_log") == [("fill", "succeeded")]
