"""What attempts add up to: control totals over a whole plan, the gate each backfill has by itself, and what differs."""

from __future__ import annotations

from collections.abc import Sequence

from runner.gates import GateResult
from runner.money import add_money
from runner.result import Attempt, BackfillResult, TableTotals
from runner.text import counted


def due_gate(result: BackfillResult) -> GateResult:
    """The gate that every backfill has by itself: when it is through, nothing is due any more."""
    failed = result.due_after > 0
    return GateResult(
        name=f"{result.name}_nothing_left_due",
        severity="error",
        status="fail" if failed else "pass",
        failures=result.due_after,
        rows=[],
        seconds=0.0,
        message=f"still due after the backfill: {counted(result.due_after, 'row')}" if failed else "",
        description=f"A row that {result.name} should write is still due afterwards.",
    )


def totals(results: Sequence[BackfillResult]) -> tuple[TableTotals, ...]:
    """Control totals over the whole plan: the first backfill's before, the last one's after, all changes."""
    merged: dict[str, TableTotals] = {}
    for result in results:
        for entry in result.metrics.get("control_totals", []):
            name = entry["table_name"]
            first = merged.get(name)
            merged[name] = TableTotals(
                table=name,
                rows_before=first.rows_before if first else entry["rows_before"],
                rows_changed=(first.rows_changed if first else 0) + entry["rows_changed"],
                rows_after=entry["rows_after"],
                rows_updated=(first.rows_updated if first else 0) + entry["rows_updated"],
                money_before=first.money_before if first else entry["money_before"],
                money_changed=add_money(first.money_changed if first else None, entry["money_changed"]),
                money_after=entry["money_after"],
                finer=entry["finer"] or 0,
            )
    return tuple(merged.values())


def differences(rehearsal: Attempt, applied: Attempt) -> tuple[str, ...]:
    """What the apply would have written otherwise than the rehearsal showed, in words."""
    found = []
    before = {result.name: result for result in rehearsal.backfills}
    after = {result.name: result for result in applied.backfills}
    for name in dict.fromkeys([*before, *after]):
        one, two = before.get(name), after.get(name)
        if one and two and (one.digest == two.digest or two.taken):
            continue
        rows = f"{counted(one.rows if one else 0, 'row')} in the rehearsal, {two.rows if two else 0:,} in the apply"
        found.append(f"{name}: {rows}; digest {(one.digest if one else 'none')[:12]} became "
                     f"{(two.digest if two else 'none')[:12]}")  # fmt: skip
    found += [f"not in the rehearsal: {misfit}" for misfit in applied.misfits if misfit not in rehearsal.misfits]
    found += [f"only in the rehearsal: {misfit}" for misfit in rehearsal.misfits if misfit not in applied.misfits]
    return tuple(found)
