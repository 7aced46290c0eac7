"""A dump and its restore, with tables and columns renamed just before, so that no run has seen it."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from uuid import UUID

import psycopg
import pytest

from runner import embedded
from tests.engine.words import changes, do, done, images, make, reverse, rows, value
from tests.story import run as command

Copy = Callable[[str, str], None]


@pytest.fixture
def restore(server: embedded.Server) -> Copy:
    """`restore(from, to)`: the whole of a database by pg_dump and pg_restore."""

    def run(source: str, target: str, *options: str) -> None:
        dumped = subprocess.run(
            [str(server.programs / "pg_dump"), "--format=custom", f"--dbname={source}", *options],
            capture_output=True,
            check=True,
        ).stdout
        command = [str(server.programs / "pg_restore"), "--exit-on-error", f"--dbname={target}"]
        subprocess.run(command, input=dumped, check=True)

    return run


def table(conn: psycopg.Connection, name: str) -> UUID:
    """A tracked table with two columns that a run set to the same value: a wrong binding would not be noticed by it."""
    do(
        conn,
        f"create table {name} (id integer primary key, a integer, b integer)",
        f"select backfill.track('{name}')",
        f"insert into {name} values (1, 7, 8)",
    )
    return done(conn, f"update {name} set a = 0, b = 0")


# What was done before the dump; the table to look at; what the undo says there (None: it restores); the call that
# settles it; what is in the row afterwards (None: it is refused for good).
Case = tuple[list[str], str, str | None, str | None, dict[str, int | None] | None]
WAS: dict[str, int | None] = {"id": 1, "a": 7, "b": 8}
CASES: dict[str, Case] = {
    "nothing": ([], "nothing", None, None, WAS),
    "renamed": (["alter table renamed rename to called_otherwise"], "called_otherwise", None, None, WAS),
    "replaced": (
        [
            "alter table replaced rename to replaced_old",
            "create table replaced (like replaced_old including all)",
            "insert into replaced values (1, 0, 0)",
        ],
        "replaced_old",
        None,
        None,
        WAS,
    ),
    "wider": (["alter table wider add column c integer"], "wider", None, None, WAS | {"c": None}),
    "swapped": (
        [
            "alter table swapped rename a to x",
            "alter table swapped rename b to a",
            "alter table swapped rename x to b",
        ],
        "swapped",
        "it had a, b, and has b, a",
        """select backfill.rebind('public.swapped', '{"a": "b", "b": "a"}')""",
        {"id": 1, "b": 7, "a": 8},
    ),
    "named": (
        ["alter table named rename a to x"],
        "named",
        "it had a, b, and has x, b",
        """select backfill.rebind('public.named', '{"a": "x"}')""",
        {"id": 1, "x": 7, "b": 8},
    ),
    "keyed": (
        ["alter table keyed rename id to number"],
        "keyed",
        "it had id, a, b, and has number, a, b",
        """select backfill.rebind('public.keyed', '{"id": "number"}')""",
        {"number": 1, "a": 7, "b": 8},
    ),
    "exchanged": (  # of the same names in another order: not renamed, but one was made anew
        ["alter table exchanged drop a", "alter table exchanged add a integer default 0"],
        "exchanged",
        "it had a, b, and has b, a",
        "select backfill.rebind('public.exchanged')",
        {"id": 1, "b": 8, "a": 7},
    ),
    "took_over": (  # the usual way to widen a column; what a was is gone
        ["alter table took_over drop a", "alter table took_over rename b to a"],
        "took_over",
        "it had b, and has",
        """select backfill.rebind('public.took_over', '{"a": null, "b": "a"}')""",
        None,
    ),
}


def test_an_undo_after_a_restore_writes_the_right_table_and_column_or_says_what_is_in_doubt(
    conn: psycopg.Connection, database_url: str, empty_database_url: str, restore: Copy
) -> None:
    run_ids = {name: table(conn, name) for name in CASES}
    for statements, *_ in CASES.values():
        do(conn, *statements)
    conn.commit()
    restore(database_url, empty_database_url)
    with psycopg.connect(empty_database_url) as copy:
        for name, (_, now, doubt, call, left) in CASES.items():
            state = f"select to_jsonb(t) from {now} as t"
            found = value(copy, state)
            for look in ("reversal_preview", "reverse_run") if doubt and call else ():
                with pytest.raises(psycopg.Error) as caught:
                    do(copy, f"select * from backfill.{look}('{run_ids[name]}')")
                assert (caught.value.sqlstate, (doubt or "") in str(caught.value)) == ("BF005", True), name
                assert name == "took_over" or (call or "") in (caught.value.diag.message_hint or ""), name
                copy.rollback()
                assert value(copy, state) == found, name
            if call:
                do(copy, call)
            if left is None:
                with pytest.raises(psycopg.Error, match="no longer has column a"):
                    reverse(copy, run_ids[name])
                copy.rollback()
                do(copy, call or "")
                copy.commit()
            else:
                assert reverse(copy, run_ids[name]) == {"restored": 1}, name
                assert value(copy, state) == left, name
        assert rows(copy, "select a, b from replaced") == [(0, 0)]
        # What was settled, or was never in doubt, goes on as everything else.
        for name, (_, now, *_) in CASES.items():
            before = images(copy, now)
            run_id = done(copy, f"update {now} set {'x' if name == 'named' else 'a'} = 3")
            assert len(changes(copy, run_id)) == 1
            assert reverse(copy, run_id) == {"restored": 1}, name
            assert images(copy, now) == before
        assert rows(copy, "select table_name from backfill.tracked where doubt is not null") == []


def doctor(url: str) -> str:
    """What `runner doctor` says of restored tables."""
    found = command(url, "doctor", "--json", code=None).json["findings"]
    return "; ".join(item["message"] for item in found if item["subject"] == "restored")


OTHERS = """
    create table left_off (id integer primary key, a integer); create table bare (id integer primary key, a integer);
    create table lost (id integer primary key, a integer);
    create table later (id integer primary key, a integer, b integer);
    create table billed (id integer primary key, number text)"""


def test_a_table_that_nothing_but_its_name_knows_is_settled_by_a_call(
    conn: psycopg.Connection, database_url: str, empty_database_url: str, restore: Copy
) -> None:
    make(conn, OTHERS, "left_off", "bare", "lost", "later")
    do(conn, "select backfill.track('billed', '{number}')", "insert into later values (1, 1, 2)")
    run_ids = {name: done(conn, f"insert into {name} values (9, 0)") for name in ("left_off", "bare", "lost", "billed")}
    run_ids["later"] = done(conn, "update later set a = 0, b = 0")
    do(
        conn,
        # Untracked, and another put in its place; without triggers; both; and one whose business key was renamed.
        "select backfill.untrack('left_off')",
        "select backfill.untrack('lost')",
        "alter table left_off rename to left_old",
        "create table left_off (like left_old including all)",
        "insert into left_off values (9, 0)",
        "drop trigger backfill_capture_insert on bare",
        "alter table lost rename to found",
        "alter table later rename a to x",
        "alter table later rename b to a",
        "alter table later rename x to b",
        "alter table billed rename number to reference",
    )
    conn.commit()
    restore(database_url, empty_database_url)
    assert "were restored with this database: the next run finds them" in doctor(empty_database_url)
    with psycopg.connect(empty_database_url) as copy:

        def refused(statement: str, match: str, state: str = "BF005") -> None:
            with pytest.raises(psycopg.Error, match=match) as caught:
                do(copy, statement)
            assert caught.value.sqlstate == state
            copy.rollback()

        undo = {name: f"select * from backfill.reverse_run('{run_id}')" for name, run_id in run_ids.items()}
        refused(
            "select backfill.begin_run('x')",
            r"(?s)billed.* has no business key.*rebind\('public.billed', '.*reference",
            "BF002",
        )
        do(copy, """select backfill.rebind('billed', '{"number": "reference"}')""")
        assert reverse(copy, run_ids["billed"]) == {"restored": 1}

        do(copy, "select backfill.track('left_off')")
        copy.commit()
        refused(undo["left_off"], "only its name says that public.left_off is the table")
        do(copy, "select backfill.rebind('left_old', p_was => 'public.left_off')")
        assert reverse(copy, run_ids["left_off"]) == {"restored": 1}
        assert rows(copy, "select 1 from left_old union all select 2 from left_off") == [(2,)]

        refused(undo["bare"], "only its name says that public.bare")
        do(copy, "select backfill.rebind('bare')")
        assert reverse(copy, run_ids["bare"]) == {"restored": 1}

        refused(undo["lost"], r"(?s)public.lost is gone.*rebind\('\.\.\.', p_was => 'public.lost'\)")
        do(copy, "select backfill.rebind('found', p_was => 'public.lost')", "select backfill.track('found')")
        assert reverse(copy, run_ids["lost"]) == {"restored": 1}

        assert "public.later was restored or made anew it is not certain" in doctor(empty_database_url)
        # A run in between: what it captured stays right; what came before cannot be put under other names any more.
        run_id = done(copy, "update later set a = 5")
        refused(undo["later"], "it had a, b, and has b, a")
        refused("""select backfill.rebind('later', '{"a": "b", "b": "a"}')""", "captured public.later", "BF002")
        assert reverse(copy, run_id) == {"restored": 1}
        refused("""select backfill.rebind('later', '{"c": "a"}')""", "captured public.later", "BF002")
        refused("""select backfill.rebind('bare', '{"a": "b"}')""", "nothing of public.bare is in doubt", "BF002")
