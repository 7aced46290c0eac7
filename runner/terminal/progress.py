"""What is being done, on stderr: a list on a terminal, plain lines elsewhere, or JSON for a program."""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
import time
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from runner.steps import Step
from runner.text import clean, json_text


class Progress:
    """Call it with each step. On a terminal finished ones stay with their time, the running one counts."""

    def __init__(self, *, as_json: bool = False) -> None:
        self.as_json = as_json
        self._bar: Any = None
        self._step: Step | None = None
        self._since = self._began = time.perf_counter()
        self._count = 0

    def __call__(self, step: str) -> None:
        """The next step, or how far the running one is."""
        step = step if isinstance(step, Step) else Step(clean(step))
        goes_on = self._step is not None and self._step.name == step.name
        if not goes_on:
            self._end()
            self._since = time.perf_counter()
            self._began = self._began if self._count else self._since  # not while a question waits for its answer
            self._count += 1
        elif self._step is not None:
            step.rows, step.run_id = step.rows or self._step.rows, step.run_id or self._step.run_id
        self._step = step
        if self.as_json:
            return
        if not sys.stderr.isatty():
            if not goes_on:
                say(f"… {step.name}")
            return
        self._draw(step, goes_on)

    def _draw(self, step: Step, goes_on: bool) -> None:
        if self._bar is None:
            from rich.console import Console
            from rich.progress import Progress as Bar
            from rich.progress import SpinnerColumn, TextColumn, TimeElapsedColumn

            columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
            # Results are no part of it: redirected, rows for a file would end up on the terminal.
            out = Console(file=getattr(sys.stderr, "terminal", sys.stderr))
            self._bar = Bar(*columns, console=out, transient=True, redirect_stdout=False, redirect_stderr=False)
            self._bar.add_task("connecting")
            self._bar.start()
        if goes_on:
            self._bar.update(self._bar.task_ids[0], description=step)
        else:
            self._bar.reset(self._bar.task_ids[0], description=step)

    def _end(self, mark: str = "✓") -> None:
        """The running step is over."""
        if self._step is None:
            return
        seconds = time.perf_counter() - self._since
        if self.as_json:
            say(json_text({
                "at": datetime.now(UTC).isoformat(timespec="milliseconds"), "phase": clean(self._step.name),
                "seconds": round(seconds, 3), "rows": self._step.rows, "run_id": self._step.run_id,
            }))  # fmt: skip
        elif self._bar is not None:
            self._bar.console.print(
                f"{mark} {self._step.name}  {seconds:,.1f} s", markup=False, highlight=False, style="dim"
            )
        self._step = None

    def stop(self, *, failed: bool = False) -> None:
        """Leave the terminal to others: a live line would erase what they write. The next step begins anew."""
        self._end("✗" if failed else "✓")
        if self._bar is not None:
            if self._count > 1:
                total = time.perf_counter() - self._began
                self._bar.console.print(f"  {self._count} steps  {total:,.1f} s", highlight=False, style="dim")
            self._bar.stop()
            self._bar = None
        self._count = 0


def say(text: str) -> None:
    """A line to stderr, clean already. That nobody can read it must not end what is being done."""
    with suppress(OSError, ValueError):
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()


def wrapped(text: str) -> str:
    """Each line of a message, at words, where a terminal is to show it; a program gets it as it is."""
    if not sys.stderr.isatty():
        return text
    width = min(shutil.get_terminal_size().columns, 100) - len(" [y/N]: ")
    return "\n".join(
        textwrap.fill(
            line,
            width,
            subsequent_indent="  ",
            break_long_words=False,
            break_on_hyphens=False,
            replace_whitespace=False,
        )
        for line in text.split("\n")
    )


def ci_listens() -> bool:
    """Whether GitHub's runner reads what is printed."""
    return os.environ.get("GITHUB_ACTIONS") == "true"


def command_to_ci(text: str, title: str = "runner", level: str = "error") -> str:
    """A workflow command that annotates the step; nothing of the text ends it or begins another."""
    return f"::{level} title={_escaped(title).replace(':', '%3A').replace(',', '%2C')}::{_escaped(text)}"


def _escaped(text: str) -> str:
    text = "\n".join(map(clean, text.split("\n")))
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
