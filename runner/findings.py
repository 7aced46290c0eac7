"""What `runner doctor` finds: one line each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from runner.database import Connection


@dataclass(frozen=True, slots=True)
class Finding:
    """One line: what was looked at, how it is, and where it is not ok what to do."""

    subject: str
    state: Literal["ok", "warn", "fail"]
    message: str


def one(conn: Connection, query: str, *values: object) -> object:
    """The first column of a query's first row; None where it has none."""
    row = conn.execute(query, values or None).fetchone()
    return row[0] if row else None
