"""Compiling gates: offline, once for each content, judged by every config as dbt judges it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from runner import cache, gates
from runner.errors import GateCompileError
from runner.settings import Settings
from tests.engine.gating import dbt_verdicts, judge
from tests.engine.words import Connection
from tests.place import ROOT

PROJECT = """\
name: tiny
profile: backfill
"""  # the profile only for dbt itself
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


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """A project as small as it may be: one line, and one gate in the folder of its backfill."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    write(tmp_path / "own", "dbt_project.yml", "name: mine")
    write(tmp_path / "own", "tests/limits/limits_above_ten.sql", "select 11 as cents")
    return Settings(dbt_project=tmp_path / "own")


def write(project: Path, name: str, text: str) -> None:
    (project / name).parent.mkdir(parents=True, exist_ok=True)
    (project / name).write_text(text)


def names(settings: Settings) -> set[str]:
    return {gate.name for gate in gates.compile(settings)}


def of(*systems: str) -> set[str]:
    """The bundled gates of these systems, by their files."""
    return {file.stem for name in systems for file in (ROOT / "dbt_project" / "tests" / name).glob("*/*.sql")}


def write_test(
    project: Path | None, name: str, config: str, sql: str = "select * from (values (10), (20), (30)) as t (cents)"
) -> None:
    assert project is not None
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
    assert tiny.dbt_project is not None
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


def test_gates_that_somebody_else_left_in_the_cache_are_not_run(tiny: Settings, tmp_path: Path) -> None:
    first = gates.compile(tiny)
    (file,) = kept(tmp_path)
    file.write_text(file.read_text().replace("select", "select 1) as t; commit; select"))
    file.chmod(0o666)
    assert gates.compile(tiny) == first
    assert file.stat().st_mode & 0o077 == 0


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
    with pytest.raises(GateCompileError, match=r"(?s)tiny cannot be compiled: .*broken.*nowhere"):
        gates.compile(tiny)


@pytest.mark.parametrize("systems", [("charges",), ("invoices", "reconciliation")], ids=" ".join)
def test_the_gates_are_those_of_the_selected_systems(
    systems: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert names(Settings(systems=systems)) == of(*systems) != set()


def test_without_a_system_and_an_own_project_there_is_no_gate_and_no_dbt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(sys, "executable", "/nonexistent")
    assert gates.compile(Settings()) == ()
    assert [*tmp_path.iterdir()] == []


def test_an_own_gate_stands_beside_those_of_the_systems(own: Settings) -> None:
    assert own.dbt_project is not None
    write(own.dbt_project, "models/limits.sql", "{{ config(materialized='table') }} select 11 as cents")
    write(
        own.dbt_project,
        "tests/limits/limits_of_no_run.sql",
        "select * from {{ ref('limits') }} where not exists (select from {{ ref('stg_backfill__runs') }})",
    )
    write(
        own.dbt_project,
        "tests/limits/limits_on_nothing.sql",
        "{{ reconciliation.reconciled_on_nothing(reconciliation.rows_inserted('limits', 'app.limits'),"
        " {'app.limits': ref('limits')}) }}",
    )
    write(own.dbt_project, "tests/checks/tagged.sql", "{{ config(tags=['limits', 'others']) }} select 1 where false")
    compiled = {gate.name: gate for gate in gates.compile(own)}
    assert {name: gate.backfills for name, gate in compiled.items()} == {
        "limits_above_ten": ("limits",), "limits_of_no_run": ("limits",), "limits_on_nothing": ("limits",),
        "tagged": ("limits", "others"),
    }  # fmt: skip
    # One SELECT without any object of dbt's, in whatever database and schema it runs.
    assert '"backfill"."backfill_log"' in compiled["limits_of_no_run"].sql
    assert "offline" not in compiled["limits_of_no_run"].sql
    assert "reconciliation" not in compiled["limits_of_no_run"].sql
    assert names(Settings(systems=("charges",), dbt_project=own.dbt_project)) == of("charges") | set(compiled)


def test_an_own_project_uses_its_packages_and_a_change_of_them_is_seen(own: Settings, tmp_path: Path) -> None:
    assert own.dbt_project is not None
    write(own.dbt_project, "packages.yml", "packages: [{local: ../words}]")
    write(own.dbt_project, "tests/limits/limits_above_ten.sql", "select {{ words.most() }} as cents")
    with pytest.raises(GateCompileError, match=r"packages that are not installed: dbt deps --project-dir .*own"):
        gates.compile(own)
    write(tmp_path / "words", "dbt_project.yml", "name: words")
    write(tmp_path / "words", "macros/most.sql", "{% macro most() %}11{% endmacro %}")
    (own.dbt_project / "dbt_packages").mkdir()
    (own.dbt_project / "dbt_packages" / "words").symlink_to(tmp_path / "words")  # as dbt deps does with a local one
    assert [gate.sql for gate in gates.compile(own)] == ["select 11 as cents"]
    write(tmp_path / "words", "macros/most.sql", "{% macro most() %}12{% endmacro %}")
    assert [gate.sql for gate in gates.compile(own)] == ["select 12 as cents"]


@pytest.mark.parametrize(
    ("file", "text", "words"),
    [
        ("models/rent_periods.sql", "select 1 as x", r"(?s)identical.*charges/rent_periods.*mine\.rent_periods"),
        ("tests/limits/payments_without_charge.sql", "select 1 as x", r"two gates are named payments_without_charge"),
        ("dbt_project.yml", "name: reconciliation", r"name: reconciliation is the name of the runner's own"),
        ("dbt_project.yml", "profile: mine", r"has no name"),
        ("dbt_project.yml", "name: [", r"not valid YAML"),
        ("dbt_project.yml", "", r"is empty"),
    ],
)
def test_a_name_of_ours_or_none_is_refused(own: Settings, file: str, text: str, words: str) -> None:
    assert own.dbt_project is not None
    write(own.dbt_project, file, text)
    with pytest.raises(GateCompileError, match=words):
        gates.compile(Settings(systems=("charges",), dbt_project=own.dbt_project))


def test_a_folder_that_is_no_dbt_project_is_refused(own: Settings) -> None:
    assert own.dbt_project is not None
    with pytest.raises(GateCompileError, match=r"tests holds no dbt_project\.yml"):
        gates.compile(Settings(dbt_project=own.dbt_project / "tests"))


def by_others(path: Path) -> None:
    path.chmod(0o777 if path.is_dir() else 0o666)


def by_the_group(path: Path) -> None:
    path.chmod(0o770 if path.is_dir() else 0o660)


def of_another(path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root may give a file away")
    os.chown(path, 4711, -1)


def elsewhere(path: Path) -> None:
    path.rename(path.with_name("moved"))
    path.symlink_to(path.with_name("moved"))


@pytest.mark.parametrize("spoil", [by_others, by_the_group, of_another, elsewhere])
@pytest.mark.parametrize("level", ["home", "folder", "file"])
def test_a_cache_that_others_may_write_is_neither_used_nor_written_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoil: Callable[[Path], None], level: str
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    cache.write("gates", "kept", "ours")
    assert cache.read("gates", "kept") == "ours"
    assert cache.fault("gates") is None
    home = tmp_path / "cache" / "backfill-runner"
    spoiled = {"home": home, "folder": home / "gates", "file": home / "gates" / "kept"}[level]
    spoil(spoiled)
    content = spoiled.resolve()
    before = sorted((path, path.is_file() and path.read_text()) for path in [content, *content.rglob("*")])
    assert cache.read("gates", "kept") is None
    assert (cache.fault("gates") is None) == (level == "file")
    cache.write("gates", "kept", "anew")
    if level == "file":  # in a folder that only we may write: replaced
        assert cache.read("gates", "kept") == "anew"
        assert spoiled.is_file()
        assert not spoiled.is_symlink()
    else:
        assert cache.read("gates", "kept") is None
        assert before == sorted((path, path.is_file() and path.read_text()) for path in [content, *content.rglob("*")])
