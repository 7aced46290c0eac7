"""Where results go: tables and text on a terminal, one JSON object elsewhere.

Every verb's module is loaded by `--help`, which need not wait for rich: here it is imported only where it is used.
"""

from __future__ import annotations

import json
import os
import re
import stat
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

from runner.errors import RunnerError, UsageError
from runner.money import money_lines, money_text, negative
from runner.text import clean, clean_stream, counted, json_text, plain, to_json

if TYPE_CHECKING:
    from rich.console import Console
    from rich.containers import Lines
    from rich.table import Table
    from rich.text import Text

    from runner.result import Change, LeftOut, TableChanges

WIDTH: Final = 100


class NotPrintedError(RunnerError):
    """What was to be seen could not be written to stdout."""


def console(stream: IO[str] | None = None) -> Console:
    """A console no wider than the documented width, also where no terminal says how wide it is."""
    from rich.console import Console as Base
    from rich.segment import Segment

    class Console(Base):
        def render(self, *given: Any, **options: Any) -> Iterable[Segment]:
            # Whatever is drawn passes here, the styles beside the text: no data is a terminal's command.
            for segment in super().render(*given, **options):
                text = segment.text if segment.control else clean_stream(segment.text)
                yield segment if text is segment.text else Segment(text, segment.style)

        def on_broken_pipe(self) -> None:
            # rich would end the process with code 1; the exit code is the verb's, not the reader's.
            reader_left()

    wide = Base(file=stream)
    # Data may hold what rich takes for an emoji's name: it is printed as it is.
    return Console(
        file=stream, highlight=False, emoji=False, width=min(wide.width, WIDTH) if wide.is_terminal else WIDTH
    )


@contextmanager
def printing() -> Iterator[None]:
    """What is written to stdout in the block is there at its end. A reader who has left is no error.

    Raises NotPrintedError where it cannot be written: a full disk, a closed terminal.
    """
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        reader_left()
    except OSError as exc:
        reader_left()  # what is buffered would fail again at the end of the process
        raise NotPrintedError(f"the result could not be written to stdout: {exc.strerror}") from exc


def reader_left() -> None:
    """Whoever read stdout (head, a pager) has seen enough: what is still printed goes nowhere, the work goes on."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def table(*columns: str, rows: Iterable[Iterable[Any]]) -> Table:
    """A plain table; a column whose name begins with `>` is flush right. A cell that is a list has a line for each."""
    from rich.table import Table
    from rich.text import Text

    class Cell(Text):
        def wrap(self, console: Console, width: int, *given: Any, **options: Any) -> Lines:
            # rich would break a name that is too long anywhere.
            lines = "\n".join(broken(line, width) for line in self.plain.split("\n"))
            return Text(lines).wrap(console, width, *given, **options)

    drawn = Table(box=None, pad_edge=False, show_edge=False)
    for name in columns:
        right = name.startswith(">")
        drawn.add_column(Text(clean(name.lstrip(">"))), justify="right" if right else "left", header_style="dim",
                         overflow="fold", no_wrap=right)  # fmt: skip
    for row in rows:
        drawn.add_row(*(
            item if isinstance(item, Text)
            else Cell("\n".join(map(clean, item))) if isinstance(item, list)
            else Cell(clean(str(item)))
            for item in row
        ))  # fmt: skip
    return drawn


def broken(text: str, width: int) -> str:
    """`text` with a line break in each name longer than `width`, after one of its separators where it has any."""
    lines = []
    for word in text.split(" "):
        rest, done = word, ""
        while len(rest) > width and (cut := max(rest.rfind(mark, 0, width) for mark in "._/-")) > 0:
            done, rest = f"{done}{rest[: cut + 1]}\n", rest[cut + 1 :]
        lines.append(done + rest)
    return " ".join(lines)


def styled(text: str, style: str) -> Text:
    """A text in one style, as a cell of a table."""
    from rich.text import Text

    return Text(text, style)


def escape(text: str) -> str:
    """Data within markup: clean, and its brackets are only brackets."""
    from rich.markup import escape as escape_

    return escape_(clean(text))


def escape_lines(texts: Iterable[str]) -> str:
    """Data within markup, a line each."""
    return "\n".join(map(escape, texts))


def change_line(change: Change) -> tuple[str, str, str]:
    """A change as business key, what was done, and its money."""
    if change.operation == "UPDATE" and change.money_before != change.money_after:
        amount = f"{money_text(change.money_before)} → {money_text(change.money_after)}"
    elif change.operation == "DELETE":
        amount = money_text(negative(change.money_before))
    else:
        amount = money_text(change.money_after)
    return clean(change.business_key), change.operation.lower(), clean(amount)


def changes_by_table(tables: Iterable[TableChanges]) -> Table:
    """A line a table that a run wrote."""
    return table("table", ">inserted", ">updated", ">deleted", ">change", rows=(
        (t.table, f"{t.inserted:,}", f"{t.updated:,}", f"{t.deleted:,}", money_lines(t.money)) for t in tables
    ))  # fmt: skip


def draw_left_out(rows: Sequence[LeftOut], count: int, out: Console) -> None:
    """The source rows that a run left out, each with its reason; `count` of them, of which `rows` may be the first."""
    if not count:
        return
    out.print(f"\n[yellow]Left out: {counted(count, 'source row')} that cannot be taken[/]")
    out.print(table("source row", "reason", ">amount", rows=(
        (source_row(row), row.reason, money_text(row.money)) for row in rows
    )))  # fmt: skip
    if count > len(rows):
        out.print(f"[dim]… {counted(count - len(rows), 'more row')}: --all shows every one[/]")


def source_row(row: LeftOut) -> str:
    """Where a person finds it: the file and the line, or the table and the key."""
    return f"{row.source} {row.source_key if row.line is None else f'line {row.line}'}"


def span(names: Sequence[str]) -> str:
    """A few names whole, many as the first and the last."""
    return ", ".join(names) if len(names) <= 3 else f"{names[0]} … {names[-1]} ({len(names)})"


def rows_in(tables: Sequence[TableChanges]) -> int:
    """How many rows a run wrote."""
    return sum(t.inserted + t.updated + t.deleted for t in tables)


class RowSink:
    """Every change of a run, printed at once or, for JSON, kept in a temporary file: memory stays flat."""

    def __init__(self, *, as_json: bool, before_printing: Callable[[], None]) -> None:
        self.file = tempfile.TemporaryFile("w+", encoding="utf-8") if as_json else None  # noqa: SIM115
        self.before_printing = before_printing

    def add(self, change: Change) -> None:
        """Take one change."""
        if self.file is not None:
            self.file.write(json_text(plain(change)) + "\n")
            return
        self.before_printing()
        key, operation, amount = change_line(change)
        # The transaction is open: a reader that has seen enough must not end it.
        try:
            sys.stdout.write(f"{operation}  {key}  {amount}\n")
        except BrokenPipeError:
            reader_left()
        except OSError as exc:
            reader_left()
            raise NotPrintedError(f"the rows could not be written to stdout: {exc.strerror}") from exc


def print_json(result: Any, sink: RowSink | None = None) -> None:
    """One object to stdout; with a sink its rows are the key `changes`."""
    if sink is None or sink.file is None:
        _write_json(to_json(result) + "\n")
        return
    sink.file.seek(0)
    text = to_json({key: value for key, value in plain(result).items() if key != "changes"})
    _write_json(text.removesuffix("\n}") + ',\n  "changes": [')
    for number, line in enumerate(sink.file):
        _write_json(("," if number else "") + "\n    " + line.rstrip("\n"))
    _write_json("\n  ]\n}\n")
    sink.file.close()


def _write_json(text: str) -> None:
    """To stdout; where that is not Unicode, with JSON's own escapes, so that nothing is lost."""
    if not (sys.stdout.encoding or "").lower().startswith("utf"):
        text = re.sub(r"[^\x00-\x7f]", lambda found: json.dumps(found[0])[1:-1], text)
    sys.stdout.write(text)


class OutputFile:
    """A file for a result, opened before the work whose result it is: for its owner alone, unless it is there already.

    Raises UsageError where it cannot be written, RunnerError where the disk is full later.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        flags = os.O_WRONLY | os.O_CLOEXEC | os.O_NONBLOCK  # a FIFO without a reader is an error, no wait
        try:
            try:
                self._file, self._made = os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o600), True
            except FileExistsError:
                self._file, self._made = os.open(path, flags), False
        except OSError as exc:
            raise UsageError(f"{path} cannot be written: {exc.strerror}. Nothing was done; name another file") from exc
        os.set_blocking(self._file, True)

    def write(self, content: bytes) -> None:
        """All of it, in the place of what was there."""
        try:
            with os.fdopen(self._file, "wb") as file:
                self._file = -1
                if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                    file.truncate(0)
                file.write(content)
        except OSError as exc:
            raise RunnerError(f"{self.path} was not written: {exc.strerror}") from exc

    def close(self) -> None:
        """Leave nothing behind where nothing was written."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
            if self._made:
                with suppress(OSError):
                    self.path.unlink()
