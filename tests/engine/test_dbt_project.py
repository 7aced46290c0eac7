"""What every model and gate of the dbt project keeps to."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from runner.systems import SYSTEMS
from tests.place import ROOT

PROJECT = ROOT / "dbt_project"
MODELS = sorted((PROJECT / "models").rglob("*.sql"))
GATES = sorted((PROJECT / "tests").glob("*/*/*.sql"))


def documented(folder: str, kind: str) -> dict[str, dict[str, Any]]:
    """Name to entry, over all yml files of a folder."""
    files = (PROJECT / folder).rglob("*.yml")
    return {entry["name"]: entry for file in files for entry in yaml.safe_load(file.read_text()).get(kind, [])}


@pytest.mark.parametrize("model", MODELS, ids=lambda path: path.stem)
def test_each_model_has_a_description_a_grain_and_a_tested_key(model: Path) -> None:
    entry = documented("models", "models")[model.stem]
    assert "Grain - one row" in " ".join(entry["description"].split())
    assert any({"unique", "not_null"} <= set(column.get("data_tests", [])) for column in entry["columns"])


@pytest.mark.parametrize("gate", GATES, ids=lambda path: path.stem)
def test_each_gate_says_what_a_failing_row_means(gate: Path) -> None:
    assert documented("tests", "data_tests")[gate.stem]["description"]


@pytest.mark.parametrize("gate", GATES, ids=lambda path: path.stem)
def test_each_gates_folder_is_its_tag(gate: Path) -> None:
    project = yaml.safe_load((PROJECT / "dbt_project.yml").read_text())
    system = project["data_tests"]["reconciliation"][gate.parent.parent.name]
    assert system[gate.parent.name] == {"+tags": gate.parent.name}


@pytest.mark.parametrize("kind", ["models", "data_tests"])
def test_each_system_is_switched_by_its_name(kind: str) -> None:
    """In every place that holds anything of it; what is not chosen by a list is there."""
    config = yaml.safe_load((PROJECT / "dbt_project.yml").read_text())[kind]["reconciliation"]
    for system in SYSTEMS:
        assert (PROJECT / ("models" if kind == "models" else "tests") / system).is_dir()
        assert config[system]["+enabled"] == f"{{{{ '{system}' in var('systems', ['{system}']) }}}}"
    folders = {path.name for folder in ("models", "tests") for path in (PROJECT / folder).iterdir()}
    assert folders == {*SYSTEMS, "engine"}


def test_no_system_refers_to_another() -> None:
    for path in [*MODELS, *GATES]:
        system = path.relative_to(PROJECT).parts[1]
        for name in re.findall(r"ref\('(\w+)'\)", path.read_text()):
            (model,) = [other for other in MODELS if other.stem == name]
            assert model.relative_to(PROJECT).parts[1] in (system, "engine"), path


def test_only_staging_reads_sources() -> None:
    reading = {path.parent.name for path in [*MODELS, *GATES] if "source(" in path.read_text()}
    assert reading == {"staging"}


def test_every_documented_name_exists() -> None:
    assert set(documented("models", "models")) == {path.stem for path in MODELS}
    assert set(documented("tests", "data_tests")) == {path.stem for path in GATES}


def test_its_sql_is_formatted() -> None:
    command = [sys.executable, "-m", "sqlfluff", "lint", "--disable-progress-bar", "."]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
