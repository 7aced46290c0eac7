"""The commands of lending: `runner fetch`, `runner schedules`, `runner ledger`."""

from __future__ import annotations

from datetime import date
from typing import Annotated

import typer

area = typer.Typer()  # before the import below, which mounts it
fetch = typer.Typer(name="fetch", help="Fetch from a service into staging; again is a no-op.", no_args_is_help=True)
schedules = typer.Typer(name="schedules", help="Which schedule belongs to which mortgage.", no_args_is_help=True)
ledger = typer.Typer(name="ledger", help="This ledger and Formance's.", no_args_is_help=True)
for group in (fetch, schedules, ledger):
    area.add_typer(group)

from runner.cli import (  # noqa: E402
    Actor,
    Config,
    DatabaseUrl,
    Debug,
    Json,
    output,
    print_json,
    progress_on_stderr,
    reporting_errors,
    settings_of,
)

Host = Annotated[
    str | None, typer.Option(metavar="NAME", help="production, sandbox, or an address; else runner.toml's.")
]
ScheduleId = Annotated[int, typer.Argument(metavar="SCHEDULE", min=1, help="Rotessa's id of the schedule.")]


@fetch.callback()
def _fetch() -> None:
    """Fetch from a service into staging; again is a no-op."""


@fetch.command()
@reporting_errors
def rotessa(
    date_from: Annotated[str, typer.Option("--from", metavar="DATE", help="First process date; a look-back is added.")],
    date_to: Annotated[str | None, typer.Option("--to", metavar="DATE", help="Last one; default: no end.")] = None,
    host: Host = None,
    allow_rejects: Annotated[int, typer.Option(min=0, metavar="N", help="Rows that may be left out.")] = 0,
    as_json: Json = False,
    database_url: DatabaseUrl = None,
    config: Config = None,
    debug: Debug = False,
) -> None:
    """Customers, schedules and transactions of Rotessa; the token is ROTESSA_TOKEN's."""
    from runner.cli_draw_lending import draw_fetched
    from runner.fetch import fetch_rotessa

    settings = settings_of(database_url, config)
    start, end = day("--from", date_from), day("--to", date_to) if date_to is not None else None
    with progress_on_stderr() as progress:
        found = fetch_rotessa(
            settings, date_from=start, date_to=end, host=host, allow_rejects=allow_rejects, progress=progress
        )
    print_json(found) if as_json else draw_fetched(found, output())
    raise typer.Exit(found.exit_code)


def day(option: str, text: str) -> date:
    """A day as YYYY-MM-DD. Raises UsageError."""
    import re

    from runner.errors import UsageError

    try:
        if not re.fullmatch(r"\d{4}-\d\d-\d\d", text):
            raise ValueError
        return date.fromisoformat(text)
    except ValueError:
        raise UsageError(f"{option} {text}: a day is written YYYY-MM-DD") from None


@schedules.command("list")
@reporting_errors
def list_(
    all_rows: Annotated[bool, typer.Option("--all", help="Show every one, not the first 20 of each side.")] = False,
    as_json: Json = False,
    database_url: DatabaseUrl = None,
    config: Config = None,
    debug: Debug = False,
) -> None:
    """Mortgages without a schedule beside unlinked schedules, with suggestions for people."""
    from runner.cli_draw_lending import draw_unlinked
    from runner.schedules import unlinked

    found = unlinked(settings_of(database_url, config))
    print_json(found) if as_json else draw_unlinked(found, output(), all_rows=all_rows)


@schedules.command()
@reporting_errors
def link(
    schedule: ScheduleId,
    mortgage: Annotated[str, typer.Argument(metavar="MORTGAGE", help="Number or id of the mortgage.")],
    backfill: Annotated[bool, typer.Option("--backfill", help="Then write the payments of its history.")] = False,
    override_mismatch: Annotated[
        str | None, typer.Option(metavar="REASON", help="Why another customer than the borrower is right.")
    ] = None,
    host: Host = None,
    actor: Actor = None,
    as_json: Json = False,
    database_url: DatabaseUrl = None,
    config: Config = None,
    debug: Debug = False,
) -> None:
    """Link a schedule to a mortgage; audited, and taken back by unlink."""
    from runner import schedules as schedules_
    from runner.cli_draw_lending import draw_linked

    with progress_on_stderr() as progress:
        found = schedules_.link(
            settings_of(database_url, config),
            schedule,
            mortgage,
            backfill=backfill,
            override_mismatch=override_mismatch,
            host=host,
            actor=actor,
            progress=progress,
        )
    print_json(found) if as_json else draw_linked(found, output())
    raise typer.Exit(found.exit_code)


@schedules.command()
@reporting_errors
def unlink(
    schedule: ScheduleId,
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Why; kept in the log.")],
    keep_payments: Annotated[
        bool, typer.Option("--keep-payments", help="Its payments stay: another schedule takes its place.")
    ] = False,
    as_json: Json = False,
    database_url: DatabaseUrl = None,
    config: Config = None,
    debug: Debug = False,
) -> None:
    """Take a link back by reversing its run."""
    from runner import schedules as schedules_
    from runner.cli_draw_lending import draw_linked

    found = schedules_.unlink(settings_of(database_url, config), schedule, reason=reason, keep_payments=keep_payments)
    print_json(found) if as_json else draw_linked(found, output())


@ledger.command()
@reporting_errors
def push(
    retry_refused: Annotated[
        bool, typer.Option("--retry-refused", help="Send those again that were refused before.")
    ] = False,
    as_json: Json = False,
    database_url: DatabaseUrl = None,
    config: Config = None,
    debug: Debug = False,
) -> None:
    """Send Formance what it has not confirmed; never posts twice."""
    from runner import push as push_
    from runner.cli_draw_lending import draw_pushed

    settings = settings_of(database_url, config)
    with progress_on_stderr() as progress:
        found = push_.push(settings, retry_refused=retry_refused, progress=progress)
    print_json(found) if as_json else draw_pushed(found, output())
    raise typer.Exit(found.exit_code)


@ledger.command()
@reporting_errors
def verify(
    as_json: Json = False, database_url: DatabaseUrl = None, config: Config = None, debug: Debug = False
) -> None:
    """Compare this ledger with Formance's, both ways; exit 0 only when they are the same."""
    from runner.cli_draw_lending import draw_verified
    from runner.ledger_verify import verify as verify_

    settings = settings_of(database_url, config)
    with progress_on_stderr() as progress:
        found = verify_(settings, progress=progress)
    print_json(found) if as_json else draw_verified(found, output())
    raise typer.Exit(found.exit_code)
