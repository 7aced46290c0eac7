"""`runner status`, `runner log` and `runner doctor`: they look, and change nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from tests.story import SAMPLE_CHARGES, SAMPLE_TOTAL, UNIT, adopt, config, last_run, run, sql


@pytest.fixture
def url(database_url: str) -> str:
    return adopt(database_url)


def test_status_before_and_after_the_first_apply(empty_database_url: str, dump: Callable[..., str]) -> None:
    url = adopt(empty_database_url)
    before = dump(url, "--inserts")
    first = run(url, "status", "--json").json
    assert sorted(first) == [
        "database", "due", "edited", "fits", "pending", "runs", "schema_version", "server", "sources", "systems",
        "unselected",
    ]  # fmt: skip
    assert first["pending"][0] == "engine/0001_backfill_schema"
    assert (first["due"], first["runs"], first["edited"]) == ([], [], [])
    assert "Next: runner apply --dry-run" in run(url, "status").out
    assert dump(url, "--inserts") == before
    run(url, "apply", "--yes")
    later = run(url, "status", "--json").json
    [due] = [due for due in later["due"] if due["backfill"] == "charges"]
    assert (later["pending"], due["due_rows"], due["due_money"], due["rejects"]) == ([], 0, {}, 0)
    assert later["runs"][0]["run_id"] == last_run(url)
    text = run(url, "status").out
    assert "No migration is pending." in text
    assert f"{SAMPLE_CHARGES}  {SAMPLE_TOTAL}" in text
    assert "Next:" not in text


def test_status_counts_what_is_due_with_money_and_rejects(url: str) -> None:
    sql(url, "insert into property.payments (tenant_user_id, unit_id, amount_cents, payment_method, status,"
             f" billing_period) values ('x', '{UNIT}', 1, 'ach', 'pending', 'never')")  # fmt: skip
    assert f"charges {SAMPLE_CHARGES} {SAMPLE_TOTAL} 1 " in run(url, "status").text


def test_the_log_lists_runs_and_shows_one_with_its_rows(url: str) -> None:
    assert "No run yet." in run(url, "log").out
    run(url, "apply", "--yes")
    run_id = last_run(url)
    run(url, "rollback", run_id, "--yes")
    [undo, first] = run(url, "log", "--json").json["runs"]
    assert (undo["mode"], undo["reverses"]) == ("reversal", run_id)
    assert (first["status"], first["reversed_by"]) == ("reversed", undo["run_id"])
    assert len(run(url, "log", "--limit", "1", "--json").json["runs"]) == 1
    text = run(url, "log", run_id[:8].upper()).out
    assert f"undone by run {undo['run_id']}" in text
    assert f"ada / {UNIT} / 2023-01" in text
    assert f"… {SAMPLE_CHARGES - 20} more rows: --all shows every one" in text
    every = run(url, "log", run_id, "--all", "--json").json
    assert len(every["changes"]) == SAMPLE_CHARGES
    assert {change["operation"] for change in every["changes"]} == {"INSERT"}
    assert run(url, "log", run_id, "--all").out.count("\ninsert  ") >= SAMPLE_CHARGES - 1
    assert run(url, "log", undo["run_id"]).out.count("  delete  ") == 20


def test_a_correction_by_hand_is_in_the_log_as_it_was_named(url: str) -> None:
    title = "hotfix: [red]ada[/] moved [/]"
    sql(
        url,
        f"begin; select backfill.begin_run('{title}', p_subject => '{{\"tenant\": \"ada\"}}');"
        " update property.charges set amount_cents = 9 where type = 'late_fee';"
        " select backfill.finish_run(); commit",
    )
    assert title in run(url, "log").text
    text = run(url, "log", last_run(url)).text
    assert title in text
    assert "subject: {'tenant': 'ada'}" in text
    assert "15.00 → 0.09" in text


def findings(url: str, *options: str, code: int = 0) -> dict[str, tuple[str, str]]:
    found = run(url, "doctor", "--json", *options, code=code).json["findings"]
    return {item["subject"]: (item["state"], item["message"]) for item in found}


def test_doctor_before_the_first_apply(empty_database_url: str, dump: Callable[..., str]) -> None:
    before = dump(empty_database_url)
    found = findings(empty_database_url)
    assert {state for state, _ in found.values()} == {"ok"}
    assert found["rights"][1] == "may create the schemas of the first apply"
    assert found["migrations"][1].endswith(" pending")
    assert dump(empty_database_url) == before


def test_doctor_each_line_is_ok_or_what_to_do(url: str) -> None:
    subjects = [
        "pooler", "server", "primary", "encoding", "engine", "systems", "tracked", "owners", "seals", "rights",
        "roles", "row security", "lock", "lock budget", "migrations", "time zone", "replication", "dbt",
    ]  # fmt: skip
    found = findings(url)
    assert list(found) == subjects
    assert all(message for _, message in found.values())
    # Under another name with each worker of the tests.
    database = psycopg.conninfo.conninfo_to_dict(url)["dbname"]
    sql(url, f"alter database {database} set timezone = '<-03>3'")
    try:
        assert findings(url)["time zone"][0] == "warn"
    finally:
        sql(url, f"alter database {database} reset timezone")


def test_doctor_names_missing_roles_and_files(url: str, tmp_path: Path) -> None:
    options = config(tmp_path, migrations="none", dbt_project="none")
    found = findings(url, *options, code=1)
    assert found["migrations"][0] == found["dbt"][0] == "fail"
    assert "set migrations in runner.toml" in found["migrations"][1]
