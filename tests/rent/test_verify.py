"""runner verify: exit 0 only where every value of the files is in the database."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from runner.rent.load import load_electricity, load_rent_history
from runner.rent.verify import verify_electricity, verify_rent_history
from runner.settings import Settings
from tests.engine.words import Connection
from tests.rent.flat import BILLS, HISTORY, ask, backfill, furnish, runner


@pytest.fixture
def done(settings: Settings, conn: Connection) -> Settings:
    """All samples loaded and applied."""
    furnish(conn)
    load_rent_history(settings, HISTORY)
    load_electricity(settings, BILLS)
    backfill(settings, "rent_history")
    backfill(settings, "electricity_bills")
    return settings


@pytest.fixture
def files(tmp_path: Path) -> Path:
    return Path(shutil.copytree(HISTORY, tmp_path / "history"))


def test_everything_is_proved_and_only_then_may_the_files_go(done: Settings) -> None:
    for what, path in (("rent-history", HISTORY), ("electricity", BILLS)):
        command = runner(done, "verify", what, path)
        assert command.returncode == 0, command.stdout + command.stderr
        assert "may be deleted" in " ".join(command.stdout.split())
    # 8 bills by amount, month and currency
    assert verify_electricity(done, BILLS).values == 24


def test_before_the_backfill_all_is_missing(settings: Settings, conn: Connection) -> None:
    furnish(conn)
    load_rent_history(settings, HISTORY)
    load_electricity(settings, BILLS)
    for what, path in (("rent-history", HISTORY), ("electricity", BILLS)):
        command = runner(settings, "verify", what, path)
        assert command.returncode == 3
        assert "missing" in command.stdout
        assert "keep the files" in command.stdout
        assert "may be deleted" not in command.stdout
    assert len(verify_rent_history(settings, HISTORY).findings) == 7


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("constants", "el"), 1202),
        (("constants", "bredband"), None),
        (("metadata", "title"), "another"),
        (("metadata", "ruby_version"), "3.4"),
        (("roommates", "Dag", "days"), 15),
        (("roommates", "Dag", "room_adjustment"), -1),
        (("final_results", "Alma"), 6373),
    ],
)
def test_each_value_that_differs_is_named(done: Settings, files: Path, path: tuple[str, ...], value: object) -> None:
    file = files / "2023_02_v10.json"
    document = json.loads(file.read_text(encoding="utf-8"))
    place = document
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    file.write_text(json.dumps(document), encoding="utf-8")
    found = verify_rent_history(done, files)
    assert not found.proved
    assert {finding.file for finding in found.findings} == {"2023_02_v10.json"}
    named = [finding.where for finding in found.findings]
    assert "sha256" in named
    if path[0] != "metadata":
        assert any(where.startswith(".".join(path)) for where in named)
    elif path[1] == "title":
        assert "metadata.title" in named


def test_the_same_values_written_otherwise_differ_only_in_their_sha256(done: Settings, files: Path) -> None:
    file = files / "2023_03_v1.json"
    file.write_text(file.read_text(encoding="utf-8").replace("5576", "5576.0"), encoding="utf-8")
    wheres = {finding.where.split()[0] for finding in verify_rent_history(done, files).findings}
    assert wheres == {"sha256", "the"}  # and the whole document of that sha256


def test_a_file_more_or_an_unreadable_one_is_a_finding(done: Settings, files: Path) -> None:
    shutil.copy(files / "2023_05_v1.json", files / "2023_06_v1.json")
    (files / "2023_05_v1.json").write_bytes(b"{")
    states = {finding.file: finding.state for finding in verify_rent_history(done, files).findings}
    assert states == {"2023_05_v1.json": "unreadable", "2023_06_v1.json": "missing"}


@pytest.mark.parametrize(
    ("sql", "where"),
    [
        (
            "update rent.rent_ledger set amount_due = amount_due + 1 where tenant = 'Dag' and period = '2023-02'",
            "amount_due",
        ),
        ("update rent.rent_ledger set days_stayed = 15 where tenant = 'Dag' and period = '2023-02'", "days_stayed"),
        ("update rent.rent_ledger set calculation_title = null where tenant = 'Dag' and period = '2023-02'", "title"),
        (
            "update rent.rent_ledger set base_monthly_rent = 1 where tenant = 'Dag' and period = '2023-02'",
            "base_monthly",
        ),
        ("delete from rent.rent_ledger where tenant = 'Dag' and period = '2023-02'", "ledger Dag 2023-02"),
    ],
)
def test_a_ledger_that_was_tampered_with_is_found(done: Settings, conn: Connection, sql: str, where: str) -> None:
    conn.execute("alter table rent.rent_ledger disable trigger user")
    conn.execute(sql.encode())
    conn.commit()
    (finding,) = verify_rent_history(done, HISTORY).findings
    assert where in finding.where
    assert runner(done, "verify", "rent-history", HISTORY).returncode == 3


def test_a_bill_that_differs_or_is_missing_is_named_by_its_line(done: Settings, tmp_path: Path) -> None:
    file = tmp_path / "bills.txt"
    text = BILLS.read_text(encoding="utf-8").replace("701 kr", "702 kr") + "2023-06-01\t5 kr\n2023-06-31\t5 kr\n"
    file.write_text(text, encoding="utf-8")
    found = {finding.where: finding.state for finding in verify_electricity(done, file).findings}
    assert found == {
        "line 7: Vattenfall 2023-02-28 amount in öre": "differs",
        "line 18: Fortum 2023-06-01": "missing",
        "line 19": "unreadable",
    }


def test_an_empty_file_proves_nothing(done: Settings, tmp_path: Path) -> None:
    (tmp_path / "bills.txt").write_text("# Fortum\n", encoding="utf-8")
    assert runner(done, "verify", "electricity", tmp_path / "bills.txt").returncode == 3
    assert runner(done, "verify", "rent-history", tmp_path).returncode == 2
    assert runner(done, "verify", "electricity", tmp_path / "none.txt").returncode == 2


def test_verifying_writes_nothing_and_speaks_json(done: Settings) -> None:
    count = ask(done, "select count(*) from backfill.backfill_log")
    command = runner(done, "verify", "electricity", BILLS, "--json")
    told = json.loads(command.stdout)
    assert (told["values"], told["findings"]) == (24, [])
    assert ask(done, "select count(*) from backfill.backfill_log") == count
