"""`runner approve`: what a person says to a saved plan, or to a signature."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Literal

from runner import plan_file
from runner.database import connect, transaction
from runner.errors import PlanError, UsageError
from runner.money import Money, add_money
from runner.pinned import place_in_words
from runner.settings import Settings

_DECIDE: Final = {
    True: "select expires_at from backfill.approve(%s, %s, %s::interval)",
    False: "select expires_at from backfill.refuse(%s, %s)",
}


@dataclass(frozen=True, slots=True)
class Decision:
    """What was said: of which signatures (each backfill of a plan has one), by whom, until when it holds."""

    verdict: Literal["shown", "approved", "refused", "declined", "not asked"]
    where: str
    signatures: dict[str, str]
    """By backfill; of a bare signature under an empty name."""
    rows: int
    money: Money | None
    made_at: str
    expires_at: str
    remark: str

    @property
    def kept(self) -> str:
        """What is committed, whatever becomes of the output."""
        return f"It is committed: {self.verdict}" if self.verdict in ("approved", "refused") else ""

    @property
    def exit_code(self) -> int:
        """2 where nobody could be asked."""
        return 2 if self.verdict == "not asked" else 0


def approve(
    settings: Settings, given: str, remark: str, *, approved: bool, confirm: Callable[[Decision], bool]
) -> Decision:
    """Approve, or refuse, what a saved plan writes, or the changes that have a signature.

    Raises PlanError (exit 4) for a plan of another database, one that is over, and one of nothing.
    """
    if not remark.strip():
        raise UsageError("a decision needs a remark: --remark 'seen with Finance, ticket 4711'")
    plan = None if re.fullmatch("[0-9a-f]{64}", given) else plan_file.read(Path(given))
    if plan is not None and not any(planned.rows for planned in plan.backfills):
        raise PlanError(f"{given} is a plan of nothing: no row is written, so there is nothing to say to it")
    with connect(settings, application_name="runner approve") as conn:
        if plan is None:
            shown = Decision("shown", place_in_words(conn), {"": given}, 0, None, "", "", remark)
            valid = "7 days"
        else:
            plan_file.require_database(conn, plan)
            shown = Decision(
                "shown", place_in_words(conn), {item.name: item.signature for item in plan.backfills if item.rows},
                sum(len(item.rows) for item in plan.backfills),
                add_money(*(item.due_money for item in plan.backfills)), plan.made_at, plan.expires_at, remark,
            )  # fmt: skip
            valid = f"{(datetime.fromisoformat(plan.expires_at) - datetime.now(UTC)).total_seconds():.0f} seconds"
        if not confirm(shown):
            return replace(shown, verdict="declined")
        expires = shown.expires_at
        with transaction(conn, settings):
            for signature in shown.signatures.values():
                values = [signature, remark, valid] if approved else [signature, remark]
                row = conn.execute(_DECIDE[approved], values).fetchone()
                expires = row[0].isoformat(timespec="seconds") if row and approved else ""
        return replace(shown, verdict="approved" if approved else "refused", expires_at=expires)
