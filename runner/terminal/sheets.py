"""The pages of what is no apply: a past run, an undo, a promotion, what rejects stopped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from runner.money import add_money, money_text
from runner.terminal.output import change_line, rows_in
from runner.terminal.page import Section, Sheet, sheet_page, table_rows
from runner.text import counted

if TYPE_CHECKING:
    from runner.approvals import Approvals
    from runner.log import RunDetail
    from runner.promote import Promotion
    from runner.result import Change, LeftOut, Reversal, Rewind, TableChanges

_BY_TABLE = ("table", "inserted", "updated", "deleted", "change")


def run_page(found: RunDetail, listed: Sequence[Change] | None = None, csv: str = "") -> bytes:
    """A past run. `listed`: its rows, else the sample; `csv`: a file of all."""
    run = found.run
    changes = found.changes if listed is None else listed
    what = f"undo of {run.backfill}" if run.mode == "reversal" else run.backfill
    rows = rows_in(run.tables)
    beside = f"; all of them are in {csv}, beside this file" if csv else ""
    ended = f"{run.completed_at:%Y-%m-%d %H:%M:%S %Z}" if run.completed_at else "is still running"
    remarks = [("dim", f"{name}: {value}") for name, value in (("subject", run.subject),) if value]
    if run.reversed_by:
        remarks.append(("bad", f"It was undone by run {run.reversed_by}."))
    if run.reverses:
        remarks.append(("dim", f"It undoes run {run.reverses}."))
    return sheet_page(Sheet(
        title=f"Run {str(run.run_id)[:8]}: {what}",
        headline=run.status[:1].upper() + run.status[1:],
        colour={"succeeded": "green", "reversed": "yellow", "partial": "yellow"}.get(run.status, "red"),
        sentence=f"{counted(rows, 'row')}{_worth(run.tables)} were written by {run.actor}: "
        f"{found.description or what}.",
        where=f"{found.where} · {run.started_at:%Y-%m-%d %H:%M:%S %Z} – {ended}",
        remarks=remarks + _approvals(run.approvals),
        dimensions=found.dimensions,
        left=found,
        sections=[_tables(run.tables)],
        folded=[Section(
            "Rows", f"{len(changes):,} of {counted(rows, 'row')}{beside}", ("table", "row", "what", "amount"),
            [[change.table, *change_line(change)] for change in changes], (3,),
        )],
        signatures=[("digest", run.digest or ""), ("run", str(run.run_id))],
        head=found.head,
    ))  # fmt: skip


def undo_page(found: Reversal | Rewind) -> bytes:
    """An undo, or its rehearsal."""
    each = found.reversals if hasattr(found, "reversals") else (found,)
    tables = [table for reversal in each for table in reversal.tables]
    done = found.verdict == "reversed"
    verb = "was taken back" if done else "would be taken back" if found.verdict == "rehearsed" else "was not taken back"
    names = ", ".join(dict.fromkeys(reversal.backfill for reversal in each))
    return sheet_page(Sheet(
        title=f"Undo of {names}" if names else "Undo",
        headline={"reversed": "Undone and committed.", "rehearsed": "Rehearsed and rolled back: nothing was changed.",
                  "already reversed": "It was undone already: nothing to do."}.get(
                      found.verdict, f"Not undone ({found.verdict}): nothing was changed."),
        colour={"reversed": "green", "rehearsed": "cyan"}.get(found.verdict, "yellow"),
        sentence=f"What {counted(len(each), 'run')} wrote {verb}: {counted(rows_in(tables), 'row')}{_worth(tables)}.",
        where=each[0].where if each else "",
        remarks=[line for reversal in each for line in _approvals(reversal.approvals)],
        dimensions=[dimension for reversal in each for dimension in reversal.dimensions],
        sections=[section for reversal in each for section in (
            _tables(reversal.tables, f"Run {reversal.run_id}"),
            Section("What was found", "Each row that the run wrote, as it is now", ("table", "found", "rows"),
                    [[name, result, f"{count:,}"] for name, result, count in reversal.counts], (2,)),
        )],
        folded=[Section("Rows", "A sample", ("table", "row", "found"),
                        [list(row) for reversal in each for row in reversal.sample])],
        signatures=[
            (f"run {reversal.run_id}", reversal.approvals.signature) for reversal in each if reversal.approvals
        ],
        head=each[-1].chain if each else "",
    ))  # fmt: skip


def promotion_page(found: Promotion) -> bytes:
    """The checklist."""
    red = sum(line.state == "red" for line in found.lines)
    return sheet_page(Sheet(
        title=f"Promotion to {found.stage}",
        headline="Ready." if found.green else "Not ready.",
        colour="green" if found.green else "red",
        sentence=f"{counted(len(found.lines), 'line')} of the checklist were looked at; in the way: {red or 'none'}.",
        where=f"{found.database} · PostgreSQL {found.server} · {found.checked_at.replace('T', ' ')}",
        sections=[
            Section("Checklist", "Each line was proved, not asked.", ("", "line", "what was found"),
                    [[line.state, line.name, [line.message, *line.details]] for line in found.lines]),
            *([Section("Waivers", "Findings that somebody answers for.", ("test", "until", "by", "why"),
                       [[w.test, w.until, w.actor, w.reason] for w in found.waivers])] if found.waivers else []),
        ],
    ))  # fmt: skip


@dataclass(frozen=True, slots=True)
class Stopped:
    """What rejects stopped: the source rows, of which `rejects` there are."""

    backfill: str
    description: str
    rejects: int
    left_out: tuple[LeftOut, ...]


def rejected_page(stopped: Stopped, where: str) -> bytes:
    """An apply that more rejects stopped than were allowed."""
    money = add_money(*(row.money for row in stopped.left_out))
    return sheet_page(Sheet(
        title=f"Backfill {stopped.backfill}",
        headline="Stopped by source rows that cannot be taken: nothing was changed.",
        colour="red", where=where, left=stopped,
        sentence=f"{stopped.description}: nothing was written, since {counted(stopped.rejects, 'source row')} "
        f"cannot be taken{f', worth {money_text(money)}' if money else ''}. Mend them, or allow them to be left out.",
    ))  # fmt: skip


def _worth(tables: Sequence[TableChanges]) -> str:
    money = add_money(*(table.money for table in tables))
    return f" worth {money_text(money)}" if money else ""


def _tables(tables: Sequence[TableChanges], heading: str = "Rows by table") -> Section:
    return Section(heading, "What was written.", _BY_TABLE, table_rows(tables), (1, 2, 3, 4))


def _approvals(found: Approvals | None) -> list[tuple[str, str]]:
    return [] if found is None else [("good" if found.enough else "bad", found.sentence)]
