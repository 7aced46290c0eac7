"""What a person at a terminal sees: the questions stand there, complete, before anything is committed."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pyte

from tests.story import SAMPLE_CHARGES, adopt, charges, command, environment, last_run, run

COLUMNS, LINES = 100, 60


@dataclass(slots=True)
class Terminal:
    """A command on a pseudo-terminal, and the screen as it stands."""

    process: subprocess.Popen[bytes]
    leader: int
    screen: pyte.HistoryScreen = field(default_factory=lambda: pyte.HistoryScreen(COLUMNS, LINES, history=5000))

    @property
    def lines(self) -> list[str]:
        """What stands on the screen, without empty lines."""
        return [line.rstrip() for line in self.screen.display if line.strip()]

    def read(self, until: Callable[[list[str]], bool], seconds: float = 60) -> list[str]:
        """Read what is written until the screen is so, and for a moment longer: what is erased again does not count."""
        stream = pyte.ByteStream(self.screen)
        end = time.monotonic() + seconds
        settled = 0.0
        while time.monotonic() < end:
            if select.select([self.leader], [], [], 0.1)[0]:
                try:
                    stream.feed(os.read(self.leader, 65536))
                except OSError:  # the command has ended and with it the terminal
                    assert until(self.lines), self.lines
                    return self.lines
                settled = 0.0
            elif until(self.lines):
                settled += 0.1
                if settled > 0.5:
                    return self.lines
        raise AssertionError(f"it never came: {self.lines}")

    def type(self, keys: str) -> None:
        """What a person types."""
        os.write(self.leader, keys.encode())


@contextmanager
def terminal(url: str, *arguments: str, stdout: Path | None = None) -> Iterator[Terminal]:
    """A command on a terminal of its own, its results there too or in a file; it does not outlive the block."""
    leader, follower = pty.openpty()
    more = {"COLUMNS": str(COLUMNS), "LINES": str(LINES), "TERM": "xterm-256color"}
    results = os.dup(follower) if stdout is None else os.open(stdout, os.O_WRONLY | os.O_CREAT)
    process = subprocess.Popen(
        command(*arguments), env=environment(url, **more), stdin=follower, stdout=results, stderr=follower,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    os.close(follower)
    os.close(results)
    with process:
        try:
            yield Terminal(process, leader)
        finally:
            process.kill()
            os.close(leader)


def asks(question: str) -> Callable[[list[str]], bool]:
    """A question with these words is the last thing on the screen, and waits."""
    return lambda lines: bool(lines) and lines[-1].endswith("? [y/N]:") and question in " ".join(lines[-3:])


def says(words: str) -> Callable[[list[str]], bool]:
    """The words are on the screen."""
    return lambda lines: any(words in line for line in lines)


def test_the_question_of_an_apply_is_read_and_answered(database_url: str) -> None:
    url = adopt(database_url)
    before = charges(url)
    with terminal(url, "apply", "charges") as screen:
        shown = screen.read(asks("Write 144 rows, 123,501.50,"))
        assert any("property.charges" in line for line in shown), "what is asked about stands above the question"
        assert charges(url) == before
        screen.type("n\n")
        screen.read(says("Not applied: you said no"))
        assert screen.process.wait(20) == 0
    assert charges(url) == before
    with terminal(url, "apply", "charges") as screen:
        screen.read(asks("Write 144 rows, 123,501.50,"))
        screen.type("y\n")
        screen.read(says("Applied and committed"))
        assert screen.process.wait(20) == 0
    assert len(charges(url)) == len(before) + 144


def test_the_question_of_an_undo_is_read_and_answered(database_url: str) -> None:
    url = adopt(database_url)
    before = charges(url)
    run(url, "apply", "charges", "--yes")
    with terminal(url, "rollback", str(last_run(url))) as screen:
        shown = screen.read(asks("144 rows, -123,501.50, in "))
        assert any("property.charges" in line for line in shown)
        assert charges(url) != before
        screen.type("y\n")
        screen.read(says("Undone and committed"))
        assert screen.process.wait(20) == 0
    assert charges(url) == before


def test_what_was_typed_before_the_question_is_no_answer(database_url: str) -> None:
    url = adopt(database_url)
    before = charges(url)
    with terminal(url, "apply", "charges") as screen:
        screen.type("y\n")  # as it starts, long before there is anything to say yes to
        screen.read(asks("Write 144 rows, 123,501.50,"))
        assert charges(url) == before
        screen.type("n\n")
        screen.read(says("Not applied: you said no"))
    assert charges(url) == before


def test_results_for_a_file_do_not_end_up_on_the_terminal(database_url: str, tmp_path: Path) -> None:
    """`runner apply --dry-run --all > rows.txt`: the progress is alive on the terminal all the while."""
    url = adopt(database_url)
    rows = tmp_path / "rows.txt"
    with terminal(url, "apply", "charges", "--dry-run", "--all", stdout=rows) as screen:
        assert screen.process.wait(60) == 0
        left = screen.read(lambda _: True)
    # What was done, each step with its time, and how long all of it took: no row of the result.
    assert all(re.fullmatch(r"✓ .+  [0-9.,]+ s", line.rstrip()) for line in left[:-1])
    assert re.fullmatch(r" *\d+ steps  [0-9.,]+ s", left[-1].rstrip())
    written = rows.read_text(encoding="utf-8").splitlines()
    assert sum(line.startswith("insert  ") for line in written) == SAMPLE_CHARGES
    assert "Rehearsed and rolled back: nothing was changed." in " ".join(written[-3:])
