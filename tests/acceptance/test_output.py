"""Where results go when the way there is broken: what was done is done, and somebody is told so."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.story import SAMPLE_CHARGES, adopt, charges, command, environment, last_run, run, shell, sql

FULL = Path("/dev/full")

needs_full = pytest.mark.skipif(not FULL.exists(), reason="this system has no /dev/full")


def ended(url: str, *arguments: str, out: int, err: int = subprocess.PIPE) -> subprocess.CompletedProcess[str]:
    """A command whose stdout, and perhaps stderr, goes elsewhere."""
    return subprocess.run(
        command(*arguments), env=environment(url), stdin=subprocess.DEVNULL, stdout=out, stderr=err, text=True,
        check=False,
    )  # fmt: skip


@contextmanager
def full_disk() -> Iterator[int]:
    with FULL.open("w") as stream:
        yield stream.fileno()


@needs_full
@pytest.mark.parametrize("more", [(), ("--json",)])
def test_a_full_disk_after_the_commit_takes_the_report_and_not_the_truth(
    database_url: str, more: tuple[str, ...]
) -> None:
    url = adopt(database_url)
    with full_disk() as out:
        done = ended(url, "apply", "charges", "--yes", *more, out=out)
    assert done.returncode == 0, done.stderr
    assert len(charges(url)) == SAMPLE_CHARGES
    assert f"All of it is committed: charges as run {last_run(url)}" in done.stderr
    assert "No space left on device" in done.stderr
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


@needs_full
def test_an_undo_a_look_and_an_error_on_a_full_disk(database_url: str) -> None:
    url = adopt(database_url)
    run(url, "apply", "charges", "--yes")
    with full_disk() as out:
        undone = ended(url, "rollback", last_run(url), "--yes", out=out)
        assert undone.returncode == 0
        assert "The undo is committed as run" in undone.stderr
        looked = ended(url, "log", out=out)
        assert looked.returncode == 1
        refused = ended(url, "log", "ffff", "--json", out=out)
        assert refused.returncode == 2
        for done in (undone, looked, refused):
            assert "Traceback" not in done.stderr
            assert done.stderr.startswith(("error: ", "…"))


@needs_full
def test_nobody_need_read_the_progress(database_url: str) -> None:
    """stderr that is full, gone or closed ends nothing; stdout stays one JSON object."""
    url = adopt(database_url)
    with full_disk() as out:
        assert ended(url, "apply", "charges", "--yes", out=subprocess.PIPE, err=out).returncode == 0
    assert len(charges(url)) == SAMPLE_CHARGES
    words = " ".join(command("rollback", last_run(url), "--yes", "--json"))
    closed = subprocess.run(
        f"{words} 2>&-", shell=True, env=environment(url), stdin=subprocess.DEVNULL, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert closed.returncode == 0
    assert closed.stdout.startswith("{")
    assert charges(url) == []
    both = subprocess.run(
        f"{' '.join(command('apply', 'charges', '--yes'))} >&- 2>&- <&-", shell=True, env=environment(url), check=False
    )
    assert both.returncode == 0
    assert len(charges(url)) == SAMPLE_CHARGES


def test_a_reader_who_leaves_changes_no_exit_code(database_url: str) -> None:
    url = adopt(database_url)
    read, write = os.pipe()
    os.close(read)
    try:
        done = ended(url, "apply", "charges", "--yes", out=write)
    finally:
        os.close(write)
    assert done.returncode == 0
    assert "Traceback" not in done.stderr
    assert len(charges(url)) == SAMPLE_CHARGES


def test_a_page_that_cannot_be_written_stops_before_the_first_write(database_url: str, tmp_path: Path) -> None:
    url = adopt(database_url)
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    for page, why in (
        (tmp_path / "no" / "report.html", "No such file"), (tmp_path, "Is a directory"), (fifo, "No such device"),
    ):  # fmt: skip
        done = shell(url, "apply", "charges", "--yes", "--html", str(page), code=2)
        assert why in done.err
        assert "Nothing was done" in done.err
        assert charges(url) == []
    assert "No such file" in shell(url, "promote", "--sheet", str(tmp_path / "no" / "sheet.md"), code=2).err


@needs_full
def test_a_page_that_fails_later_leaves_the_report_and_says_what_is_committed(database_url: str) -> None:
    url = adopt(database_url)
    done = shell(url, "apply", "charges", "--yes", "--html", str(FULL), code=1)
    assert "Applied and committed" in done.out
    assert "/dev/full was not written: No space left on device. All of it is committed" in done.err
    assert last_run(url) in done.err
    assert len(charges(url)) == SAMPLE_CHARGES


def test_reports_and_sheets_are_for_their_owner_alone_unless_they_are_there(database_url: str, tmp_path: Path) -> None:
    url = adopt(database_url)
    page, sheet, shared = tmp_path / "report.html", tmp_path / "sheet.md", tmp_path / "shared.html"
    shared.write_text("x" * 1_000_000)
    shared.chmod(0o664)
    shell(url, "apply", "charges", "--dry-run", "--html", str(page))
    shell(url, "apply", "charges", "--dry-run", "--html", str(shared))
    shell(url, "promote", "--sheet", str(sheet), code=3)
    assert [file.stat().st_mode & 0o777 for file in (page, sheet, shared)] == [0o600, 0o600, 0o664]
    assert shared.read_text().rstrip().endswith("</html>")
    # A command that fails leaves no empty file behind, and an old one as it was.
    for file in (tmp_path / "none.html", shared):
        shell(url, "apply", "nothing-of-that-name", "--dry-run", "--html", str(file), code=2)
    assert not (tmp_path / "none.html").exists()
    assert shared.read_text().rstrip().endswith("</html>")
    assert sql(url, "select count(*) from backfill.backfill_log") == [(0,)]
