"""`runner apply`: what its report says, as JSON, as a page, row by row; and retries."""

from __future__ import annotations

import importlib
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest

from runner import apply as apply_
from runner.errors import CommitUnknownError
from runner.result import Change
from runner.settings import Settings
from runner.systems import SYSTEMS
from tests.place import ROOT
from tests.story import SAMPLE_CHARGES, UNIT, Proxy, adopt, charges, run, sql

SCHEMA = json.loads((ROOT / "docs" / "report.schema.json").read_text(encoding="utf-8"))


def validate(report: Any) -> None:
    """Against the published schema; jsonschema ships no types, and comes with dbt."""
    validator = importlib.import_module("jsonschema").Draft202012Validator
    validator.check_schema(SCHEMA)
    validator(SCHEMA, format_checker=validator.FORMAT_CHECKER).validate(report)


@pytest.fixture
def url(database_url: str) -> str:
    return adopt(database_url)


def test_every_report_is_as_the_schema_says(empty_database_url: str) -> None:
    """One of each verdict but `declined` and `apply differed`, from before the first migration.

    The schema allows no other key.
    """
    url = adopt(empty_database_url)
    asked: list[tuple[list[str], int]] = [(["--dry-run"], 0), ([], 2), (["--dry-run", "--all"], 0)]
    reports = [run(url, "apply", *options, "--json", code=code).json for options, code in asked]
    sql(url, "create function public.less() returns trigger language plpgsql as"
             " $$ begin new.amount_cents := 1; return new; end; $$",
             "create trigger less before insert on property.charges for each row"
             " execute function public.less()")  # fmt: skip
    reports.append(run(url, "apply", "--yes", "--json", code=3).json)
    sql(url, "drop trigger less on property.charges")
    reports += [run(url, "apply", "--yes", "--json").json for _ in range(2)]
    for report in reports:
        validate(report)
    verdicts = [report["verdict"] for report in reports]
    assert verdicts == ["rehearsed", "not asked", "rehearsed", "gate failed", "applied", "nothing due"]
    assert [len(report.get("changes", ())) for report in reports] == [0, 0, SAMPLE_CHARGES, 0, 0, 0]
    [backfill] = [item for item in reports[4]["attempt"]["backfills"] if item["name"] == "charges"]
    assert (backfill["due_rows"], backfill["due_money"]) == (SAMPLE_CHARGES, {"amounts": 12_350_150})
    assert sum(change["money_after"]["amounts"] for change in reports[2]["changes"]) == 12_350_150
    assert reports[0]["attempt"]["migrations"]
    assert reports[0]["attempt"]["wal_bytes"] > 0


def test_the_schema_refuses_what_is_none() -> None:
    for wrong in ({}, {"verdict": "perhaps"}):
        with pytest.raises(importlib.import_module("jsonschema").ValidationError):
            validate(wrong)


def test_every_row_is_shown_by_tenant_unit_period_and_amount(url: str) -> None:
    done = run(url, "apply", "--dry-run", "--all")
    lines = [line for line in done.out.splitlines() if line.startswith("insert  ")]
    assert len(lines) == len(set(lines)) == SAMPLE_CHARGES
    assert f"insert  ada / {UNIT} / 2023-01  1,200.00" in lines
    sample = run(url, "apply", "--dry-run").out
    assert sample.count("  insert  ") == 20
    assert f"… {SAMPLE_CHARGES - 20} more rows: --all shows every one" in sample


def test_a_rehearsal_that_is_tried_again_shows_each_row_once(url: str) -> None:
    seen: list[Change] = []
    disturbed = threading.Event()

    def step(words: str) -> None:
        if words.startswith("rehearsing: deferred") and not disturbed.is_set():
            disturbed.set()
            raise psycopg.errors.SerializationFailure("as another writer would cause it, at the worst moment")

    plan = apply_.Plan(dry_run=True, every_row=seen.append)
    apply_.apply(Settings(conninfo=url, systems=SYSTEMS), plan, confirm=lambda report: True, progress=step)
    assert len(seen) == SAMPLE_CHARGES


def test_the_report_tells_locks_wal_time_counts_and_triggers(empty_database_url: str) -> None:
    url = adopt(empty_database_url)
    sql(url, "create sequence public.number", "create function public.count() returns trigger language plpgsql as"
             " $$ begin perform nextval('public.number'); return null; end; $$",
             "create trigger counting after insert on property.charges for each row"
             " execute function public.count()")  # fmt: skip
    done = run(url, "apply", "--dry-run")
    for words in ("Migrations (", "0102_backfill_charges", "Control totals", "Gates", "Locks", "ShareRowExclusive",
                  "WAL ", "trigger that fires on these tables: counting on property.charges",
                  "sequence that moved, which no rollback undoes: public.number"):  # fmt: skip
        assert words in done.text
    again = run(adopt_done(url), "apply", "--dry-run")
    assert "ShareRowExclusive" not in again.out  # no migration, so writers need not wait


def adopt_done(url: str) -> str:
    """The same database after its first apply, with one more payment."""
    run(url, "apply", "--yes")
    sql(url, "insert into property.payments (tenant_user_id, unit_id, amount_cents, payment_method, status,"
             f" billing_period) values ('ada', '{UNIT}', 5, 'ach', 'succeeded', '2033-01')")  # fmt: skip
    return url


def test_the_page_holds_what_was_applied(url: str, tmp_path: Path) -> None:
    sql(url, "update property.payments set tenant_user_id = '<script>alert(1)</script>' where tenant_user_id = 'ada'")
    page = tmp_path / "report.html"
    done = run(url, "apply", "--yes", "--html", str(page))
    text = page.read_text(encoding="utf-8")
    assert "123,501.50" in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt; / " in text
    assert "<script>" not in text
    assert f"runner rollback {done.out.rsplit('runner rollback ', 1)[1].split()[0]}" in text
    # A page that cannot be written is found before anything is done; tests/acceptance/test_output.py has the others.
    sql(url, "delete from property.charges where created_by is null")
    failed = run(url, "apply", "--yes", "--html", str(tmp_path / "none" / "report.html"), code=2)
    assert "cannot be written: No such file" in failed.err
    assert charges(url) == []


def test_who_it_was_done_for_is_kept_with_who_did_it(url: str) -> None:
    run(url, "apply", "charges", "--yes", "--actor", "[bold]maria")
    assert sql(url, "select actor from backfill.backfill_log") == [("[bold]maria (claimed) via postgres",)]
    assert "[bold]maria (claimed) via postgres" in run(url, "log").text


def test_only_the_named_backfills_are_done(url: str) -> None:
    sql(url, "delete from property.payments")
    assert "Nothing is due." in run(url, "apply", "charges", "--yes").out


@pytest.mark.parametrize("arrived", [True, False], ids=["kept", "lost"])
def test_a_commit_without_an_answer_is_not_called_lost(url: str, arrived: bool, dump: Callable[..., str]) -> None:
    """The one moment at which the runner cannot know. It says so, and running it again is safe either way."""
    with Proxy(url, cut_at=b"COMMIT", after_it_arrived=arrived) as through:
        with pytest.raises(CommitUnknownError, match="all of the transaction or nothing: `runner log`"):
            apply_.apply(Settings(conninfo=through.url, systems=SYSTEMS), apply_.Plan(), confirm=lambda report: True,
                         progress=lambda step: None)  # fmt: skip
    assert len(charges(url)) == (SAMPLE_CHARGES if arrived else 0)
    done = run(url, "apply", "--yes")
    assert ("Nothing is due." in done.out) == arrived
    assert len(charges(url)) == SAMPLE_CHARGES
