"""An undo that is tried beforehand: true for a run that can be undone, else the refusal, and nothing is left."""

from __future__ import annotations

import psycopg
import pytest

from tests.engine.words import do, done, images, make, rows, value

PROVE = "select * from backfill.prove_undo(%s)"


@pytest.fixture
def item(conn: psycopg.Connection) -> psycopg.Connection:
    """A tracked table of three rows."""
    make(conn, "create table item (id integer primary key, cents bigint)", "item")
    do(conn, "insert into item values (1, 100), (2, 200), (3, 300)")
    conn.commit()
    return conn


def test_a_run_is_proved_in_its_own_transaction_and_nothing_is_left(item: psycopg.Connection) -> None:
    run_id = value(item, "select backfill.begin_run('a correction')")
    do(item, "update item set cents = cents + 1", "insert into item values (4, 0)", "select backfill.finish_run()")
    before = images(item, "item", "backfill.backfill_log"), value(item, "select count(*) from backfill.change_log")
    assert rows(item, PROVE, [run_id]) == [(True, 4, None)]
    assert value(item, "select backfill.open_run()") is None
    left = images(item, "item", "backfill.backfill_log"), value(item, "select count(*) from backfill.change_log")
    assert left == before
    assert not rows(item, "select 1 from pg_class where relname like 'undo%' and relpersistence = 't'")
    again = value(item, "select backfill.begin_run('the next one')")
    do(item, "update item set cents = 0 where id = 4", "select backfill.finish_run()")
    assert rows(item, PROVE, [again]) == [(True, 1, None)]
    item.commit()
    assert value(item, "select sum(cents) from item") == 603


def test_why_it_would_be_refused(item: psycopg.Connection) -> None:
    run_id = done(item, "update item set cents = 0 where id = 1", "insert into item values (4, 0)")
    do(item, "update item set cents = 7 where id = 1")
    item.commit()
    before = images(item, "item", "backfill.backfill_log")
    [(proved, count, refusal)] = rows(item, PROVE, [run_id])
    assert (proved, count) == (False, 0)
    assert "1 of 2 rows of public.item are no longer what it left" in refusal
    assert "public.item 1: changed since (cents)" in refusal
    assert images(item, "item", "backfill.backfill_log") == before


def test_a_trigger_that_keeps_a_row_is_found_beforehand(item: psycopg.Connection) -> None:
    do(
        item,
        "create function keep() returns trigger language plpgsql as $$ begin return null; end $$",
        "create trigger keep before delete on item for each row execute function keep()",
    )
    run_id = done(item, "insert into item values (4, 0)")
    [(proved, _, refusal)] = rows(item, PROVE, [run_id])
    assert not proved
    assert "trigger" in refusal


def test_a_run_that_is_open_or_unknown_is_no_question_of_proof(item: psycopg.Connection) -> None:
    run_id = value(item, "select backfill.begin_run('open')")
    with pytest.raises(psycopg.Error, match="still running"):
        rows(item, PROVE, [run_id])
