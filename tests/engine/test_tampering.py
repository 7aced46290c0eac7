"""An owner who can do everything alters the audit, and switches the guards on again: found, and named."""

from __future__ import annotations

from uuid import UUID

import psycopg
import pytest

from tests.engine.evidence import LOG, PACK, ROW, head, history, link_of, make_entry, unguarded, wrong
from tests.engine.words import do, reverse, rows, value

UNLINKED = "it has no link: the link was removed, or the run was put into the log by hand"


@pytest.fixture
def entry(conn: psycopg.Connection) -> psycopg.Connection:
    """A tracked table with rows in it."""
    make_entry(conn)
    return conn


@pytest.fixture
def runs(entry: psycopg.Connection) -> list[UUID]:
    """Three runs of it, of which the last was undone."""
    ids = history(entry)
    reverse(entry, ids[2])
    return ids


ALTERED = "packs of public.entry were altered"
TAMPERED = {
    "a pack": (PACK, f"update {PACK} set a3[1] = 9 where run_id = %s and pack = 0", ALTERED),
    "a count": (PACK, f"update {PACK} set row_count = 1 where run_id = %s", ALTERED),
    "a pack that is gone": (
        PACK, f"delete from {PACK} where run_id = %s and pack = 1",
        "4 packs of public.entry were captured, 3 are there",
    ),
    "a single row": (ROW, f"update {ROW} set a3 = 999 where run_id = %s", ALTERED),
    "a single row that is new": (
        ROW, f"insert into {ROW} (statement, run_id, shape, operation, a1) values (1, %s, 1, 'I', 77)",
        "4 packs of public.entry were captured, 5 are there",
    ),
    "who": (LOG, f"update {LOG} set actor = 'another' where run_id = %s", "its row of the log was altered"),
    "when": (LOG, f"update {LOG} set completed_at = '2020-01-01' where run_id = %s", "its row of the log was altered"),
    "how much": (LOG, f"update {LOG} set metrics = '{{}}' where run_id = %s", "its row of the log was altered"),
    "how it ended": (
        LOG, f"update {LOG} set status = 'failed' where run_id = %s",
        "it is marked as failed, and its link says succeeded",
    ),
    "a row of the log that is gone": (LOG, f"delete from {LOG} where run_id = %s", "its row of the log is missing"),
    "a link": (
        "backfill.chain", "update backfill.chain set actor = 'another' where run_id = %s",
        "the link was altered: its hash is not that of what it says",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", TAMPERED)
def test_what_is_altered_of_a_run_is_named_with_its_link(
    entry: psycopg.Connection, runs: list[UUID], what: str
) -> None:
    table, statement, words = TAMPERED[what]
    assert wrong(entry) == []
    with unguarded(entry, table):
        entry.execute(statement.encode(), [runs[0]])
    assert wrong(entry) == [f"link {link_of(entry, runs[0])}: {words}"]


def test_a_mark_that_no_reversal_left_is_found(entry: psycopg.Connection, runs: list[UUID]) -> None:
    first, second, third = runs
    with unguarded(entry, LOG):
        do(
            entry,
            f"update {LOG} set status = 'reversed', reversed_by = '{second}' where run_id = '{first}'",
            f"update {LOG} set status = 'succeeded', reversed_by = null where run_id = '{third}'",
        )
    assert sorted(wrong(entry)) == [
        f"link {link_of(entry, first)}: it is marked as reversed, and its link says succeeded",
        f"link {link_of(entry, third)}: it is marked as succeeded, and a reversal undid it",
    ]


def test_the_last_link_is_missed_by_its_run_and_by_an_anchor(entry: psycopg.Connection, runs: list[UUID]) -> None:
    anchor = head(entry)
    last = int(anchor.partition(":")[0])
    undo = value(entry, "select run_id from backfill.chain where link = %s", [last])
    with unguarded(entry, "backfill.chain"):
        do(entry, f"delete from backfill.chain where link = {last}")
    cut = f"the chain does not hold the anchor {anchor}: it was cut off or written anew; it ends with link {last - 1}"
    assert UNLINKED in wrong(entry)
    assert f"link {last}: {cut}" in wrong(entry, anchor)
    # All of the run removed, as if it had never been: now the anchor alone knows.
    with unguarded(entry, LOG, PACK, ROW):
        do(
            entry,
            f"update {LOG} set status = 'succeeded', reversed_by = null where run_id = '{runs[2]}'",
            f"delete from {PACK} where run_id = '{undo}'",
            f"delete from {ROW} where run_id = '{undo}'",
            f"delete from {LOG} where run_id = '{undo}'",
        )
    assert wrong(entry) == []
    assert wrong(entry, anchor) == [f"link {last}: {cut}"]


def test_a_link_that_is_gone_and_a_chain_that_is_written_anew(entry: psycopg.Connection, runs: list[UUID]) -> None:
    first, second, _ = runs
    anchor, number = head(entry), link_of(entry, second)
    with unguarded(entry, "backfill.chain"):
        do(entry, f"delete from backfill.chain where link = {number}")
    assert wrong(entry) == [f"link {number + 1}: links {number} to {number} are missing", UNLINKED]
    # An owner who knows the engine alters a run, and computes every hash anew: only the anchor says so.
    with unguarded(entry, "backfill.chain", LOG):
        do(
            entry,
            f"update {LOG} set actor = 'nobody' where run_id = '{first}'",
            f"update backfill.chain as c set log_sha256 = backfill.log_hash(l) from {LOG} as l"
            f" where l.run_id = c.run_id and c.run_id = '{first}'",
            f"update backfill.chain set link = link - 1 where link > {number}",
            f"select backfill.link_run(l) from {LOG} as l where run_id = '{second}'",
            """do $$ declare v record; v_previous text := repeat('0', 64); begin
                for v in select link from backfill.chain order by link loop
                    update backfill.chain set previous = v_previous where link = v.link;
                    update backfill.chain as c set hash = backfill.link_hash(c) where link = v.link
                    returning hash into v_previous;
                end loop; end $$""",
        )
    assert wrong(entry) == []
    [told] = wrong(entry, anchor)
    assert f"the chain does not hold the anchor {anchor}" in told


@pytest.mark.usefixtures("runs")
def test_images_of_a_run_that_nobody_knows_and_a_run_that_was_put_in_by_hand(entry: psycopg.Connection) -> None:
    do(
        entry,
        f"insert into {ROW} (statement, run_id, shape, operation, a1) values (1, gen_random_uuid(), 1, 'I', 77)",
        f"insert into {LOG} (backfill, actor, mode, status, completed_at) values ('x', '', 'load', 'failed', now())",
        "create table backfill_audit.aside (a int)",
    )
    found = wrong(entry)
    assert found[:3] == [
        UNLINKED,
        "packs of public.entry are there, and the log has no such run",
        "table backfill_audit.aside is of no tracked table",
    ]
    assert {words.split()[-1] for words in found[3:]} == {"altered"}  # it has no guards either


NOTHING = "language plpgsql set search_path = pg_catalog, pg_temp as 'begin return null; end'"
NO_CHANGES = """create or replace view backfill.change_log as select null::uuid as run_id, null::text as table_name,
    null::bigint as statement, null::integer as pack, null::bigint as row_no, null::text as operation,
    null::text as business_key, null::text as primary_key, null::numeric as amount_before,
    null::numeric as amount_after,
    null::text as currency_before, null::text as currency_after,
    null::jsonb as before, null::jsonb as after where false"""
SEALED = "is not what link {seal} sealed"
ENGINE = {
    "a function": (
        [f"create or replace function backfill.refuse_change() returns trigger {NOTHING}"],
        f"function backfill.refuse_change() {SEALED}",
    ),
    "a function's settings": (
        ["alter function backfill.close_run(jsonb, jsonb, text, boolean) reset search_path"],
        f"function backfill.close_run(jsonb,jsonb,text,boolean) {SEALED}",
    ),
    "a function's rights": (
        ["alter function backfill.finish_run(jsonb, jsonb, text) security definer"],
        f"function backfill.finish_run(jsonb,jsonb,text) {SEALED}",
    ),
    "a function that is new": (
        ["create function backfill.aside() returns int language sql as 'select 1'"],
        "function backfill.aside() is of no seal: no migration that the runner applied made it",
    ),
    "a function that is gone": (
        ["drop function backfill.check_chain()"], "function backfill.check_chain() is gone: link {seal} sealed it",
    ),
    "a guard of the log": (
        ["alter table backfill.backfill_log disable trigger guard_log"],
        f"trigger guard_log on backfill.backfill_log {SEALED}",
    ),
    "a guard that is not always": (
        ["alter table backfill.chain enable trigger refuse_change"],
        f"trigger refuse_change on backfill.chain {SEALED}",
    ),
    "a guard that is gone": (
        ["drop trigger refuse_delete on backfill.backfill_log"],
        "trigger refuse_delete on backfill.backfill_log is gone: link {seal} sealed it",
    ),
    "a guard of images": (
        [f"alter table {PACK} disable trigger refuse_change"],
        f"trigger refuse_change of {PACK} is missing, disabled or another one: its rows could be altered",
    ),
    "a capture's function": (
        [f"create or replace function {PACK}_update() returns trigger security definer {NOTHING}"],
        f"function {PACK}_update() is not what backfill.track() writes",
    ),
    "a capture's trigger": (
        ["alter table entry disable trigger backfill_capture_delete"],
        "the trigger that captures each delete of public.entry is not ENABLE ALWAYS",
    ),
    "a capture's condition": (
        [("create or replace trigger backfill_capture_insert after insert on entry referencing new table as new_rows"
          f" for each statement when (false) execute function {PACK}_insert()"),
         "alter table entry enable always trigger backfill_capture_insert"],
        "the trigger that captures each insert of public.entry is not what backfill.track() makes",
    ),
    "a capture's trigger that is gone": (
        ["drop trigger backfill_capture_insert on entry"],
        "0 triggers capture each insert of public.entry: it must be one",
    ),
    "the view of the changes": (
        [NO_CHANGES], "view backfill.change_log is not what backfill.rebuild_change_log() writes",
    ),
    "which tables a run wrote": (
        [("create or replace function backfill.written_tables(p_run uuid) returns setof text"
          " language plpgsql stable set search_path = pg_catalog, pg_temp as 'begin return; end'")],
        "function backfill.written_tables() is not what backfill.rebuild_change_log() writes",
    ),
    "a table that inherits": (
        ["create table public.more () inherits (backfill.chain)"],
        "public.more inherits from backfill.chain: its rows are read as if they were the engine's",
    ),
    "a table that inherits images": (
        [f"create table public.more () inherits ({PACK})"],
        f"public.more inherits from {PACK}: its rows are read as if they were the engine's",
    ),
    "a rule": (
        ["create rule away as on insert to backfill.reject do instead nothing"],
        "rule away on backfill.reject may keep rows out of it, or write others",
    ),
    "a trigger on images": (
        ["create function public.away() returns trigger language plpgsql as 'begin return null; end'",
         f"create trigger away before insert on {PACK} for each row execute function public.away()"],
        f"trigger away on {PACK} is none of the engine's",
    ),
    "a trigger on the log": (
        ["create function public.away() returns trigger language plpgsql as 'begin return null; end'",
         "create trigger away before insert on backfill.backfill_log for each row execute function public.away()"],
        "trigger away on backfill.backfill_log is of no seal: no migration that the runner applied made it",
    ),
    "row-level security": (
        ["alter table backfill.backfill_log force row level security, enable row level security"],
        "row-level security is on for backfill.backfill_log: it may hide rows",
    ),
    "a key that is gone": (
        ["alter table backfill.chain drop constraint chain_pkey"],
        "constraint chain_pkey on backfill.chain is gone: link {seal} sealed it",
    ),
    "a view that decides": (
        ["create or replace view backfill.charges_rejects as select * from ({view}) as x where false"],
        "view backfill.charges_rejects (PostgreSQL {version}) " + SEALED,
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", ENGINE)
def test_what_is_altered_of_the_engine_is_named(entry: psycopg.Connection, what: str) -> None:
    statements, words = ENGINE[what]
    view = value(entry, "select pg_get_viewdef('backfill.charges_rejects'::regclass)").rstrip(";")
    seal = value(entry, "select max(link) from backfill.chain where kind = 'engine'")
    assert wrong(entry) == []
    do(entry, *(statement.replace("{view}", view) for statement in statements))
    [found] = wrong(entry)
    expected = words.format(seal="N", version=entry.info.server_version // 10000)
    assert found.replace(f"link {seal - 1} ", "link N ").replace(f"link {seal} ", "link N ") == expected


def test_who_seals_what_he_altered_leaves_a_link_that_says_so(entry: psycopg.Connection) -> None:
    with pytest.raises(psycopg.Error, match="sealed for a reason") as caught, entry.transaction():
        do(entry, "select backfill.seal_engine(' ')")
    assert caught.value.sqlstate == "BF018"
    do(entry, ENGINE["a function that is new"][0][0], "select backfill.seal_engine('a hotfix')")
    assert wrong(entry) == []
    last = (
        "select detail ->> 'why', detail -> 'made' ? 'function backfill.aside()', detail -> 'gone' from backfill.chain"
    )
    assert rows(entry, f"{last} order by link desc limit 1") == [("a hotfix", True, [])]
    do(entry, "drop function backfill.aside()", "select backfill.seal_engine('taken back')")
    assert wrong(entry) == []
    assert rows(entry, f"{last} order by link desc limit 1") == [("taken back", False, ["function backfill.aside()"])]
    assert value(entry, "select (backfill.seal_engine('nothing new')).link") is None
