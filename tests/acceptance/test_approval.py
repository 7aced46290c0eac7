"""Four eyes at the terminal: a plan is rehearsed, approved by another login, and only then applied; and so its undo."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from runner.embedded import Server
from tests.acceptance.test_taken import CHARGED
from tests.story import SAMPLE_CHARGES, adopt, last_run, run, sql

OURS = "select count(*) from property.charges where created_by is null"


@pytest.fixture
def maker(database_url: str) -> str:
    """The samples of charges, which need an approval from 1,000.00 on."""
    adopt(database_url)
    sql(database_url, "insert into backfill.policy (backfill, gross_from) values ('charges', 100000)")
    return database_url


@pytest.fixture
def anne(maker: str) -> Iterator[str]:
    """A login that may approve, and nothing else."""
    name = f"anne_{uuid4().hex[:8]}"
    sql(maker, f"create role {name} login in role backfill_approver")
    yield make_conninfo(maker, user=name)
    sql(maker, f"drop role {name}")


def plan_of(url: str, folder: Path) -> tuple[str, str]:
    """The file of a rehearsal, and its signature."""
    file = folder / "plan.json"
    shown = run(url, "apply", "charges", "--dry-run", "--save-plan", str(file))
    assert "needs 1 approval by other logins, has 0" in shown.out
    return str(file), json.loads(file.read_text())["plan"]["signature"]


def test_what_is_not_approved_is_not_asked_about_and_not_written(maker: str, tmp_path: Path) -> None:
    file, signature = plan_of(maker, tmp_path)
    page = tmp_path / "page.html"
    for command in (["apply", "charges", "--yes", "--html", str(page)], ["apply", "--plan", file, "--yes"]):
        refused = run(maker, *command, code=3).out
        assert "Not applied: it is not approved. Nothing was changed." in refused
        assert f"runner approve {signature}" in refused
    assert "not approved" in page.read_text()
    assert sql(maker, OURS) == [(0,)]


def test_another_login_approves_the_plan_and_then_it_is_applied_once(maker: str, anne: str, tmp_path: Path) -> None:
    file, signature = plan_of(maker, tmp_path)
    assert "permission denied" in run(anne, "apply", "charges", "--yes", code=1).err
    said = run(anne, "approve", file, "--remark", "seen with Finance", "--yes").out
    assert "144 rows, 123,501.50" in said
    assert "for one run by another login" in said
    done = run(maker, "apply", "--plan", file, "--yes", "--json").json
    [backfill] = done["attempt"]["backfills"]
    assert backfill["approvals"]["given"] == 1
    assert backfill["approvals"]["words"][0]["remark"] == "seen with Finance"
    assert sql(maker, OURS) == [(SAMPLE_CHARGES,)]
    assert "seen with Finance" in run(maker, "log", last_run(maker)).out
    # Its undo is another change: the rehearsal shows its signature.
    run_id = last_run(maker)
    shown = run(maker, "rollback", run_id, "--dry-run", "--json").json
    undo = shown["approvals"]["signature"]
    assert (undo != signature, shown["approvals"]["given"]) == (True, 0)
    assert "Not undone: it is not approved. Nothing was changed." in run(maker, "rollback", run_id, "--yes", code=3).out
    assert sql(maker, OURS) == [(SAMPLE_CHARGES,)]
    run(anne, "approve", undo, "--remark", "wrong year", "--yes")
    run(maker, "rollback", run_id, "--yes")
    assert sql(maker, OURS) == [(0,)]
    # Used is used.
    run(maker, "apply", "charges", "--yes", code=3)


def test_a_refusal_is_told_and_the_plan_stays_valid(maker: str, anne: str, tmp_path: Path) -> None:
    file, _ = plan_of(maker, tmp_path)
    run(anne, "approve", file, "--remark", "2019 is closed", "--refuse", "--yes")
    assert "2019 is closed" in run(maker, "apply", "--plan", file, "--yes", code=3).out
    run(anne, "approve", file, "--remark", "no, it is not", "--yes")
    run(maker, "apply", "--plan", file, "--yes")
    assert sql(maker, OURS) == [(SAMPLE_CHARGES,)]


def test_what_cannot_be_approved_is_refused(maker: str, anne: str, tmp_path: Path) -> None:
    file, signature = plan_of(maker, tmp_path)
    assert "a decision needs a remark" in run(anne, "approve", file, "--yes", code=2).err
    assert "cannot be read" in run(anne, "approve", str(tmp_path / "none"), "--remark", "x", "--yes", code=2).err
    assert "Nobody was asked" in run(anne, "approve", file, "--remark", "x", code=2).text
    assert sql(maker, "select count(*) from backfill.approval") == [(0,)]
    edited = Path(file).read_text().replace('"due_rows": 144', '"due_rows": 14')
    Path(file).write_text(edited)
    assert "was changed since it was made" in run(anne, "approve", file, "--remark", "x", "--yes", code=4).err
    run(maker, "approve", signature, "--remark", "mine", "--yes")
    assert "has 0" in run(maker, "apply", "charges", "--yes", code=3).out  # not by the one that writes


def test_a_plan_of_nothing_and_one_of_another_database_are_never_approved(
    maker: str, anne: str, empty_database_url: str, tmp_path: Path
) -> None:
    file, _ = plan_of(maker, tmp_path)
    elsewhere = run(empty_database_url, "approve", file, "--remark", "x", "--yes", code=4)
    assert "the plan is for another database" in elsewhere.err
    empty = tmp_path / "empty.json"
    config = tmp_path / "runner.toml"
    config.write_text("systems = []\n")
    run(empty_database_url, "apply", "--dry-run", "--save-plan", str(empty), "--config", str(config))
    assert "a plan of nothing" in run(anne, "approve", str(empty), "--remark", "x", "--yes", code=4).err


def test_rows_are_left_to_others_only_where_the_policy_allows_it(maker: str, anne: str, tmp_path: Path) -> None:
    refused = run(maker, "apply", "charges", "--yes", "--accept-taken", code=2)
    assert "backfill.policy does not let charges leave rows to others" in refused.err
    assert sql(maker, OURS) == [(0,)]
    sql(maker, "update backfill.policy set taken_may_pass = true")
    file, signature = plan_of(maker, tmp_path)
    run(anne, "approve", file, "--remark", "seen", "--yes")
    sql(maker, CHARGED)
    assert "went: property.charges ada" in run(maker, "apply", "--plan", file, "--yes", code=4).out
    done = run(maker, "apply", "--plan", file, "--yes", "--accept-taken")
    assert "left to others, who wrote them since the rehearsal: 2 rows" in done.out
    run_id = last_run(maker)
    assert sql(maker, "select signature, run_id::text from backfill.approval_use") == [(signature, run_id)]
    assert "has 1" in run(maker, "log", run_id).out
    [(left,)] = sql(maker, "select detail -> 'left_to_others' from backfill.chain where detail ? 'left_to_others'")
    assert [row["business_key"].split(" / ")[0] for row in left] == ["ada", "ada"]
    assert sql(maker, "select * from backfill.verify_chain()") == []
    assert sql(maker, "select count(*) from property.charges where description = 'Rent for 2023-01'") == [(5,)]


def test_more_than_what_others_wrote_is_not_left_out(maker: str, anne: str, tmp_path: Path) -> None:
    sql(maker, "update backfill.policy set taken_may_pass = true")
    file, _ = plan_of(maker, tmp_path)
    run(anne, "approve", file, "--remark", "seen", "--yes")
    sql(maker, CHARGED, "update property.units set rent_amount_cents = rent_amount_cents + 1")
    run(maker, "apply", "--plan", file, "--yes", "--accept-taken", code=4)
    assert sql(maker, "select count(*) from backfill.approval_use") == [(0,)]
    # Nor does anybody claim it who has the hashes: what he leaves out is not in its table.
    rows = "(select jsonb_agg(r) from backfill.signed_rows(run_id) as r where business_key ~ '^chiara')"
    with psycopg.connect(maker) as conn:
        said = conn.execute(f"select backfill.leave_to_others(run_id, {rows}) from backfill.run('charges')".encode())
        assert said.fetchone() == (None,)
        conn.rollback()


def test_a_row_is_not_left_out_under_the_key_of_another(maker: str, anne: str, tmp_path: Path) -> None:
    """The hash of the row that is to be left out, claimed for a row that is in the table: the key is signed, too."""
    sql(maker, "update backfill.policy set taken_may_pass = true")
    file, _ = plan_of(maker, tmp_path)
    run(anne, "approve", file, "--remark", "seen", "--yes")
    rows = json.loads(Path(file).read_text())["plan"]["backfills"][0]["rows"]
    wanted = next(row for row in rows if row["key"].startswith("bruno") and row["key"].endswith("2023-02"))
    sql(
        maker,
        "update property.payments set status = 'failed' where tenant_user_id = 'bruno' and billing_period = '2023-02'",
    )
    [(there,)] = sql(
        maker, "select concat_ws(' / ', tenant_user_id, unit_id, billing_period) from property.charges limit 1"
    )
    for key, words in ((there, "needs an approval"), (wanted["key"], "needs an approval")):
        claim = json.dumps([{"table_name": wanted["table"], "business_key": key, "sha256": wanted["sha256"]}])
        with psycopg.connect(maker) as conn:
            said = conn.execute("select backfill.leave_to_others(run_id, %s) from backfill.run('charges')", [claim])
            assert said.fetchone() == (None,)
            with pytest.raises(psycopg.Error, match=words):
                conn.commit()
    assert sql(maker, OURS) == [(0,)]


def test_from_psql_the_rollback_passes_and_the_commit_is_refused(maker: str, server: Server) -> None:
    def psql(*statements: str) -> subprocess.CompletedProcess[str]:
        words = [str(server.programs / "psql"), "--quiet", "--set=ON_ERROR_STOP=1", f"--dbname={maker}"]
        words += [f"--command={one}" for one in statements]
        return subprocess.run(words, capture_output=True, text=True, check=False)

    write = [
        "begin",
        "select metrics #>> '{approvals,signature}' from backfill.run('charges')",
        "set constraints all immediate",
    ]
    rehearsed = psql(*write, "rollback")
    assert (rehearsed.returncode, rehearsed.stderr) == (0, "")
    refused = psql(*write, "commit")
    assert refused.returncode != 0
    assert "needs an approval by other logins, and has none: nothing was committed" in refused.stderr
    [signature] = re.findall("[0-9a-f]{64}", rehearsed.stdout)
    assert f"backfill.approve('{signature}', 'why')" in refused.stderr
    assert sql(maker, OURS) == [(0,)]
