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
from runner.settings import ROOT
from tests.integration.engine import Connection


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


def dbt_verdicts(verb: str, project: Path, scratch: Path, conn: Connection) -> dict[str, tuple[str, int]]:
    """Status and failures of each test by dbt itself, on committed data, with the example's profile."""
    shutil.copy(ROOT / "profiles.yml.example", scratch / "profiles.yml")
    info = conn.info
    environment = os.environ | {
        "PGHOST": info.host, "PGPORT": str(info.port), "PGUSER": info.user, "PGDATABASE": info.dbname
    }  # fmt: skip
    target = scratch / "target"
    command = [sys.executable, "-c", "from dbt.cli.main import cli; cli()", "--quiet", verb]
    command += ["--project-dir", str(project), "--profiles-dir", str(scratch), "--profile", "backfill"]
    command += ["--target-path", str(target), "--log-path", str(target), "--no-send-anonymous-usage-stats"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (target / "run_results.json").is_file(), done.stdout + done.stderr
    results = json.loads((target / "run_results.json").read_text())["results"]
    assert {row["status"] for row in results} <= {"success", "pass", "warn", "fail"}, done.stdout
    return {row["unique_id"].split(".")[2]: (row["status"], row["failures"] or 0) for row in results}
