"""runner load: every file whole or not at all, twice is a no-op, and what is suspect waits for a name."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import psycopg
import pytest

from runner.errors import UsageError
from runner.rent.load import load_electricity, load_rent_history
from runner.rent.verify import verify_rent_history
from runner.settings import Settings
from tests.engine.words import refusal
from tests.rent.flat import BILLS, HISTORY, ODD, ask, everything, furnish, runner


@pytest.fixture
def flat(settings: Settings, conn: psycopg.Connection) -> Settings:
    furnish(conn)
    return settings


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A copy of all samples, the odd ones too."""
    directory = tmp_path / "history"
    shutil.copytree(HISTORY, directory)
    shutil.copytree(ODD, directory, dirs_exist_ok=True)
    return directory


def changed(path: Path, **parts: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | parts), encoding="utf-8")


def runs(settings: Settings) -> int:
    return int(ask(settings, "select count(*) from backfill.backfill_log")[0][0])


def test_every_version_lands_with_sha256_and_whole_document(flat: Settings) -> None:
    loaded = load_rent_history(flat, HISTORY)
    assert (loaded.result.rows, loaded.result.rejects, len(loaded.calculations)) == (7, 0, 7)
    staged = ask(
        flat,
        "select h.file_name, period, version, calculation_month, h.file_sha256 = f.sha256, document::text"
        " from staging.rent_history as h join staging.file as f on f.name = h.file_name order by 2, 3",
    )
    assert [(row[0], row[1], row[2], row[3]) for row in staged] == [
        ("2022_11_v1.json", "2022-11", 1, "2022-11"),
        ("2023_01_v1.json", "2023-01", 1, "2022-12"),
        ("2023_02_v1.json", "2023-02", 1, "2023-02"),
        ("2023_02_v2.json", "2023-02", 2, "2023-02"),
        ("2023_02_v10.json", "2023-02", 10, "2023-02"),
        ("2023_03_v1.json", "2023-03", 1, "2023-03"),
        ("2023_05_v1.json", "2023-05", 1, "2023-05"),
    ]
    for name, *_, same_sha, document in staged:
        assert same_sha
        assert json.loads(document) == json.loads((HISTORY / name).read_text(encoding="utf-8"))


def test_the_highest_version_counts_and_the_others_are_reported_as_history(flat: Settings) -> None:
    command = runner(flat, "load", "rent-history", HISTORY)
    assert command.returncode == 0, command.stderr
    lines = [line.split() for line in command.stdout.splitlines() if line.startswith("2023-02")]
    assert lines == [["2023-02", "1", "history"], ["2023-02", "2", "history"], ["2023-02", "10", "counts"]]


def test_loading_twice_is_a_no_op(flat: Settings) -> None:
    load_rent_history(flat, HISTORY)
    load_electricity(flat, BILLS)
    before, count = everything(flat), runs(flat)
    again = load_rent_history(flat, HISTORY)
    assert (again.result.run_id, len(again.result.skipped), again.result.rows) == (None, 7, 0)
    assert load_electricity(flat, BILLS).run_id is None
    assert (everything(flat), runs(flat)) == (before, count)


def test_a_dry_run_leaves_nothing(flat: Settings) -> None:
    before = everything(flat)
    assert load_rent_history(flat, HISTORY, dry_run=True).result.rows == 7
    assert load_electricity(flat, BILLS, dry_run=True).rows == 8
    assert (everything(flat), runs(flat)) == (before, 0)


def test_a_suspect_file_is_rejected_with_its_reason_and_nothing_is_loaded(flat: Settings, files: Path) -> None:
    before = everything(flat)
    command = runner(flat, "load", "rent-history", files)
    assert command.returncode == 3
    assert "2021_05_v1.json" in command.stderr
    assert "suspect: calculated on 2022-06-03, 13 months after 2021-05" in command.stderr
    assert "--accept 2021_05_v1.json" in command.stderr
    assert (everything(flat), runs(flat)) == (before, 0)


def test_a_suspect_file_is_taken_by_name(flat: Settings, files: Path) -> None:
    loaded = load_rent_history(flat, files, accept=["2021_05_v1.json"])
    (accepted,) = [s for s in loaded.calculations if s.accepted]
    assert (accepted.name, accepted.counts) == ("2021_05_v1.json", True)
    assert ask(flat, "select file_name, suspicions from staging.rent_history where suspicions <> '{}'") == [
        ("2021_05_v1.json", ["calculated on 2022-06-03, 13 months after 2021-05"])
    ]


def test_a_file_that_was_held_back_can_be_accepted_later(flat: Settings, files: Path) -> None:
    held = load_rent_history(flat, files, allow_rejects=1)
    assert (held.result.rows, held.result.rejects) == (8, 1)
    assert ask(flat, "select source, line, reason like 'suspect: %%' from backfill.reject", []) == [
        ("2021_05_v1.json", None, True)
    ]
    with refusal("BF004"):
        load_rent_history(flat, files)
    taken = load_rent_history(flat, files, accept=["2021_05_v1.json"])
    assert (taken.result.rows, len(taken.result.skipped)) == (1, 8)


def test_who_did_not_live_there_makes_a_file_suspect(flat: Settings, files: Path, conn: psycopg.Connection) -> None:
    conn.execute("update rent.tenants set departure_date = '2023-02-28' where name = 'Bo'")
    conn.commit()
    with refusal("BF004") as caught:
        load_rent_history(flat, files, accept=["2021_05_v1.json"])
    assert "2023_03_v1.json 2" not in str(caught.value)  # the reason begins after the name
    for name, month in (("2023_03_v1.json", "2023-03"), ("2023_05_v1.json", "2023-05")):
        assert f"Bo did not live there in {month}: left in 2023-02. If it is right: --accept {name}" in str(
            caught.value
        )
    assert "2023_02_v1" not in str(caught.value)


def test_a_month_that_is_not_the_files_is_reported_and_taken(flat: Settings, files: Path) -> None:
    command = runner(flat, "load", "rent-history", files, "--accept", "2021_05_v1.json")
    assert command.returncode == 0, command.stderr
    told = " ".join(command.stdout.split())
    assert "the name says 2023-04, constants say 2023-01: neither that month nor the one before" in told
    assert ask(flat, "select count(*) from staging.rent_history where remarks <> '{}'") == [(1,)]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("2023_06_v1.json", b'{"metadata": ', "is not JSON"),
        ("2023_06_v1.json", b"\xff\xfe{\x00", "is not UTF-8"),
        ("2023_06_v1.json", b" " * 50_000_000, "is larger than 1,048,576 bytes"),
        ("2023_6_v1.json", b"{}", "the name is not YYYY_MM_vN.json"),
    ],
    ids=["truncated", "encoding", "50 MB", "name"],
)
def test_a_damaged_file_is_rejected_and_nothing_is_loaded(
    flat: Settings, tmp_path: Path, name: str, content: bytes, words: str
) -> None:
    directory = tmp_path / "damaged"
    shutil.copytree(HISTORY, directory)
    (directory / name).write_bytes(content)
    before = everything(flat)
    command = runner(flat, "load", "rent-history", directory)
    assert command.returncode == 3
    assert name in command.stderr
    assert words in command.stderr
    assert "Traceback" not in command.stderr
    assert everything(flat) == before
    assert ask(flat, "select 1 from staging.file") == []
    allowed = load_rent_history(flat, directory, allow_rejects=1)
    assert (allowed.result.rows, allowed.result.rejects) == (7, 1)


def test_an_unknown_tenant_and_a_stranger_in_the_results_are_named(flat: Settings, files: Path) -> None:
    document = json.loads((files / "2023_05_v1.json").read_text(encoding="utf-8"))
    changed(files / "2023_05_v1.json", roommates={"Eve": {}}, final_results={"Eve": 23901})
    changed(files / "2023_03_v1.json", final_results=document["final_results"] | {"Mallory": 5})
    with refusal("BF004") as caught:
        load_rent_history(flat, files, accept=["2021_05_v1.json"])
    assert "2023_05_v1.json" in str(caught.value)
    assert "no such tenant: Eve. Add them to rent.tenants" in str(caught.value)
    assert "Mallory is in final_results and not in roommates" in str(caught.value)


def test_the_same_version_with_other_content_is_rejected(flat: Settings, tmp_path: Path) -> None:
    load_rent_history(flat, HISTORY)
    directory = tmp_path / "other"
    directory.mkdir()
    shutil.copy(HISTORY / "2023_02_v2.json", directory)
    changed(directory / "2023_02_v2.json", more=1)
    with refusal("BF004", match="version 2 of 2023-02 was loaded with other content"):
        load_rent_history(flat, directory)


def test_a_directory_without_calculations_and_a_wrong_accept_are_usage_errors(flat: Settings, tmp_path: Path) -> None:
    for directory in (tmp_path, tmp_path / "missing", BILLS):
        with pytest.raises(UsageError):
            load_rent_history(flat, directory)
    with pytest.raises(UsageError, match=r"--accept 2020_01_v1\.json"):
        load_rent_history(flat, HISTORY, accept=["2020_01_v1.json"])


def test_other_files_of_the_directory_are_named(flat: Settings, tmp_path: Path) -> None:
    shutil.copytree(HISTORY, tmp_path / "history")
    shutil.copy(BILLS, tmp_path / "history")
    command = runner(flat, "load", "rent-history", tmp_path / "history")
    assert command.returncode == 0
    assert "not looked at: electricity_bills.txt" in command.stderr


def test_what_is_named_like_a_calculation_and_cannot_be_read_is_never_passed_over(
    flat: Settings, tmp_path: Path
) -> None:
    """Verify would say that the files may be deleted."""
    directory = tmp_path / "history"
    shutil.copytree(HISTORY, directory)
    (directory / "older").mkdir()
    assert load_rent_history(flat, directory).ignored == ("older",)
    assert verify_rent_history(flat, directory).ignored == ("older",)
    (directory / "2023_06_v1.json").symlink_to(tmp_path / "gone.json")
    for verb in (load_rent_history, verify_rent_history):
        with pytest.raises(UsageError, match=r"2023_06_v1\.json cannot be read: No such file"):
            verb(flat, directory)
    (directory / "2023_06_v1.json").unlink()
    (directory / "2023_06_v1.json").mkdir()
    for verb in (load_rent_history, verify_rent_history):
        with pytest.raises(UsageError, match=r"2023_06_v1\.json cannot be read: Is a directory"):
            verb(flat, directory)


def test_bills_land_with_their_lines(flat: Settings) -> None:
    assert load_electricity(flat, BILLS).rows == 8
    assert ask(
        flat,
        "select line, provider, bill_date::text, amount from staging.electricity_bill where line in (6, 14) order by 1",
    ) == [(6, "Vattenfall", "2023-03-31", 70000), (14, "Fortum", "2023-04-03", 50198)]


def test_a_bad_line_is_rejected_with_its_number_and_nothing_is_loaded(flat: Settings, tmp_path: Path) -> None:
    file = tmp_path / "bills.txt"
    file.write_text("2025-01-01 1 kr\n" + BILLS.read_text(encoding="utf-8") + "2023-02-31\t5 kr\n", encoding="utf-8")
    command = runner(flat, "load", "electricity", file)
    assert command.returncode == 3
    assert "bills.txt line 1: stands before any heading: the provider is not known" in command.stderr
    assert "bills.txt line 19: there is no day 2023-02-31" in command.stderr
    assert ask(flat, "select 1 from staging.electricity_bill union all select 1 from staging.file") == []
    assert load_electricity(flat, file, allow_rejects=2).rows == 8
    assert ask(flat, "select line, reason from backfill.reject order by 1") == [
        (1, "stands before any heading: the provider is not known"), (19, "there is no day 2023-02-31"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "content", [b"\xff\xfe1\x002\x00", b"2025-01-01 5 kr\n" * 3_200_000, b""], ids=["utf-16", "50 MB", "empty"]
)
def test_a_damaged_file_of_bills_is_one_reject(flat: Settings, tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "bills.txt"
    file.write_bytes(content)
    command = runner(flat, "load", "electricity", file)
    assert command.returncode == 3
    assert "1 of 1 source row cannot be taken" in command.stderr
    assert "Traceback" not in command.stderr
    assert everything(flat) == [row for row in everything(flat) if row[0] == "rent.rent_config"]


def test_undoing_a_load_takes_its_rows_out_and_it_can_come_again(flat: Settings) -> None:
    loaded = load_rent_history(flat, HISTORY)
    command = runner(flat, "rollback", str(loaded.result.run_id), "--yes")
    assert command.returncode == 0, command.stderr
    assert ask(flat, "select 1 from staging.rent_history union all select 1 from staging.file") == []
    assert load_rent_history(flat, HISTORY).result.rows == 7
