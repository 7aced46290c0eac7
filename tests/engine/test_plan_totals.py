"""Control totals: exact for the tables of the plan; no other tracked table is read to prove that it did not change."""

from __future__ import annotations

import psycopg
import pytest

from tests.engine.words import do, make, rows, value
from tests.story import adopt, run, sql

SCANS = """
    select coalesce(seq_scan, 0) + coalesce(idx_scan, 0), coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0)
    from pg_stat_user_tables where relid = 'public.unrelated'::regclass
"""


@pytest.fixture
def fill(conn: psycopg.Connection) -> psycopg.Connection:
    """A backfill of one table, and another tracked table that has nothing to do with it."""
    make(
        conn,
        """
        create table target (id bigint primary key, cents bigint);
        create table beside (id bigint primary key, cents bigint);
        create table unrelated (id bigint primary key, cents bigint);
        insert into unrelated select g, 1 from generate_series(1, 1000) as g;
        create view due as select g as id, 5::bigint as cents from generate_series(1, 10) as g
            where not exists (select from public.target as t where t.id = g);
        create function fill(p_parameters jsonb) returns jsonb language sql as
            $$ insert into public.target select id, cents from public.due; select '{}'::jsonb $$;
        create function carry() returns trigger language plpgsql set search_path = public as
            $$ begin insert into beside values (new.id, 1); return null; end $$;
        create trigger carry after insert on target for each row when (new.id < 4) execute function carry();
        """,
    )
    for table in ("target", "beside", "unrelated"):
        do(conn, f"select backfill.track('public.{table}', null, 'cents')")
    do(
        conn,
        "select backfill.register('fill', 'own', 'Fills', 900, 'public.due', 'public.fill', '{public.target}')",
    )
    conn.commit()
    return conn


def test_no_statement_of_a_run_reads_a_tracked_table_outside_its_plan(fill: psycopg.Connection) -> None:
    do(fill, "select pg_stat_force_next_flush()")
    fill.commit()
    before = rows(fill, SCANS)
    fill.commit()
    metrics = value(fill, "select metrics from backfill.run('fill')")
    fill.commit()
    do(fill, "select pg_stat_force_next_flush()")
    fill.commit()
    assert rows(fill, SCANS) == before
    totals = {total["table_name"]: total for total in metrics["control_totals"]}
    target = totals["public.target"]
    assert (target["rows_before"], target["rows_changed"], target["rows_after"]) == (0, 10, 10)
    money = (target["money_before"], target["money_changed"], target["money_after"])
    assert money == ({}, {"amounts": 50}, {"amounts": 50})
    # What a trigger wrote beside is known from the capture; of what nobody touched it is proved that nobody did.
    for name, changed in (("public.beside", 3), ("public.unrelated", 0)):
        total = totals[name]
        assert (total["rows_before"], total["rows_changed"], total["rows_after"]) == (None, changed, None)
        assert total["money_changed"] == ({"amounts": changed} if changed else {})


def test_a_row_that_appears_in_it_past_the_capture_is_seen_all_the_same(fill: psycopg.Connection) -> None:
    do(
        fill,
        """
        create or replace function fill(p_parameters jsonb) returns jsonb language plpgsql security definer as $$ begin
            alter table public.unrelated disable trigger backfill_capture_insert;
            insert into public.unrelated values (5000, 7);
            alter table public.unrelated enable always trigger backfill_capture_insert;
            insert into public.target select id, cents from public.due;
            return '{}';
        end $$;
        """,
    )
    with pytest.raises(psycopg.Error) as caught:
        do(fill, "select backfill.run('fill')")
    assert caught.value.sqlstate == "BF012"
    assert "unrelated" in str(caught.value)


def test_the_verb_reads_it_no_more_than_the_function(database_url: str) -> None:
    """With its rehearsal, due rows and gates: billing is tracked, and charges has nothing to do with it."""
    url = adopt(database_url)
    scans = (
        "select sum(coalesce(seq_scan, 0) + coalesce(idx_scan, 0)) from pg_stat_user_tables"
        " where relid in ('billing.invoices'::regclass, 'lending.payments'::regclass)"
    )
    sql(url, "select pg_stat_force_next_flush()")
    before = sql(url, scans)
    report = run(url, "apply", "charges", "--yes", "--json").json
    assert sql(url, scans) == before
    totals = {total["table"]: total for total in report["attempt"]["totals"]}
    assert totals["property.charges"]["rows_after"] is not None
    assert totals["billing.invoices"]["rows_after"] is None
