"""A rehearsal cannot commit: what tries to is refused, or found out and told; "nothing was changed" is proved first."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from runner import gates
from runner.database import connect, locked_transaction
from runner.errors import NotProvedError
from runner.settings import Settings
from tests.story import SAMPLE_CHARGES, adopt, charges, config, last_run, lock_holders, run, sql, until

NOWHERE = "host=/nowhere/at/all dbname=none"
WAYS = (
    "commit;",
    "end;",
    "rollback;",
    "prepare transaction 'p';",
    "begin;",
    "savepoint s;",
    "set transaction read only;",
)


@pytest.fixture
def url(database_url: str) -> str:
    return adopt(database_url)


@pytest.fixture
def own(tmp_path: Path) -> Callable[..., tuple[str, ...]]:
    """`own("statements", …)` writes migrations 1900_own_0 … of a project's own; the options that choose them."""

    def write(*texts: str, **values: object) -> tuple[str, ...]:
        folder = tmp_path / "own"
        folder.mkdir()
        for number, text in enumerate(texts):
            (folder / f"190{number}_own_{'abc'[number]}.sql").write_text(f"-- Own.\n{text}\n")
        return tuple(config(tmp_path, migrations="own", **values))

    return write


@pytest.fixture
def blind(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the reader did not know what it refuses: whatever gets past it has to be found out."""
    monkeypatch.setattr("runner.migration_files.refused", lambda text: None)


@pytest.fixture
def gated(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """`gated("select …", …)` are the gates of charges."""

    def choose(*texts: str) -> None:
        found = tuple(gates.Gate(f"gate_{number}", text, "error", ("charges",)) for number, text in enumerate(texts))
        monkeypatch.setattr("runner.gates.compile", lambda settings: found)

    return choose


def everything(url: str, dump: Callable[..., str]) -> str:
    """All that a rehearsal could leave, also what is prepared."""
    assert sql(url, "select gid from pg_prepared_xacts where database = current_database()") == []
    return dump(url, "--inserts")


# 1. A migration that would end the transaction.


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("verb", ["--dry-run", "--yes"])
def test_transaction_control_is_refused_before_any_connection(
    own: Callable[..., tuple[str, ...]], way: str, verb: str
) -> None:
    options = own("create table public.sneaky (x int);\n" + way)
    done = run(NOWHERE, "apply", verb, *options, code=1)
    assert f"1900_own_a.sql, line 3: {way.split()[0].rstrip(';')}" in done.err
    assert "cannot connect" not in done.err


def test_a_psql_command_and_data_of_the_client_are_refused_too(own: Callable[..., tuple[str, ...]]) -> None:
    options = own("\\set x 1\nselect 1;")
    assert "1900_own_a.sql, line 2: \\: a command of psql" in run(NOWHERE, "apply", *options, code=1).err


def test_a_rollback_file_is_read_as_well(own: Callable[..., tuple[str, ...]], tmp_path: Path) -> None:
    options = own("create table public.mine (x int);")
    (tmp_path / "own" / "1900_own_a.rollback.sql").write_text("drop table public.mine;\ncommit;\n")
    assert "1900_own_a.rollback.sql, line 2: commit" in run(NOWHERE, "apply", *options, code=1).err


@pytest.mark.usefixtures("blind")
@pytest.mark.parametrize("verb", ["--dry-run", "--yes"])
@pytest.mark.parametrize(
    ("way", "words"),
    [
        ("commit;", "1900_own_a, statement 2 ended the transaction: all that had been done until then was committed"),
        ("end;", "1900_own_a, statement 2 ended the transaction: all that had been done until then was committed"),
        ("commit and chain;", "1900_own_a ended the transaction: all that had been done until then was committed"),
        ("rollback;", "1900_own_a, statement 2 rolled back what had been done before it"),
        ("rollback and chain;", "1900_own_a rolled back what had been done before it"),
    ],
)
def test_what_gets_past_the_reader_is_found_out_and_told(
    url: str, own: Callable[..., tuple[str, ...]], verb: str, way: str, words: str
) -> None:
    done = run(url, "apply", verb, *own(f"create table public.sneaky (x int);\n{way}"), code=1)
    assert words in done.err
    assert "may have been committed" in done.err
    assert "migration 1900_own_a" in done.err
    assert "othing was changed" not in done.text
    assert "Nothing" not in done.text
    there = sql(url, "select to_regclass('public.sneaky') is not null")
    assert there == [("committed" in words and "rolled" not in words,)]
    assert charges(url) == []
    assert lock_holders(url) == []


@pytest.mark.usefixtures("blind")
def test_an_error_after_a_commit_does_not_hide_it(url: str, own: Callable[..., tuple[str, ...]]) -> None:
    done = run(url, "apply", "--dry-run", *own("create table public.sneaky (x int);\ncommit and chain;\nselect 1 / 0;"),
               code=1)  # fmt: skip
    assert "division by zero" in done.err
    assert "But the transaction was to be rolled back, and the server does not say that it was" in done.err
    assert ": committed). What may have been committed: " in done.err
    assert "othing was changed" not in done.text


@pytest.mark.usefixtures("blind")
def test_going_back_to_a_savepoint_of_another_migration_is_found_out(
    url: str, own: Callable[..., tuple[str, ...]], dump: Callable[..., str]
) -> None:
    before = everything(url, dump)
    done = run(url, "apply", "--yes", *own("savepoint s;", "create table public.b (x int);", "rollback to s;"),
               code=1)  # fmt: skip
    assert "migration 1902_own_c went back to a savepoint" in done.err
    assert "All of the transaction was rolled back: nothing was changed" in done.err
    assert everything(url, dump) == before


@pytest.mark.usefixtures("blind")
def test_a_savepoint_within_one_migration_does_no_harm(url: str, own: Callable[..., tuple[str, ...]]) -> None:
    text = (
        "create table public.kept (x int);\nsavepoint s;\ndrop table public.kept;\nrollback to savepoint s;\nreset all;"
    )
    run(url, "apply", "--yes", *own(text))
    assert sql(url, "select to_regclass('public.kept') is not null") == [(True,)]


def test_a_text_that_only_the_server_takes_apart_is_one_statement(
    url: str, own: Callable[..., tuple[str, ...]], dump: Callable[..., str]
) -> None:
    """Where a setting gives a backslash a meaning, the reader sees one string and the server three statements."""
    before = everything(url, dump)
    options = own(
        "set standard_conforming_strings = off;\n" + r"select '\''; commit; create table public.sneaky (x int); --'"
    )
    done = run(url, "apply", "--dry-run", *options, code=1)
    assert (
        "cannot apply 1900_own_a, statement 2 of 2: cannot insert multiple commands into a prepared statement"
        in done.err
    )
    assert everything(url, dump) == before


# 2. A gate, and where gates are kept.

SNEAKY = (
    "select 1 where false) as a; commit; create table public.sneaky (x int);"
    " select count(*), false, false from (select 1"
)


def test_a_gate_cannot_hold_a_second_statement(url: str, gated: Callable[..., None], dump: Callable[..., str]) -> None:
    gated("select 1 where false", SNEAKY)
    before = everything(url, dump)
    for way in ("--dry-run", "--yes"):
        done = run(url, "apply", way, code=3)
        assert "cannot insert multiple commands into a prepared statement" in done.text
        assert "Stopped by a gate: nothing was changed." in done.out
        assert everything(url, dump) == before


def test_a_test_of_dbt_with_a_second_statement_is_an_error_of_that_gate(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dump: Callable[..., str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    tests = tmp_path / "dbt" / "tests" / "charges"
    tests.mkdir(parents=True)
    (tmp_path / "dbt" / "dbt_project.yml").write_text('name: mine\nversion: "1.0"\nprofile: backfill\n')
    (tests / "sneaky.sql").write_text(SNEAKY)
    before = everything(url, dump)
    done = run(url, "apply", "--dry-run", *config(tmp_path, systems=["charges"], dbt_project="dbt"), code=3)
    assert "sneaky cannot insert multiple commands into a prepared statement" in done.text
    assert everything(url, dump) == before


@pytest.mark.parametrize("planted", ["others may write the file", "others may write the folder", "of another user"])
def test_a_cache_that_others_could_have_written_is_not_used(
    url: str, planted: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dump: Callable[..., str]
) -> None:
    if planted == "of another user" and os.geteuid() != 0:
        pytest.skip("only root can give a file away")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    chosen = config(tmp_path, systems=["charges"])
    before = everything(url, dump)
    run(url, "apply", "--dry-run", *chosen)
    [kept] = (tmp_path / "cache" / "backfill-runner" / "gates").glob("*.json")
    false = {"name": "planted", "sql": SNEAKY, "severity": "error", "backfills": ["charges"], "models": [], "uses": []}
    kept.write_text(json.dumps([false]))
    assert "planted" in run(url, "apply", "--dry-run", *chosen, code=3).out  # what is one's own is trusted
    if planted == "of another user":
        os.chown(kept, 65534, 65534)
    else:
        (kept if planted.endswith("file") else kept.parent).chmod(0o777)
    done = run(url, "apply", "--dry-run", *chosen)
    assert "planted" not in done.out
    assert "Rehearsed and rolled back: nothing was changed." in done.out
    assert everything(url, dump) == before


# 3. Code of the application that would commit from within.

SNEAK = """create procedure public.sneak() language plpgsql as $$
    begin create table public.sneaky (x int); commit; end; $$"""


@pytest.mark.parametrize("way", ["call public.sneak()", "execute 'commit'", "execute 'select 1; commit'"])
def test_a_function_or_procedure_cannot_end_the_transaction(url: str, way: str, dump: Callable[..., str]) -> None:
    """The server itself forbids it. What is sent over a second connection (dblink) nobody here can see."""
    sql(url, SNEAK, "grant create on schema public to backfill_owner",
             "create function public.on_charge() returns trigger language plpgsql as $$"
             f" begin {way}; return null; end; $$",
             "create trigger on_charge after insert on property.charges for each statement"
             " execute function public.on_charge()")  # fmt: skip
    before = everything(url, dump)
    for verb in ("--dry-run", "--yes"):
        done = run(url, "apply", verb, code=1)
        assert "error: " in done.err
        assert "2D000" in done.err or "0A000" in done.err
        assert everything(url, dump) == before


@pytest.mark.parametrize("text", ["do $$ begin commit; end $$;", "call public.sneak();"])
def test_a_block_or_procedure_of_a_migration_cannot_either(
    url: str, own: Callable[..., tuple[str, ...]], text: str, dump: Callable[..., str]
) -> None:
    sql(
        url,
        SNEAK,
    )
    before = everything(url, dump)
    done = run(url, "apply", "--dry-run", *own(text), code=1)
    assert "invalid transaction termination" in done.err
    assert everything(url, dump) == before


# What is said is what the server says.


def test_a_rollback_that_did_not_happen_is_told(settings: Settings) -> None:
    with (
        connect(settings) as conn,
        pytest.raises(NotProvedError, match=r"committed\)\. What may have been committed: a, b"),
    ):
        with locked_transaction(conn, settings) as proof:
            proof.after("a")
            proof.after("b")
            conn.commit()
            proof.roll_back()


def test_an_error_in_a_transaction_that_stood_is_shown_alone(settings: Settings) -> None:
    with connect(settings) as conn, pytest.raises(psycopg.errors.DivisionByZero):
        with locked_transaction(conn, settings):
            conn.execute("select 1 / 0")


def test_a_savepoint_of_the_runner_that_is_gone_is_told(settings: Settings) -> None:
    with connect(settings) as conn, pytest.raises(NotProvedError, match="below a savepoint"):
        with locked_transaction(conn, settings) as proof, proof.savepoint():
            conn.execute('release savepoint "_pg3_1"')


def test_a_savepoint_rolled_back_by_the_runner_is_honest(settings: Settings) -> None:
    with connect(settings) as conn, locked_transaction(conn, settings) as proof:
        with pytest.raises(psycopg.errors.DivisionByZero), proof.savepoint():
            proof.after("a")
            conn.execute("select 1 / 0")
        proof.after("b")
        with proof.savepoint(undone=True):
            proof.after("c")
        proof.after("d")
        assert proof.steps == ["b", "d"]


def test_what_was_committed_first_is_not_called_nothing(
    url: str, own: Callable[..., tuple[str, ...]], gated: Callable[..., None]
) -> None:
    gated("select 1 as wrong")
    options = own(
        "create table public.one (x int);", "-- transactional: false\ncreate index concurrently i on public.one (x);"
    )
    done = run(url, "apply", "--yes", "--allow-non-transactional", *options, code=3)
    assert "Stopped by a gate: nothing else was changed." in done.out
    assert "there to stay: 1900_own_a, 1901_own_b" in done.text


def test_a_migration_outside_a_transaction_that_fails_says_what_stays(
    url: str, own: Callable[..., tuple[str, ...]]
) -> None:
    text = "-- transactional: false\ncreate table public.two (x int);\nselect 1 / 0;"
    done = run(
        url, "apply", "--yes", "--allow-non-transactional", *own("create table public.one (x int);", text), code=1
    )
    assert "committed before: 1900_own_a" in done.err
    assert "outside a transaction, where what was done stays" in done.err
    assert "cannot apply 1901_own_b, statement 2 of 2" in done.err
    assert "Nothing" not in done.err
    assert sql(url, "select to_regclass('public.one') is not null, to_regclass('public.two') is not null") == [
        (True, True)
    ]


# Somebody else ends what is running.


@contextmanager
def disturbing(url: str, function: str = "pg_cancel_backend") -> Iterator[None]:
    """As soon as the runner sleeps, its statement is cancelled, or its session ended, once."""

    def disturb() -> None:
        asleep = (
            f"select {function}(pid) from pg_stat_activity where datname = current_database()"
            " and application_name = 'runner apply' and wait_event = 'PgSleep'"
        )
        until(lambda: sql(url, asleep), "the runner's sleep", 60)

    thread = threading.Thread(target=disturb)
    thread.start()
    yield
    thread.join()


SLEEPING_TRIGGER = """
    create function public.slow() returns trigger language plpgsql as
        $$ begin perform pg_sleep(60); return null; end; $$;
    create trigger slow after insert on property.charges for each statement execute function public.slow();
"""


@pytest.mark.parametrize("where", ["migration", "backfill", "gate"])
def test_a_cancelled_statement_ends_the_attempt(
    url: str, where: str, own: Callable[..., tuple[str, ...]], gated: Callable[..., None], dump: Callable[..., str]
) -> None:
    """It is no verdict of a gate, after which the next one would be asked."""
    options = own("select pg_sleep(60);") if where == "migration" else ()
    gated("select 1 where pg_sleep(60) is null", "select 1 / 0") if where == "gate" else gated("select 1 where false")
    if where == "backfill":
        sql(url, SLEEPING_TRIGGER)
    before = everything(url, dump)
    with disturbing(url):
        done = run(url, "apply", "--yes", *options, code=1)
    assert "a statement was cancelled" in done.err
    assert "canceling statement due to user request" in done.err
    assert "Nothing of the open transaction was kept" in done.err
    assert {"migration": "cannot apply 1900_own_a", "backfill": "error", "gate": "gate gate_0"}[where] in done.err
    assert "Stopped by a gate" not in done.text
    assert everything(url, dump) == before
    assert lock_holders(url) == []


def test_a_gate_that_takes_longer_than_the_limit_ends_the_attempt(
    url: str, gated: Callable[..., None], tmp_path: Path, dump: Callable[..., str]
) -> None:
    gated("select 1 where pg_sleep(60) is null")
    before = everything(url, dump)
    done = run(url, "apply", "--yes", *config(tmp_path, statement_timeout="2s"), code=1)
    assert "gate gate_0: canceling statement due to statement timeout" in done.err
    assert "raise statement_timeout" in done.err
    assert everything(url, dump) == before


@pytest.mark.parametrize("where", ["migration", "gate"])
def test_a_session_that_is_ended_ends_the_attempt(
    url: str, where: str, own: Callable[..., tuple[str, ...]], gated: Callable[..., None], dump: Callable[..., str]
) -> None:
    options = own("select pg_sleep(60);") if where == "migration" else ()
    gated("select 1 where pg_sleep(60) is null" if where == "gate" else "select 1 where false")
    before = everything(url, dump)
    with disturbing(url, "pg_terminate_backend"):
        done = run(url, "apply", "--yes", *options, code=1)
    assert "the server ended the connection" in done.err
    assert everything(url, dump) == before


# The undo, proved beforehand.

UNDO = """create or replace function backfill.prove_undo(p_run uuid)
    returns table (proved boolean, row_count bigint, refusal text) language plpgsql as $$ begin {body} end; $$"""


def undo(url: str, *options: str) -> dict[str, object]:
    found: dict[str, object] = run(url, "apply", "charges", "--dry-run", "--json", *options).json
    [backfill] = found["attempt"]["backfills"]  # type: ignore[index]
    result: dict[str, object] = backfill["undo"]
    return result


def test_the_undo_is_proved_beforehand_and_the_report_says_so(
    url: str, tmp_path: Path, dump: Callable[..., str]
) -> None:
    before = everything(url, dump)
    assert undo(url) == {"state": "proved", "rows": SAMPLE_CHARGES, "reason": ""}
    page = tmp_path / "report.html"
    done = run(url, "apply", "charges", "--dry-run", "--html", str(page))
    assert f"undo proved: {SAMPLE_CHARGES} rows" in done.out
    assert f'<p class="good">undo proved: {SAMPLE_CHARGES} rows</p>' in page.read_text()
    assert everything(url, dump) == before
    # The apply says what its rehearsal found.
    assert f"undo proved: {SAMPLE_CHARGES} rows" in run(url, "apply", "charges", "--yes").out


def test_a_trigger_that_would_keep_a_row_from_going_is_found_beforehand(url: str, tmp_path: Path) -> None:
    sql(
        url,
        "create function public.keep() returns trigger language plpgsql as $$ begin return null; end; $$",
        "create trigger keep before delete on property.charges for each row execute function public.keep()",
    )
    found = undo(url)
    assert (found["state"], found["rows"]) == ("refused", 0)
    page = tmp_path / "report.html"
    done = run(url, "apply", "charges", "--yes", "--html", str(page))
    assert "undo would be refused: " in done.out
    assert '<p class="bad">undo would be refused: ' in page.read_text()
    run(url, "rollback", last_run(url), "--yes", code=6)


def test_an_undo_that_would_be_refused_is_a_red_line_and_stops_nothing(url: str) -> None:
    sql(url, UNDO.format(body="return query select false, 0::bigint, 'updated_at is stamped by trigger touch';"))
    assert undo(url) == {"state": "refused", "rows": 0, "reason": "updated_at is stamped by trigger touch"}
    done = run(url, "apply", "charges", "--yes")
    assert "undo would be refused: updated_at is stamped by trigger touch" in done.out
    assert len(charges(url)) == SAMPLE_CHARGES


def test_what_a_proof_of_undo_leaves_or_raises_is_undone(url: str, dump: Callable[..., str]) -> None:
    body = "delete from property.charges; create table public.left_over (x int); {how}"
    sql(url, UNDO.format(body=body.format(how="return query select true, 144::bigint, null::text;")))
    before = everything(url, dump)
    assert undo(url) == {"state": "proved", "rows": 144, "reason": ""}
    assert everything(url, dump) == before
    sql(url, UNDO.format(body=body.format(how="raise exception 'one row did not come back' using errcode = 'BF005';")))
    assert undo(url) == {"state": "refused", "rows": 0, "reason": "one row did not come back"}
    done = run(url, "apply", "charges", "--yes", "--prove-undo")
    assert len(charges(url)) == SAMPLE_CHARGES
    assert "undo would be refused: one row did not come back" in done.out  # what its rehearsal found


def test_an_undo_is_tried_where_it_is_not_too_much_or_is_asked_for(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sql(url, UNDO.format(body="return query select true, 144::bigint, null::text;"))
    assert undo(url, "--no-prove-undo") == {"state": "not tried", "rows": 0, "reason": "--no-prove-undo"}
    monkeypatch.setattr("runner.undo_proof.LIMIT", SAMPLE_CHARGES - 1)
    left = undo(url)
    assert (left["state"], left["reason"]) == (
        "not tried", "144 rows are more than 143: --prove-undo tries it all the same")  # fmt: skip
    assert undo(url, "--prove-undo")["state"] == "proved"


def test_a_cancelled_proof_of_undo_ends_the_attempt(url: str) -> None:
    sql(url, UNDO.format(body="perform pg_sleep(60);"))
    with disturbing(url):
        done = run(url, "apply", "charges", "--yes", code=1)
    assert "a statement was cancelled" in done.err
    assert charges(url) == []
