"""What gets in the way for a moment is tried again: by a load and a reconciliation as by an apply."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import psycopg
import pytest

from runner.load import Landing, load
from runner.settings import Settings
from tests.story import run, shell, sql

CONFLICT = """
    create function public.conflict() returns trigger language plpgsql as $$
    begin
        if (select last_value from public.tries) < 3 then
            perform nextval('public.tries');
            raise exception 'another transaction was quicker' using errcode = '40001';
        end if;
        return new;
    end $$;
    create sequence public.tries start 1;
    select nextval('public.tries');
"""


def test_a_load_is_tried_again_with_a_landing_of_its_own(database_url: str, settings: Settings, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("x")
    sql(database_url, "create table public.landed (n int)")
    tries: list[int] = []

    def fill(landing: Landing) -> None:
        tries.append(landing.copy("public.landed", ["n"], [[1], [2]]))
        if len(tries) < 3:
            raise psycopg.errors.SerializationFailure
        landing.metrics["tries"] = len(tries)

    done = load(settings, loader="odd", paths=[file], fill=fill)
    assert (tries, done.rows) == ([2, 2, 2], 2)
    assert sql(database_url, "select count(*) from public.landed") == [(2,)]
    assert sql(database_url, "select count(*) from backfill.backfill_log where mode = 'load'") == [(1,)]


def test_a_load_and_a_reconciliation_outlast_a_conflict(database_url: str, tmp_path: Path) -> None:
    bills = tmp_path / "bills.txt"
    bills.write_text("# Vattenfall\n2023-02-28 1632 kr\n")
    sql(
        database_url, CONFLICT,
        "create trigger conflict before insert on staging.electricity_bill"
        " for each row execute function public.conflict()",
    )  # fmt: skip
    assert "1 row taken" in run(database_url, "load", "electricity", str(bills)).out
    assert sql(database_url, "select last_value from public.tries") == [(3,)]


def test_a_lock_that_is_let_go_soon_costs_no_load(database_url: str, tmp_path: Path) -> None:
    bills = tmp_path / "bills.txt"
    bills.write_text("# Vattenfall\n2023-02-28 1632 kr\n")
    (tmp_path / "runner.toml").write_text('systems = ["rent"]\nlock_timeout = "100ms"\nretries = 20\n')
    with psycopg.connect(database_url) as other:
        other.execute("lock table staging.electricity_bill in access exclusive mode")

        def let_go() -> None:
            time.sleep(0.5)
            other.rollback()

        waiting = threading.Thread(target=let_go)
        waiting.start()
        done = run(database_url, "load", "electricity", str(bills), "--config", str(tmp_path / "runner.toml"))
        waiting.join()
    assert "1 row taken" in done.out


def test_a_cache_that_cannot_be_written_is_said_once_and_all_works(database_url: str, tmp_path: Path) -> None:
    nowhere = tmp_path / "file"
    nowhere.write_text("")
    done = shell(database_url, "apply", "charges", "--dry-run", XDG_CACHE_HOME=str(nowhere))
    assert done.err.count("the compiled gates cannot be kept") == 1
    assert str(nowhere) in done.err
    assert "XDG_CACHE_HOME" in done.err


@pytest.mark.parametrize("start", [b"\xef\xbb\xbf", b"\xff\xfe"])
def test_a_migration_that_is_no_plain_utf8_is_refused_by_file(
    start: bytes, empty_database_url: str, tmp_path: Path
) -> None:
    own = tmp_path / "migrations"
    own.mkdir()
    (own / "1000_app_words.sql").write_bytes(start + b"-- depends: 0001_backfill_schema\nselect 1;\n")
    (tmp_path / "runner.toml").write_bytes(b"\xef\xbb\xbfsystems = []\n")
    done = run(empty_database_url, "apply", "--yes", "--config", str(tmp_path / "runner.toml"), code=1)
    assert "1000_app_words.sql" in done.err
    assert "byte order mark" in done.err or "is not UTF-8" in done.err
    assert sql(empty_database_url, "select to_regnamespace('backfill') is null") == [(True,)]
