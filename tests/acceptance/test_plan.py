"""What somebody signed is what is done, or nothing: a saved plan, and a signature on the command line."""

from __future__ import annotations

import json
import re
import shlex
import stat
from pathlib import Path
from typing import Any

import pytest

from runner.plan_file import _sha256
from tests.story import SAMPLE_CHARGES, adopt, run, sql

OURS = "select count(*) from property.charges where created_by is null"


@pytest.fixture
def url(database_url: str) -> str:
    return adopt(database_url)


def saved(url: str, folder: Path, *more: str) -> tuple[Path, dict[str, Any]]:
    """The file of a dry run, and its report."""
    file = folder / "plan.json"
    return file, run(url, "apply", "charges", "--dry-run", "--save-plan", str(file), "--json", *more).json


def refused(url: str, file: Path, words: str, *more: str) -> str:
    """Nothing is done, and it says why; the plan is still there."""
    before, content = sql(url, OURS), file.read_bytes()
    done = run(url, "apply", "--plan", str(file), "--yes", *more, code=4)
    assert words in " ".join(done.text.split()), done.text
    assert sql(url, OURS) == before
    assert file.read_bytes() == content
    return done.text


def test_a_plan_is_done_as_it_was_signed(url: str, tmp_path: Path) -> None:
    file, report = saved(url, tmp_path)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    plan = json.loads(file.read_text())["plan"]
    [planned] = plan["backfills"]
    [backfill] = report["attempt"]["backfills"]
    assert (planned["due_rows"], planned["due_money"]) == (backfill["due_rows"], backfill["due_money"])
    assert len(planned["rows"]) == SAMPLE_CHARGES
    assert plan["signature"] == planned["signature"] == backfill["signature"] == report["attempt"]["signature"]
    assert sql(url, OURS) == [(0,)]
    done = run(url, "apply", "--plan", str(file), "--yes", "--json").json
    assert (done["verdict"], done["attempt"]["signature"]) == ("applied", plan["signature"])
    [run_id] = [item["run_id"] for item in done["attempt"]["backfills"]]
    assert sql(url, f"select backfill.signature('{run_id}')") == [(plan["signature"],)]
    refused(url, file, "charges: nothing is due any more")


def test_the_command_of_a_dry_run_does_that_or_nothing(url: str) -> None:
    sql(url, "update property.payments set created_at = created_at - interval '9 days'")
    shown = run(url, "apply", "charges", "--dry-run", "--as-of", "1 day ago").out
    command = re.search(r"^ +(runner apply charges --expect .*)$", shown, re.MULTILINE)
    assert command is not None, shown
    words = shlex.split(command[1])[1:]
    assert words[4] == "--as-of"
    wrong = [*words[:3], "0" * 64, *words[4:]]
    assert "expected was signature 000" in " ".join(run(url, *wrong, "--yes", code=4).text.split())
    assert sql(url, OURS) == [(0,)]
    run(url, *words, "--yes")
    assert sql(url, OURS) == [(SAMPLE_CHARGES,)]


CHANGES = {
    "came": (
        """insert into property.payments (tenant_user_id, unit_id, billing_period, amount_cents, payment_method, status)
            select 'zoe', id, '2019-07', 77700, 'cash', 'succeeded' from property.units
            where rent_amount_cents > 0 order by id limit 1""",
        r"charges: 1 row came .*, 0 went .*, 0 changed",
        r"came: property.charges zoe / .* / 2019-07",
    ),
    "went": (
        """insert into property.charges
            (tenant_user_id, unit_id, billing_period, type, description, amount_cents, created_by)
            select tenant_user_id, unit_id, billing_period, 'rent', 'by hand', 1, 'ann' from property.payments
            where tenant_user_id = 'ada' and billing_period = '2023-01' and status = 'succeeded' limit 1""",
        r"charges: 0 rows came .*, 1 went",
        r"went: property.charges ",
    ),
    "changed": (
        """update property.units set rent_amount_cents = rent_amount_cents + 100
            where id = (select unit_id from property.payments where tenant_user_id = 'ada' limit 1)""",
        r"charges: 0 rows came .*, 0 went .*, \d+ changed",
        r"changed: property.charges .*, [\d.,]+ → [\d.,]+",
    ),
}


@pytest.mark.parametrize("case", CHANGES)
def test_after_a_change_of_the_data_nothing_is_done_and_the_rows_are_named(url: str, tmp_path: Path, case: str) -> None:
    change, total, row = CHANGES[case]
    file, _ = saved(url, tmp_path)
    sql(url, change)
    text = " ".join(refused(url, file, "Not what was signed: nothing was changed.").split())
    assert re.search(total, text), text
    assert re.search(row, text), text


def write(file: Path, content: dict[str, Any]) -> None:
    """As whoever edits a plan would who knows how it is made."""
    content.pop("sha256", None)
    file.write_text(json.dumps({**content, "sha256": _sha256(content)}))


def test_a_plan_that_lacks_something_is_refused(url: str, tmp_path: Path) -> None:
    file, _ = saved(url, tmp_path)
    content = json.loads(file.read_text())
    for path in (["plan", "gates"], ["plan", "backfills", 0, "signature"], ["plan", "backfills", 0, "rows", 0, "key"]):
        edited = json.loads(json.dumps(content))
        place = edited
        for step in path[:-1]:
            place = place[step]
        del place[path[-1]]
        write(file, edited)
        refused(url, file, "is no plan: it lacks what one has")


def test_rejects_are_of_the_plan(url: str, tmp_path: Path) -> None:
    file, _ = saved(url, tmp_path, "--allow-rejects", "5")
    sql(
        url,
        """insert into property.payments
            (tenant_user_id, unit_id, billing_period, amount_cents, payment_method, status)
            select 'zoe', id, 'Jan 2024', 77700, 'cash', 'succeeded' from property.units order by id limit 1""",
    )
    refused(url, file, "charges: 1 reject, 0 in the plan")


def test_another_database_is_refused(url: str, tmp_path: Path) -> None:
    file, _ = saved(url, tmp_path)
    content = json.loads(file.read_text())
    content["plan"]["database"]["system_identifier"] = "1"
    file.write_text(json.dumps(content))
    refused(url, file, "was changed since it was made")
    write(file, content)
    refused(url, file, "the plan is for another database: system_identifier 1")


def test_a_plan_that_is_over_is_refused(url: str, tmp_path: Path) -> None:
    file, _ = saved(url, tmp_path, "--valid-for", "0")
    refused(url, file, "the plan held until")


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"format": 7, "plan": {}, "sha256": ""}', '{"format": 1'])
def test_what_is_no_plan_is_refused(url: str, tmp_path: Path, content: str) -> None:
    file = tmp_path / "plan.json"
    file.write_text(content)
    refused(url, file, "plan")


def test_what_does_not_go_together_is_refused(url: str, tmp_path: Path) -> None:
    file, _ = saved(url, tmp_path)
    for words in (
        ["--save-plan", str(tmp_path / "x")], ["--plan", str(file), "--as-of", "1 day ago"],
        ["charges", "--plan", str(file)], ["--expect", "abc"], ["--plan", str(tmp_path / "none.json")],
        ["--dry-run", "--save-plan", str(tmp_path / "x"), "--valid-for", "soon"],
    ):  # fmt: skip
        run(url, "apply", *words, "--yes", code=2)
    assert not (tmp_path / "x").exists()
    assert sql(url, OURS) == [(0,)]


def test_where_nothing_is_due_there_is_no_plan(url: str, tmp_path: Path) -> None:
    run(url, "apply", "charges", "--yes")
    file, report = saved(url, tmp_path)
    assert report["verdict"] == "nothing due"
    assert not file.exists()
