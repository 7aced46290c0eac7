"""Words for stories about gates: judge an open transaction, and ask dbt itself about committed data."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from runner import gates
from runner.gates import Gate, GateResult
from tests.engine.words import Connection
from tests.place import ROOT


def judge(conn: Connection, compiled: gates.Gates, sample: int = 20) -> dict[str, GateResult]:
    """The gates of charges on the open transaction, by name."""
    return {result.name: result for result in gates.run(conn, compiled, ["charges"], sample)}


def gate(sql: str, **config: Any) -> Gate:
    """A gate of charges with this SQL and dbt's config."""
    return Gate(name="a_gate", sql=sql, severity="error", backfills=("charges",), **config)


def run_one(conn: Connection, sql: str, sample: int = 20) -> GateResult:
    """How a gate with this SQL ends."""
    (result,) = gates.run(conn, (gate(sql),), ["charges"], sample)
    return result


def dbt(verb: str, project: Path, scratch: Path, conn: Connection, *options: str) -> subprocess.CompletedProcess[str]:
    """dbt itself on committed data, as a person calls it: in `scratch`, with the example's profile beside them."""
    if not (scratch / "profiles.yml").exists():
        shutil.copy(ROOT / "profiles.yml.example", scratch / "profiles.yml")
    info = conn.info
    environment = {name: value for name, value in os.environ.items() if not name.startswith("DBT_")} | {
        "PGHOST": info.host, "PGPORT": str(info.port), "PGUSER": info.user, "PGDATABASE": info.dbname
    }  # fmt: skip
    command = [sys.executable, "-c", "from dbt.cli.main import cli; cli()", "--no-use-colors", verb]
    command += ["--project-dir", str(project), *options]
    return subprocess.run(command, cwd=scratch, env=environment, capture_output=True, text=True, check=False)


def dbt_verdicts(
    verb: str, project: Path, scratch: Path, conn: Connection, *options: str
) -> dict[str, tuple[str, int]]:
    """Status and failures of each test by dbt itself, on committed data."""
    target = str(scratch / "target")
    done = dbt(verb, project, scratch, conn, "--target-path", target, "--log-path", target, *options)
    results = scratch / "target" / "run_results.json"
    assert results.is_file(), done.stdout + done.stderr
    rows = json.loads(results.read_text())["results"]
    results.unlink()  # the next call must not be answered with these
    assert {row["status"] for row in rows} <= {"success", "pass", "warn", "fail"}, done.stdout
    return {row["unique_id"].split(".")[2]: (row["status"], row["failures"] or 0) for row in rows}
