"""Files that others made, opened as what they must be: ordinary files, of lines that fit into memory."""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from runner.errors import UsageError

LONGEST_LINE: Final = 1 << 20
"""Characters. A longer line means that line ends were lost; reading all of it would cost three times its length."""

_KINDS: Final = (
    (stat.S_ISLNK, "a link"), (stat.S_ISFIFO, "a FIFO"), (stat.S_ISDIR, "a directory"), (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"), (stat.S_ISBLK, "a device"),
)  # fmt: skip


class NotAFileError(OSError):
    """Something that reading would wait for, never end, or take from elsewhere."""

    def __init__(self, kind: str) -> None:
        super().__init__(None, f"it is {kind}, not a file")


@contextmanager
def opened(path: Path, *, links: bool = True) -> Iterator[io.BufferedReader]:
    """An ordinary file, to be read; without `links` the name itself must be one. Raises OSError, else never waits.

    What was looked at is what is read, whatever is put in its place meanwhile.
    """
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | (0 if links else os.O_NOFOLLOW)
    try:
        file = os.open(path, flags)
    except OSError:
        if fault := kind(path, links=links):
            raise NotAFileError(fault) from None
        raise
    with os.fdopen(file, "rb") as stream:
        mode = os.fstat(file).st_mode
        if not stat.S_ISREG(mode):
            raise NotAFileError(_kind(mode))
        yield stream


def kind(path: Path, *, links: bool = True) -> str:
    """What stands under a name that is no ordinary file; empty for a file, and where nothing is."""
    try:
        mode = (path.stat() if links else path.lstat()).st_mode
    except OSError:
        return ""
    return "" if stat.S_ISREG(mode) else _kind(mode)


def text_lines(path: Path, stream: io.BufferedReader) -> Iterator[str]:
    """The lines of a file in UTF-8, as they are, without a byte order mark. Raises UsageError at one without end."""
    number = 1
    with io.TextIOWrapper(stream, encoding="utf-8-sig", newline="") as text:
        while line := text.readline(LONGEST_LINE + 1):
            if len(line) > LONGEST_LINE:
                raise UsageError(
                    f"{path} line {number} is longer than {LONGEST_LINE:,} characters: its line ends were lost, or it "
                    "is another file"
                )
            yield line
            number += 1


def _kind(mode: int) -> str:
    return next((words for is_kind, words in _KINDS if is_kind(mode)), "something else")
