"""Files that are none, that never end, or that hide something: refused by name, without waiting and without memory."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from runner.errors import UsageError
from runner.files import LONGEST_LINE, opened, text_lines
from tests.story import command, environment, peak, shell, sql


def test_a_file_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    os.mkfifo(tmp_path / "fifo")
    with opened(tmp_path / "link") as stream:
        assert stream.read() == b"x"
    for path, links, words in (
        (tmp_path / "fifo", True, "FIFO"), (tmp_path, True, "directory"), (Path("/dev/zero"), True, "device"),
        (tmp_path / "link", False, "link"), (tmp_path / "gone", True, "No such file"),
    ):  # fmt: skip
        with pytest.raises(OSError) as caught, opened(path, links=links):
            pass
        assert words in str(caught.value.strerror)


def test_a_line_without_end_is_refused_before_it_is_read(tmp_path: Path) -> None:
    file = tmp_path / "long"
    file.write_text("a\n" + "x" * (LONGEST_LINE + 1))
    with opened(file) as stream, pytest.raises(UsageError, match="line 2 is longer than"):
        list(text_lines(file, stream))


@pytest.mark.parametrize(
    "words", [("load", "invoices"), ("load", "electricity"), ("verify", "electricity"), ("reconcile", "--ledger")]
)
def test_no_command_waits_for_a_fifo_or_reads_a_device(
    words: tuple[str, ...], database_url: str, tmp_path: Path
) -> None:
    fifo = tmp_path / "file.csv"
    os.mkfifo(fifo)
    for path, what in ((fifo, "FIFO"), (Path("/dev/zero"), "device")):
        done = shell(database_url, *words, str(path), code=None)
        assert done.code in (2, 3), done
        assert f"it is a {what}, not a file" in done.text


def test_a_line_of_200_mb_costs_no_memory(database_url: str, tmp_path: Path) -> None:
    file = tmp_path / "line.csv"
    with file.open("wb") as stream:
        stream.write(b"Number,Client,From,To,Date,Due,Total,Notes\n")
        for _ in range(200):
            stream.write(b"x" * (1 << 20))
    sql(database_url, "insert into billing.companies (name) values ('Pflege Nord')")
    for words in (("load", "invoices"), ("reconcile", "--ledger")):
        used, said = peak(*command(*words, str(file)), code=2, env=environment(database_url))
        assert used < 200, said
        assert "longer than" in said or "does not begin with the header" in said


def test_a_quote_that_is_never_closed_does_not_fill_the_server(database_url: str, tmp_path: Path) -> None:
    header = (Path(__file__).parents[2] / "docs" / "sample_ledger_template.csv").read_bytes().splitlines()[0]
    file = tmp_path / "quote.csv"
    with file.open("wb") as stream:
        stream.write(header + b'\n1,2026-01-01,"' + b"x" * 10)
        for _ in range(400):
            stream.write(b'a ""quoted"" word\n' * 6_000)
    done = shell(database_url, "reconcile", "--ledger", str(file), code=2)
    assert "a quote is opened and never closed" in done.err
