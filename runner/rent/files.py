"""The files of rent as bytes and as text: what is wrong with one as a whole is the reason why it is rejected."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from runner.files import opened

LARGEST: Final = 1 << 20
"""Bytes. A calculation has one kilobyte, and this is room for 50,000 bills."""


class BadFileError(ValueError):
    """A file that cannot be taken as a whole; the message is the reason."""


def read(path: Path) -> bytes:
    """At most one byte more than a file may have, so that a huge one costs nothing. Raises OSError."""
    with opened(path) as file:
        return file.read(LARGEST + 1)


def decoded(content: bytes) -> str:
    """The text, without a byte order mark. Raises BadFileError."""
    if len(content) > LARGEST:
        raise BadFileError(f"is larger than {LARGEST:,} bytes")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        raise BadFileError(f"is not UTF-8 (byte {exc.start + 1:,})") from exc
