"""`runner fetch`, `runner schedules` and `runner ledger`: the commands of lending, and how their answers look."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated, Final

import typer

from runner.money import amount
from runner.terminal.output import styled, table
from runner.terminal.verb import Actor, AllowRejects, AllRows, Answer, Call, day, verb
from runner.text import clean, counted

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from runner.lending.compare import Verified
    from runner.lending.fetch import Fetched
    from runner.lending.push import Pushed
    from runner.lending.schedules import Linked, Mortgage, Schedule, Unlinked

Host = Annotated[
    str | None, typer.Option(metavar="NAME", help="production, sandbox, or an address; else runner.toml's.")
]
ScheduleId = Annotated[int, typer.Argument(metavar="SCHEDULE", min=1, help="Rotessa's id of the schedule.")]

_SHORT: Final = {
    "Every Other Week": "2 weeks",
    "Every Other Month": "2 months",
    "Semi-Annually": "6 months",
}
FIRST: Final = 20
SUGGESTED: Final = 3


@verb(system="lending")
def fetch_rotessa(
    call: Call,
    date_from: Annotated[
        str,
        typer.Option(
            "--from", metavar="DATE", help="First process date, YYYY-MM-DD; look_back_days (90) before it are read too."
        ),
    ],
    date_to: Annotated[
        str | None, typer.Option("--to", metavar="DATE", help="Last process date, YYYY-MM-DD; default: no end.")
    ] = None,
    host: Host = None,
    allow_rejects: AllowRejects = 0,
) -> Answer:
    """Customers, schedules and transactions of Rotessa; the token is ROTESSA_TOKEN's."""
    from runner.lending import fetch

    found = fetch.fetch_rotessa(
        call.settings,
        date_from=day("--from", date_from),
        date_to=None if date_to is None else day("--to", date_to),
        host=host,
        allow_rejects=allow_rejects,
        progress=call.progress,
    )
    return Answer(found, draw_fetched)


def draw_fetched(found: Fetched, out: Console) -> None:
    """What was landed, what was not."""
    until = f" to {found.date_to}" if found.date_to else ""
    again = " (going on with one that was broken off)" if found.resumed else ""
    out.print(f"{found.host}: process dates from {found.scan_from}{until}, {found.pages:,} pages{again}", markup=False)
    out.print(table("from Rotessa", ">new", ">changed", ">as before", ">rejected", rows=(
        (t.kind, f"{t.created:,}", f"{t.changed:,}", f"{t.unchanged:,}", f"{t.rejected:,}") for t in found.rows
    )))  # fmt: skip
    for source, key, reason in found.rejects:
        out.print(f"  {clean(source)} {clean(key)}: {clean(reason)}", markup=False)
    if found.rejected > len(found.rejects):
        out.print(f"  … and {found.rejected - len(found.rejects):,} more in backfill.reject, run {found.run_id}")
    if found.mortgages_synced:
        out.print(f"{found.mortgages_synced:,} linked mortgages are in step with their schedules.")
    if found.exit_code:
        out.print(
            f"[bold red]{counted(found.rejected, 'row')} could not be taken; all others are landed.[/] "
            f"Mend them at Rotessa and fetch again, or allow them: --allow-rejects {found.rejected}"
        )
    else:
        out.print("[bold green]Landed.[/]")


@verb(system="lending")
def list_schedules(call: Call, all_rows: AllRows = False) -> Answer:
    """Mortgages without a schedule beside unlinked schedules, with suggestions for people."""
    from runner.lending.schedules import unlinked

    return Answer(unlinked(call.settings), partial(draw_unlinked, all_rows=all_rows))


def draw_unlinked(found: Unlinked, out: Console, *, all_rows: bool = False) -> None:
    """Mortgages on the left, schedules on the right."""
    from rich.table import Table

    if not found.mortgages and not found.schedules:
        out.print("Every mortgage has a schedule, and every schedule a mortgage.")
        return
    limit = None if all_rows else FIRST
    side = Table.grid(padding=(0, 3), expand=False)
    side.add_column()
    side.add_column()
    side.add_row(
        f"[bold]Mortgages without a schedule[/] {len(found.mortgages):,}",
        f"[bold]Unlinked schedules[/] {len(found.schedules):,}",
    )
    side.add_row(_mortgages(found.mortgages[:limit]), _schedules(found.schedules[:limit]))
    out.print(side)
    if not all_rows and max(len(found.mortgages), len(found.schedules)) > FIRST:
        out.print(f"[dim]the first {FIRST} of each side: --all shows every one[/]")
    out.print(
        "= same customer and amount, c same customer, a same amount: suggestions. To link is your decision:\n"
        "  runner schedules link SCHEDULE MORTGAGE [--backfill]",
        markup=False,
    )


def _mortgages(rows: tuple[Mortgage, ...]) -> Table:
    return table("number", "borrower", ">payment", rows=(
        (m.mortgage_number, _cut(m.borrower_name), amount(m.payment_cents)) for m in rows
    ))  # fmt: skip


def _schedules(rows: tuple[Schedule, ...]) -> Table:
    return table("schedule", "customer", ">amount", "when", "mortgage?", rows=(
        (
            str(s.schedule_id), _cut(s.customer_name or f"customer {s.customer_id}"), amount(s.amount_cents), _when(s),
            _suggestions(s),
        )
        for s in rows
    ))  # fmt: skip


def _when(schedule: Schedule) -> Text:
    frequency = _SHORT.get(schedule.frequency, clean(schedule.frequency))
    return styled(f"{frequency}\n{schedule.next_process_date or 'ended'}", "")


def _suggestions(schedule: Schedule) -> Text:
    found = styled("", "")
    for each in schedule.suggestions[:SUGGESTED]:
        mark = "=" if each["exact"] else "c" if each["same_customer"] else "a"
        line_end = "\n" if found else ""
        found.append(f"{line_end}{mark} {clean(str(each['mortgage']))}", "green" if mark == "=" else "")
    return found


def _cut(text: str, length: int = 14) -> str:
    text = clean(text)
    return text if len(text) <= length else text[: length - 1] + "…"


@verb(system="lending")
def link(
    call: Call,
    schedule: ScheduleId,
    mortgage: Annotated[str, typer.Argument(metavar="MORTGAGE", help="Number or id of the mortgage.")],
    backfill: Annotated[bool, typer.Option("--backfill", help="Then write the payments of its history.")] = False,
    override_mismatch: Annotated[
        str | None, typer.Option(metavar="REASON", help="Why another customer than the borrower is right.")
    ] = None,
    host: Host = None,
    actor: Actor = None,
) -> Answer:
    """Link a schedule to a mortgage; audited, and taken back by unlink."""
    from runner.lending import schedules

    found = schedules.link(
        call.settings,
        schedule,
        mortgage,
        backfill=backfill,
        override_mismatch=override_mismatch,
        host=host,
        actor=actor,
        progress=call.progress,
    )
    return Answer(found, draw_linked)


@verb(system="lending")
def unlink(
    call: Call,
    schedule: ScheduleId,
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Why; kept in the log.")],
    keep_payments: Annotated[
        bool, typer.Option("--keep-payments", help="Its payments stay: another schedule takes its place.")
    ] = False,
) -> Answer:
    """Take a link back by reversing its run."""
    from runner.lending import schedules

    return Answer(schedules.unlink(call.settings, schedule, reason=reason, keep_payments=keep_payments), draw_linked)


def draw_linked(found: Linked, out: Console) -> None:
    """A link or its end, and the backfill that came with it."""
    if found.checked == "not asked":
        out.print(
            f"Schedule {found.schedule_id} is no longer linked to mortgage {found.mortgage_number}.", markup=False
        )
        return
    out.print(
        f"Schedule {found.schedule_id} is linked to mortgage {clean(found.mortgage_number)} ({found.status}).",
        markup=False,
    )
    if found.checked == "staged copy only":
        out.print("  ROTESSA_TOKEN is not set: that it exists is known from the staged copy only.")
    done = found.backfill
    if done is None:
        return
    if done.fetched is None:
        out.print("  Its history was not fetched either: the staged copy was used.")
    out.print(
        f"Backfill {done.status}: {done.payments:,} payments, {done.postings:,} postings for payments that were "
        f"already there,\n  {done.chargebacks:,} chargebacks, {amount(done.cents)} in all; {done.failed:,} failed",
        markup=False,
    )
    for error in done.errors[:FIRST]:
        out.print(f"  {error['item']}: {clean(str(error['reason']))}", markup=False)
    out.print(f"  runner log {str(done.run_id)[:8]}; to undo: runner rollback {done.run_id}", markup=False)
    if done.failed:
        out.print("  The others are written. What failed stays due: the same command again takes only that.")


@verb(system="lending")
def push(
    call: Call,
    retry_refused: Annotated[
        bool, typer.Option("--retry-refused", help="Send those again that were refused before.")
    ] = False,
) -> Answer:
    """Send Formance what it has not confirmed; never posts twice."""
    from runner.lending import push as push_

    return Answer(push_.push(call.settings, retry_refused=retry_refused, progress=call.progress), draw_pushed)


def draw_pushed(found: Pushed, out: Console) -> None:
    """What was sent, how the outbox is, what was refused."""
    out.print(f"{found.url}, ledger {found.ledger}", markup=False)
    out.print(
        f"{found.sent:,} sent, {found.confirmed:,} confirmed ({found.found:,} were there already), "
        f"{found.refusals:,} refused"
    )
    if found.outbox:
        out.print(table("outbox", "", ">transactions", ">amount", rows=(
            (row.state, row.code or "", f"{row.transactions:,}", amount(row.cents)) for row in found.outbox
        )))  # fmt: skip
    for item in found.refused:
        out.print(f"  {item.reference}: {item.code} {clean(item.reason)}", markup=False)
    if found.exit_code:
        out.print("[bold red]Not everything was taken.[/] Mend the reason, then: runner ledger push --retry-refused")
    else:
        out.print("[bold green]Everything in this ledger is confirmed.[/]" if found.outbox else "Nothing to push.")


@verb(system="lending")
def verify_ledger(call: Call) -> Answer:
    """Compare this ledger with Formance's, both ways; exit 0 only when they are the same."""
    from runner.lending.compare import verify

    return Answer(verify(call.settings, progress=call.progress), draw_verified)


def draw_verified(found: Verified, out: Console) -> None:
    """Counts of both sides, findings, the verdict."""
    out.print(f"{found.here:,} transactions here, {found.there:,} at {found.url}, ledger {found.ledger}", markup=False)
    if found.counts:
        out.print(table("finding", ">transactions", rows=((name, f"{count:,}") for name, count in found.counts)))
    for item in found.findings:
        out.print(f"  {item.reference or 'no reference'}: {item.finding}: {clean(item.detail)}", markup=False)
    out.print("[bold red]The ledgers differ.[/]" if found.counts else "[bold green]The ledgers are the same.[/]")
