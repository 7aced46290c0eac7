"""The commands around promotion: reconcile, snapshot, waive, promote."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

area = typer.Typer()  # before the import below, which mounts it

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


@area.command()
@reporting_errors
def reconcile(
    ledger: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Finance's ledger; header as docs/sample_ledger_template.csv.")
    ] = None,
    tolerance: Annotated[int, typer.Option(min=0, metavar="CENTS", help="Amounts so close count as equal.")] = 0,
    allow_rejects: Annotated[int, typer.Option(min=0, metavar="N", help="Lines that may be left out.")] = 0,
    junit: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the classes as JUnit XML.")] = None,
    store_failures: Annotated[bool, typer.Option(help="Keep the findings in backfill.comparison_finding.")] = False,
    as_json: Json = False,
    database_url: DatabaseUrl = None,
    config: Config = None,
    debug: Debug = False,
) -> None:
    """Compare invoices with Finance's ledger, both ways, without writing to billing."""
    from runner import reconcile as reconcile_
    from runner.cli_draw_reconcile import draw_reconciliation
    from runner.errors import UsageError

    if ledger is None and (tolerance or allow_rejects or store_failures):
        raise UsageError("--tolerance, --allow-rejects and --store-failures need --ledger FILE")
    with progress_on_stderr() as progress:
        found = reconcile_.reconcile(
            settings_of(database_url, config),
            ledger=ledger,
            tolerance=tolerance,
            allow_rejects=allow_rejects,
            store=store_failures,
            progress=progress,
        )
    if junit is not None:
        write(junit, reconcile_.junit(found))
    print_json(found) if as_json else draw_reconciliation(found, output())
    raise typer.Exit(found.exit_code)


def write(file: Path, content: bytes) -> None:
    """Write a result file. Raises RunnerError where it cannot be."""
    from runner.errors import RunnerError

    try:
        file.write_bytes(content)
    except OSError as exc:
        raise RunnerError(f"{file} was not written: {exc.strerror}") from exc


@area.command()
@reporting_errors
def snapshot(
    directory: Annotated[Path, typer.Option(metavar="DIR", help="Where to write it.")] = Path("snapshots"),
    as_json: Json = False,
    database_url: DatabaseUrl = None,
    config: Config = None,
    debug: Debug = False,
) -> None:
    """Dump the database with pg_dump and record the file's checksum."""
    from runner.report import size
    from runner.snapshot import snapshot as snapshot_

    taken = snapshot_(settings_of(database_url, config), directory=directory)
    if as_json:
        print_json(taken)
    else:
        output().print(f"{taken.file}\n  {size(taken.bytes)}, sha256 {taken.sha256}", soft_wrap=True)


@area.command()
@reporting_errors
def waive(
    test: Annotated[str, typer.Argument(help="A gate, or a backfill whose due rows are waived.")],
    until: Annotated[str, typer.Option(metavar="DATE", help="Last day on which it holds, YYYY-MM-DD.")],
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Why; it is on the sheet that Finance signs.")],
    actor: Actor = None,
    as_json: Json = False,
    database_url: DatabaseUrl = None,
    config: Config = None,
    debug: Debug = False,
) -> None:
    """Let promotion pass a failing gate or due rows until a day; kept for good."""
    from datetime import date

    from runner import gates
    from runner.errors import UsageError
    from runner.promote import waive as waive_

    settings = settings_of(database_url, config)
    try:
        day = date.fromisoformat(until)
    except ValueError as exc:
        raise UsageError(f"--until {until}: a day is written YYYY-MM-DD") from exc
    known = {name for gate in gates.compile(settings) for name in (gate.name, *gate.backfills)}
    if test not in known:
        raise UsageError(f"there is no gate or backfill {test}")
    given = waive_(settings, test, until=day.isoformat(), reason=reason, actor=actor)
    if as_json:
        print_json(given)
    else:
        output().print(f"{given.test} is waived until {given.until} by {given.actor}: {given.reason}", markup=False)


@area.command()
@reporting_errors
def promote(
    stage: Annotated[
        str, typer.Option(metavar="NAME", help="What it is promoted to; named on the sheet.")
    ] = "production",
    sheet: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the sign-off sheet (Markdown).")] = None,
    snapshot_hours: Annotated[int, typer.Option(min=1, metavar="HOURS", help="How old the snapshot may be.")] = 24,
    as_json: Json = False,
    database_url: DatabaseUrl = None,
    config: Config = None,
    debug: Debug = False,
) -> None:
    """Prove the promotion checklist line by line; exit 0 only when none is red."""
    from runner import promote as promote_
    from runner.cli_draw_reconcile import draw_promotion

    settings = settings_of(database_url, config)
    with progress_on_stderr() as progress:
        found = promote_.promote(settings, stage=stage, snapshot_hours=snapshot_hours, progress=progress)
    if sheet is not None:
        write(sheet, promote_.sheet(found).encode())
    print_json(found) if as_json else draw_promotion(found, output())
    raise typer.Exit(found.exit_code)
