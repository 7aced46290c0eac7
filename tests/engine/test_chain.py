"""The chain: each run that ends is a link, and what may change later breaks none."""

from __future__ import annotations

import subprocess
import threading
from uuid import UUID

import psycopg
import pytest

from runner import embedded
from runner.errors import EmbeddedServerError
from tests.conftest import migrate
from tests.engine.evidence import ENTRY, head, history, make_entry, wrong
from tests.engine.words import do, done, make, refused, reverse, rows, value


@pytest.fixture
def entry(conn: psycopg.Connection) -> psycopg.Connection:
    """A tracked table with rows in it."""
    make_entry(conn)
    return conn


def test_each_run_is_a_link_over_the_one_before(entry: psycopg.Connection) -> None:
    runs = history(entry)
    reverse(entry, runs[2])
    undo = value(entry, "select run_id from backfill.backfill_log where reverses = %s", [runs[2]])
    links = rows(
        entry, "select run_id, detail ->> 'status', previous, hash from backfill.chain where kind = 'run' order by link"
    )
    assert [link[0] for link in links] == [*runs, undo]
    assert {link[1] for link in links} == {"succeeded"}
    assert [link[2] for link in links][1:] == [link[3] for link in links][:-1]
    assert head(entry).endswith(f":{links[-1][3]}")
    assert wrong(entry) == []
    assert wrong(entry, head(entry)) == []
    assert wrong(entry, links[0][3]) == []  # whichever was kept, with its number or without
    reverse(entry, undo)
    assert value(entry, "select status from backfill.backfill_log where run_id = %s", [runs[2]]) == "succeeded"
    assert wrong(entry) == []


def test_a_run_that_failed_or_was_abandoned_is_a_link_too(entry: psycopg.Connection) -> None:
    do(entry, "select backfill.begin_run('x')", "select backfill.finish_run(p_status => 'failed')")
    entry.commit()
    run_id = value(entry, "select backfill.begin_run('worker', p_spans_transactions => true)")
    do(entry, "update entry set cents = 5 where id = 1")
    entry.commit()
    assert wrong(entry) == []  # it is running: there is nothing to be linked yet
    do(entry, f"select backfill.abandon_run('{run_id}', 'killed')")
    entry.commit()
    links = "select detail ->> 'status', packs_sha256 is null from backfill.chain where kind = 'run' order by link"
    assert rows(entry, links) == [("failed", True), ("partial", False)]
    assert wrong(entry) == []


def test_what_changes_later_changes_no_hash_of_before(entry: psycopg.Connection) -> None:
    history(entry)
    do(
        entry,
        "alter table entry rename column cents to amount",
        "alter table entry rename to entries",
        "create schema books",
        "alter table entries set schema books",
        "alter table books.entries add column extra text default 'x'",
        "alter table books.entries drop column kind",
        "alter table books.entries alter column id type bigint",
        "alter table books.entries alter column name type varchar(20)",
    )
    entry.commit()
    assert wrong(entry) == []
    # The next run takes all of it over: columns are added to the packs, and their types changed.
    done(entry, "update books.entries set extra = 'y' where id = 1", "update books.entries set amount = 7")
    assert wrong(entry) == []
    do(
        entry,
        "select backfill.track('books.entries', p_stamped => '{at}')",
        "set local timezone = 'Asia/Kolkata'",
        "set local datestyle = 'German'",
        "set local bytea_output = 'escape'",
        "set local extra_float_digits = 0",
        "set local intervalstyle = 'iso_8601'",
    )
    assert wrong(entry) == []
    do(entry, "select backfill.untrack('books.entries')", "drop table books.entries")
    assert wrong(entry) == []


def test_texts_are_hashed_alike_whatever_the_client_speaks(conn: psycopg.Connection) -> None:
    ddl = "create table words (id int primary key, word text, kind regclass, name name, bits bit(5), price numeric)"
    make(conn, ddl, "words")
    do(conn, "set client_encoding = 'LATIN9'")
    done(
        conn,
        r"insert into words values (1, U&'\00fc\20ac', 'pg_class', 'x', b'10101', 1.00),"
        r" (2, null, 'words', 'y', b'00001', 1.0)",
    )
    assert wrong(conn) == []
    do(conn, "set client_encoding = 'UTF8'")
    assert wrong(conn) == []
    # A reference to an object is hashed as its name: that reads otherwise when the object has another one.
    do(conn, "alter table words rename to sentences")
    assert [found.partition(": ")[2] for found in wrong(conn)] == ["packs of public.words were altered"]


def test_two_workers_that_finish_at_once_stand_one_after_the_other(
    entry: psycopg.Connection, database_url: str
) -> None:
    runs = []
    for _ in range(2):
        runs.append(value(entry, "select backfill.begin_run('worker', p_spans_transactions => true)"))
        entry.commit()
    ready = threading.Barrier(2)

    def finish(run_id: UUID, place: int) -> None:
        with psycopg.connect(database_url) as conn:
            do(conn, f"select backfill.resume_run('{run_id}', true)", f"update entry set cents = 9 where id = {place}")
            ready.wait(timeout=60)
            do(conn, "select backfill.finish_run()")

    workers = [threading.Thread(target=finish, args=(run_id, place)) for place, run_id in enumerate(runs, start=1)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert {row[0] for row in rows(entry, "select run_id from backfill.chain where kind = 'run'")} == set(runs)
    assert wrong(entry) == []


def test_a_snapshot_that_cannot_see_the_last_link_is_a_serialization_failure(
    entry: psycopg.Connection, database_url: str
) -> None:
    with psycopg.connect(database_url) as other:
        other.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        do(other, "select count(*) from entry")
        done(entry, "update entry set cents = 3 where id = 1")
        do(other, "select backfill.begin_run('late')", "update entry set cents = 4 where id = 2")
        with pytest.raises(psycopg.errors.SerializationFailure):
            do(other, "select backfill.finish_run()")
        other.rollback()
    assert wrong(entry) == []


def test_a_hash_that_is_none_is_refused(entry: psycopg.Connection) -> None:
    with pytest.raises(psycopg.Error, match="64 hexadecimal digits") as caught:
        wrong(entry, "9f86d0")
    assert caught.value.sqlstate == "BF009"
    assert "'9f86d0' is none" in refused(caught)


def _oldest() -> int:
    """15 where the system has it, else what comes with the project."""
    try:
        embedded.programs(15)
    except EmbeddedServerError:
        return 16
    return 15


def test_a_dump_of_the_oldest_server_is_whole_in_the_newest() -> None:
    """Dumped by its own pg_dump and restored into 18: each hash is the same, and an undo goes on."""
    with (
        embedded.running(version=_oldest(), options=embedded.UNSAFE_BUT_FAST) as old,
        embedded.running(version=18, options=embedded.UNSAFE_BUT_FAST) as new,
    ):
        for server in (old, new):
            with psycopg.connect(server.url(), autocommit=True) as maintenance:
                maintenance.execute("create database books template template0 encoding 'UTF8'")
        migrate(host=str(old.socket), port=embedded.PORT, user=embedded.SUPERUSER, dbname="books")
        with psycopg.connect(old.url("books")) as source:
            make(source, ENTRY, "entry")
            done(
                source,
                "insert into entry select i, 'nü' || i, i, now(), i / 7.0, '[1.0]' from generate_series(1, 2500) as i",
            )
            second = done(
                source,
                "update entry set cents = cents + 1 where id % 2 = 0",
                "delete from entry where id = 9",
                "insert into entry values (0, 'one', 1)",
            )
            do(source, "select backfill.erase('public.entry', '7', '{name}', 'asked for')")
            source.commit()
            assert wrong(source) == []
            anchor = head(source)
        for dump, into in (("pg_dumpall --roles-only", "postgres"), ("pg_dump --no-toast-compression", "books")):
            program, *options = dump.split()
            text = subprocess.run(
                [str(old.programs / program), *options, f"--dbname={old.url('books')}"], capture_output=True, check=True
            ).stdout
            command = [str(new.programs / "psql"), "--quiet", f"--dbname={new.url(into)}"]
            command += ["--set=ON_ERROR_STOP=1"] if into == "books" else []  # the superuser is there already
            done_ = subprocess.run(command, input=text, capture_output=True, check=False)
            assert done_.returncode == 0, done_.stderr[-500:]
        with psycopg.connect(new.url("books")) as copy:
            assert head(copy) == anchor
            assert wrong(copy, anchor) == []
            assert reverse(copy, second) == {"restored": 1252}
            assert wrong(copy, anchor) == []


FORBIDDEN = (
    "insert into backfill.chain select * from backfill.chain",
    "update backfill.chain set hash = previous",
    "select backfill.seal_engine('mine')",
    "select backfill.add_link('erase', null, null, '{}', 'me')",
    "select backfill.link_run(l) from backfill.backfill_log as l",
    "select backfill.erase('public.entry', '1', '{name}', 'x')",
    "select backfill.export_run(gen_random_uuid(), 'f', repeat('0', 64))",
    "select backfill.restore_run(repeat('0', 64))",
    "select backfill.lift_guard('backfill_audit.public_entry', true)",
)


@pytest.mark.parametrize("role", ["backfill_auditor", "backfill_operator"])
def test_auditors_and_operators_verify_and_write_nothing(entry: psycopg.Connection, role: str) -> None:
    done(entry, "update entry set cents = 3 where id = 1")
    do(entry, f"set role {role}")
    assert wrong(entry, head(entry)) == []
    for statement in FORBIDDEN:
        with pytest.raises(psycopg.errors.InsufficientPrivilege), entry.transaction():
            do(entry, statement)


def test_the_chain_only_grows(entry: psycopg.Connection) -> None:
    done(entry, "update entry set cents = 3 where id = 1")
    for statement in ("update backfill.chain set actor = 'x'", "delete from backfill.chain", "truncate backfill.chain"):
        with pytest.raises(psycopg.Error, match="append-only"):
            do(entry, statement)
        entry.rollback()
