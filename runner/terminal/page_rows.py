"""The rows of a page: as many as it holds, and all of them as CSV beside it where there are more."""

from __future__ import annotations

import csv
import io
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from runner.money import Money, amount, label
from runner.terminal.output import OutputFile
from runner.terminal.page import ROWS
from runner.text import clean

if TYPE_CHECKING:
    from runner.result import Change


class PageRows:
    """Takes each change; memory holds no more than a page does."""

    def __init__(self, path: Path, also: Callable[[Change], None] | None = None) -> None:
        self.path = path.with_name(path.name + ".csv")
        self.file = OutputFile(self.path)
        self.also = also
        self.kept: list[Change] = []
        self.count = 0
        self._all = tempfile.TemporaryFile("w+", encoding="utf-8", newline="")  # noqa: SIM115 - close() does
        self._writer = csv.writer(self._all)
        self._writer.writerow(["table", "row", "operation", "before", "after", "currency"])

    def add(self, change: Change) -> None:
        """Take one change."""
        self.count += 1
        if self.count <= ROWS:
            self.kept.append(change)
        currency = next(iter(change.money_after or change.money_before or {}), "")
        self._writer.writerow([
            cell(change.table), cell(change.business_key), change.operation.lower(), _figure(change.money_before),
            _figure(change.money_after), label(currency) if currency else "",
        ])  # fmt: skip
        if self.also is not None:
            self.also(change)

    def write(self) -> str:
        """Write the file where the page does not hold them all; its name, else nothing."""
        if self.count <= ROWS:
            self.file.close()
            return ""
        self._all.seek(0)
        self.file.write(self._all.read().encode())
        return self.path.name

    def close(self) -> None:
        """Leave nothing open, and nothing behind that was not written."""
        self._all.close()
        self.file.close()


def cell(value: object) -> str:
    """A text for a spreadsheet: what begins as a formula does stands behind an apostrophe."""
    text = clean(str(value))
    return f"'{text}" if text[:1] in ("=", "+", "-", "@") else text


def to_csv(headings: list[str], rows: list[list[str]]) -> bytes:
    """Lines for a spreadsheet; the cells are clean already."""
    text = io.StringIO()
    csv.writer(text).writerows([headings, *rows])
    return text.getvalue().encode()


def _figure(money: Money | None) -> str:
    if not money:
        return ""
    currency, minor = next(iter(money.items()))
    return amount(minor, currency).replace(",", "")
