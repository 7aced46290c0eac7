"""What a run needs under backfill.policy, and has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from runner.database import Connection
from runner.errors import UsageError
from runner.money import Money, add_money, money_text
from runner.text import counted


@dataclass(frozen=True, slots=True)
class Word:
    """What one login said, and when."""

    login: str
    at: str
    approved: bool
    remark: str


@dataclass(frozen=True, slots=True)
class Approvals:
    """What a run needs, under the policies that it comes under, and has; `gross` is what those policies look at."""

    signature: str
    gross: Money
    needed: int
    given: int
    words: tuple[Word, ...]

    @property
    def refused(self) -> Word | None:
        """The newest refusal that stands."""
        return next((word for word in reversed(self.words) if not word.approved), None)

    @property
    def enough(self) -> bool:
        """Whether it may be committed."""
        return self.refused is None and self.given >= self.needed

    @property
    def sentence(self) -> str:
        """How it stands, in words."""
        if (word := self.refused) is not None:
            return f"refused by {word.login}: {word.remark}"
        needs = f"gross {money_text(self.gross)}: needs {counted(self.needed, 'approval')} by other logins"
        names = ", ".join(f"{word.login} ({word.remark})" for word in self.words)
        return f"{needs}, has {self.given}{f': {names}' if names else ''}"


def of(metrics: Mapping[str, Any]) -> Approvals | None:
    """What the metrics of a run say of it; None where nobody was to be asked."""
    found = metrics.get("approvals")
    if not found:
        return None
    return Approvals(
        found["signature"], add_money(found["gross"]) or {}, found["needed"], found["given"],
        tuple(Word(word["login"], word["at"], word["approved"], word["remark"]) for word in found["words"]),
    )  # fmt: skip


def with_words(found: Approvals, words: Sequence[Mapping[str, Any]]) -> Approvals:
    """The same with the approvals that a run was committed with."""
    said = tuple(Word(word["login"], word["at"], word["approved"], word["remark"]) for word in words)
    return replace(found, words=said, given=len(said))


def require_taken_may_pass(conn: Connection, backfills: Sequence[str]) -> None:
    """Refuse --accept-taken (UsageError) where a policy does not let an apply leave rows to others."""
    for name in backfills:
        if conn.execute("select backfill.taken_may_pass(%s)", [name]).fetchone() == (False,):
            raise UsageError(
                f"--accept-taken: backfill.policy does not let {name} leave rows to others. Nothing was written. "
                "Rehearse again, and have that approved"
            )
