"""Compiling gates: offline, once for each content, judged by every config as dbt judges it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from runner import gates
from runner.settings import ROOT, Settings
from tests.integration.engine import Connection
from tests.integration.gating import dbt_verdicts, judge

PROJECT = """\
name: tiny
version: "1.0"
profile: backfill
"""
CONFIGURED = {
    # Each selects three failing rows: 10, 20 and 30.
    "plain": "",
    "a_warning": "severity='warn'",
    "tolerant": "error_if='> 3'",
    "silent": "warn_if='> 3', error_if='> 5'",
    "strict_sum": "fail_calc='sum(cents)', error_if='> 59'",
    "limited": "limit=2, error_if='> 2'",
    "warning_only_above": "severity='warn', warn_if='> 3'",
}


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """A dbt project of the test's own, with an empty cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    project = tmp_path / "tiny"
    (project / "tests").mkdir(parents=True)
    (project / "dbt_project.yml").write_text(PROJECT)
    write_test(project, "plain", "")
    return Settings(dbt_project=project)


def write_test(
    project: Path, name: str, config: str, sql: str = "select * from (values (10), (20), (30)) as t (cents)"
) -> None:
    header = "{{ config(" + ", ".join(filter(None, ["tags='charges'", config])) + ") }}"
    (project / "tests" / f"{name}.sql").write_text(f"{header}\n{sql} -- the end")


def kept(tmp_path: Path) -> list[Path]:
    return [*(tmp_path / "cache" / "backfill-runner" / "gates").iterdir()]


def test_every_test_config_is_judged_as_dbt_judges_it(conn: Connection, tiny: Settings, tmp_path: Path) -> None:
    for name, config in CONFIGURED.items():
        write_test(tiny.dbt_project, name, config)
    inside = judge(conn, gates.compile(tiny))
    assert {name: (result.status, result.failures) for name, result in inside.items()} == {
        "plain": ("fail", 3),
        "a_warning": ("warn", 3),
        "tolerant": ("warn", 3),
        "silent": ("pass", 0),
        "strict_sum": ("fail", 60),
        "limited": ("warn", 2),
        "warning_only_above": ("pass", 0),
    }
    assert dbt_verdicts("test", tiny.dbt_project, tmp_path, conn) == {
        name: (result.status, result.failures) for name, result in inside.items()
    }


def test_an_unchanged_project_is_compiled_once_and_needs_no_dbt(
    tiny: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DBT_TARGET_PATH", "/nonexistent")  # the caller's own settings of dbt change nothing
    monkeypatch.setenv("DBT_WARN_ERROR", "not a boolean")
    first = gates.compile(tiny)
    # Without an interpreter no other process can be started: these gates come from the cache or not at all.
    program = (
        "import sys; from pathlib import Path; from runner import gates; from runner.settings import Settings\n"
        "sys.executable = ''\n"
        f"print(len(gates.compile(Settings(dbt_project=Path({str(tiny.dbt_project)!r})))), 'dbt' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(len(first)), "False"]
    (cached,) = kept(tmp_path)
    assert cached.parent.stat().st_mode & 0o077 == 0


def test_a_changed_project_or_a_broken_cache_is_compiled_again(tiny: Settings, tmp_path: Path) -> None:
    gates.compile(tiny)
    write_test(tiny.dbt_project, "plain", "severity='warn'")
    assert [gate.severity for gate in gates.compile(tiny)] == ["warn"]
    for file in kept(tmp_path):
        file.write_text('[{"name": "half')
    assert [gate.severity for gate in gates.compile(tiny)] == ["warn"]


def test_two_runners_may_compile_at_once(tiny: Settings, tmp_path: Path) -> None:
    program = (
        "from pathlib import Path; from runner import gates; from runner.settings import Settings\n"
        f"print(gates.compile(Settings(dbt_project=Path({str(tiny.dbt_project)!r}))))"
    )
    command = [sys.executable, "-c", program]
    runners = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    first, second = (runner.communicate(timeout=120)[0] for runner in runners)
    assert first == second == f"{gates.compile(tiny)}\n"
    assert [file.suffix for file in kept(tmp_path)] == [".json"]


def test_a_cache_that_cannot_be_written_costs_only_time(tiny: Settings, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where the directory should be")
    assert [gate.name for gate in gates.compile(tiny)] == ["plain"]


def test_a_project_that_does_not_compile_says_where(tiny: Settings) -> None:
    write_test(tiny.dbt_project, "broken", "", "select * from {{ ref('nowhere') }}")
    with pytest.raises(gates.GateCompileError, match=r"(?s)cannot be compiled: .*broken.*nowhere"):
        gates.compile(tiny)
    with pytest.raises(gates.GateCompileError, match=r"holds no dbt_project\.yml"):
        gates.compile(Settings(dbt_project=tiny.dbt_project / "tests"))
