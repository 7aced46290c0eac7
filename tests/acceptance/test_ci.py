"""What build servers get: the workflows of examples/ci run as a shell would, JUnit, annotations, progress as JSON,
metrics."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import psycopg
import pytest
import yaml

from runner.terminal.ci import Case, summary, workflow_commands
from tests.place import ROOT
from tests.story import UNIT, adopt, environment, last_run, run, shell, sql

EXAMPLES = ROOT / "examples" / "ci"
LESS = [
    "create function public.less() returns trigger language plpgsql as $$begin new.amount_cents = 1; return new; end$$",
    "create trigger less before insert on property.charges for each row execute function public.less()",
]


@pytest.fixture
def url(database_url: str) -> str:
    return adopt(database_url)


def step(url: str, workflow: str, name: str, folder: Path, **more: str) -> subprocess.CompletedProcess[str]:
    """A step of a workflow, in a checkout with a runner.toml, as GitHub's shell runs it."""
    [job] = yaml.safe_load((EXAMPLES / workflow).read_text(encoding="utf-8"))["jobs"].values()
    [script] = [item["run"] for item in job["steps"] if item.get("name") == name]
    (folder / "runner.toml").write_text('systems = ["charges"]\n')
    parts = psycopg.conninfo.conninfo_to_dict(url)
    env = environment(url) | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "GITHUB_ACTIONS": "true",
        "GITHUB_STEP_SUMMARY": str(folder / "summary"), "PGHOST": str(parts["host"]), "PGPORT": str(parts["port"]),
        "PGDATABASE": str(parts["dbname"]), "PGUSER": str(parts["user"]), **more,
    }  # fmt: skip
    env.pop("RUNNER_CONFIG", None)
    return subprocess.run(
        ["bash", "-e", "-c", script], cwd=folder, env=env, capture_output=True, text=True, check=False
    )


def test_a_pull_request_is_rehearsed_and_commented(url: str, tmp_path: Path) -> None:
    done = step(url, "pull-request.yml", "rehearse", tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert sql(url, "select count(*) from backfill.backfill_log") == [(0,)]
    assert "::error" not in done.stderr
    assert "Rent charges for payments" in (tmp_path / "report.html").read_text()
    comment = (tmp_path / "comment.md").read_text()
    assert comment.startswith("### runner apply\n")
    assert "144 rows worth 123,501.50 will be written if this is applied" in comment
    suite = ElementTree.parse(tmp_path / "junit.xml").getroot()
    assert (suite.get("failures"), suite.get("name")) == ("0", "apply")
    assert {"backfill charges", "payments_without_charge"} <= {case.get("name") for case in suite}
    lines = [json.loads(line) for line in done.stderr.splitlines() if line.startswith("{")]
    [written] = [line for line in lines if line["phase"].startswith("rehearsing: backfill charges")]
    assert (written["rows"], len(written["run_id"]), written["seconds"] > 0) == (144, 36, True)
    assert all({"at", "phase", "seconds", "rows", "run_id"} == line.keys() for line in lines)


def test_a_pull_request_that_breaks_a_rule_says_which(url: str, tmp_path: Path) -> None:
    sql(url, *LESS)
    done = step(url, "pull-request.yml", "rehearse", tmp_path)
    assert done.returncode == 3
    [wrong] = [
        line for line in done.stderr.splitlines() if line.startswith("::error title=charges_that_break_the_rule::")
    ]
    assert "A charge of the last run is not the unit's rent" in wrong
    assert "%0A" in wrong
    suite = ElementTree.parse(tmp_path / "junit.xml").getroot()
    failed = {case.get("name"): case.find("failure") for case in suite if case.find("failure") is not None}
    assert "charges_that_break_the_rule" in failed
    assert "amount 0.01" in (failed["charges_that_break_the_rule"].text or "")  # type: ignore[union-attr]
    assert "✗" in (tmp_path / "comment.md").read_text()


def test_a_summary_that_cannot_be_written_loses_nothing_of_what_was_done(url: str, tmp_path: Path) -> None:
    """The apply is committed by then: its report is printed, with its exit code, and stderr says what is missing."""
    missing = str(tmp_path / "no" / "such")
    done = shell(url, "apply", "charges", "--yes", "--json", GITHUB_ACTIONS="true", GITHUB_STEP_SUMMARY=missing)
    assert done.json["verdict"] == "applied"
    assert f"the step's summary {missing} was not written" in done.err


def test_what_rejects_stopped_is_a_failed_case(url: str, tmp_path: Path) -> None:
    sql(url, f"update property.payments set billing_period = 'never' where unit_id = '{UNIT}'")
    run(url, "apply", "charges", "--yes", "--junit", str(tmp_path / "j.xml"), code=3)
    suite = ElementTree.parse(tmp_path / "j.xml").getroot()
    [case] = [case for case in suite if case.get("name") == "source rows of charges"]
    assert "cannot be taken" in str(case.find("failure").get("message"))  # type: ignore[union-attr]
    assert "never" in "".join(case.itertext())


def test_the_nightly_gates_are_dbts_alone(url: str, tmp_path: Path) -> None:
    sql(url, "select backfill.run('charges')")
    done = step(url, "nightly.yml", "gates", tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "payments_without_charge" in done.stdout
    sql(url, "delete from property.charges where tenant_user_id = 'ada'")
    again = tmp_path / "again"
    again.mkdir()
    assert step(url, "nightly.yml", "gates", again).returncode == 1


def test_nothing_of_the_data_is_a_command_to_github() -> None:
    case = Case("a,b::c\n::stop", "100% of it\r\n::error::forged", ("::set-output name=x::y",))
    [line] = workflow_commands([case])
    assert line.count("\n") == 0
    assert line.startswith("::error title=a%2Cb%3A%3Ac")
    assert "100%25 of it" in line
    text = summary("x", "<b>|", [Case("a|b", "*bold* [x](y) <script>")])
    assert "<" not in text
    assert "|b" not in text.replace("| ", "")


def test_a_reject_is_annotated_and_the_error_is_an_object_of_the_schema(url: str, tmp_path: Path) -> None:
    jsonschema: Any = pytest.importorskip("jsonschema")
    schema = json.loads((ROOT / "docs" / "report.schema.json").read_text())
    sql(url, f"""insert into property.payments
        (tenant_user_id, unit_id, amount_cents, payment_method, status, billing_period)
        values ('zoe', '{UNIT}', 77700, 'cash', 'succeeded', 'July 2019')""")  # fmt: skip
    stopped = run(url, "apply", "charges", "--yes", "--json", code=3).json
    jsonschema.Draft202012Validator(schema).validate(stopped)
    assert stopped["exit_code"] == 3
    allowed = shell(url, "apply", "charges", "--dry-run", "--allow-rejects", "1", "--junit", str(tmp_path / "j.xml"))
    assert allowed.code == 0
    cases = {case.get("name"): case for case in ElementTree.parse(tmp_path / "j.xml").getroot()}
    assert "July 2019" in "".join(cases["backfill charges"].itertext())


def test_a_scraper_reads_runs_rows_and_rejects(url: str) -> None:
    sql(url, "select backfill.run('charges')")
    sql(url, "select * from backfill.reverse_run('" + last_run(url) + "')")
    found = {
        (metric, labels.get("mode", ""), labels.get("status", "")): number
        for metric, labels, number in sql(url, "select metric, labels, value from backfill.metrics")
    }
    assert found["backfill_runs_total", "apply", "reversed"] == 1
    assert found["backfill_runs_total", "reversal", "succeeded"] == 1
    assert found["backfill_rows_total", "apply", ""] == Decimal(144)
    assert found["backfill_running", "", ""] == 0
    assert found["backfill_chain_links", "", ""] >= 2
    assert found["backfill_last_completed_timestamp_seconds", "apply", ""] > 1_700_000_000
    assert found["backfill_last_duration_seconds", "apply", ""] > 0


def test_a_format_of_the_log_that_is_none_is_refused(url: str) -> None:
    assert "--log-format xml: text or json" in run(url, "apply", "--dry-run", "--log-format", "xml", code=2).err
