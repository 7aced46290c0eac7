"""Files kept from one start to the next, in the user's own cache: used only where nobody else can have written them."""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

_OTHERS_MAY_WRITE: Final = stat.S_IWGRP | stat.S_IWOTH
_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW


def read(folder: str, name: str) -> str | None:
    """The text that was kept under this name; None where there is none, or where others could have put it there."""
    try:
        with _opened(folder) as directory:
            file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=directory)
            with os.fdopen(file, encoding="utf-8") as stream:
                _refuse_foreign(file, name)
                return stream.read()
    except (OSError, UnicodeDecodeError):
        return None


def write(folder: str, name: str, text: str) -> str | None:
    """Keep a text, whole or not at all, also beside another runner. A cache that cannot be used only costs time.

    Returns why it cannot.
    """
    try:
        _base().mkdir(parents=True, exist_ok=True)
        for directory in _folders(folder):
            directory.mkdir(mode=0o700, exist_ok=True)
        with _opened(folder) as opened:
            part = f".{name}.{secrets.token_hex(8)}"
            file = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=opened)
            try:
                with os.fdopen(file, "w", encoding="utf-8") as stream:
                    stream.write(text)
                # What is there already, be it a link or a file that others may write, is replaced, not written through.
                os.rename(part, name, src_dir_fd=opened, dst_dir_fd=opened)
            except OSError:
                os.unlink(part, dir_fd=opened)
                raise
    except OSError as exc:
        return fault(folder) or f"{_folders(folder)[-1]}: {exc.strerror}"
    return None


def fault(folder: str) -> str | None:
    """Why nothing can be kept in this folder of the cache; None where it can, or where it can be made."""
    try:
        with _opened(folder):
            return None
    except FileNotFoundError:
        inner = _folders(folder)[-1]
        above = next(path for path in inner.parents if path.exists())
        return None if os.access(above, os.W_OK | os.X_OK) else f"{above}: Permission denied"
    except OSError as exc:
        return f"{_folders(folder)[-1]}: {exc.strerror}"


def _base() -> Path:
    base = os.environ.get("XDG_CACHE_HOME")
    return Path(base) if base else Path("~/.cache").expanduser()


def _folders(folder: str) -> tuple[Path, Path]:
    home = _base() / "backfill-runner"
    return home, home / folder


@contextmanager
def _opened(folder: str) -> Iterator[int]:
    """The folder as a descriptor: what was looked at is what is used, whatever is renamed meanwhile."""
    home, inner = _folders(folder)
    outer = os.open(home, _FOLDER)
    try:
        _refuse_foreign(outer, home.name)
        directory = os.open(inner.name, _FOLDER, dir_fd=outer)
    finally:
        os.close(outer)
    try:
        _refuse_foreign(directory, inner.name)
        yield directory
    finally:
        os.close(directory)


def _refuse_foreign(descriptor: int, name: str) -> None:
    status = os.fstat(descriptor)
    if status.st_uid != os.geteuid():
        raise PermissionError(None, f"{name} belongs to another user")
    if status.st_mode & _OTHERS_MAY_WRITE:
        raise PermissionError(None, f"others may write {name}")
