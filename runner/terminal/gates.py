"""`runner gates`: the gates on committed data, for CI; or the dbt project that plain `dbt build` takes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from runner.terminal.output import escape
from runner.terminal.report import draw_gates
from runner.terminal.verb import Answer, Call, verb

if TYPE_CHECKING:
    from rich.console import Console

    from runner.gates import GateCheck


@verb()
def gates(
    call: Call,
    write: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write a dbt project there instead, for plain `dbt build`.")
    ] = None,
) -> Answer:
    """Judge committed data by the gates of the selected systems and the project's own; exit 3 where one stops."""
    from runner.dbt_root import write_project
    from runner.gates import check

    if write is not None:
        write_project(call.settings, write)
        return Answer({"directory": str(write)}, _draw_written)
    return Answer(check(call.settings, progress=call.progress), draw_check)


def _draw_written(written: dict[str, str], out: Console) -> None:
    folder = written["directory"]
    out.print(
        f"{folder} is a dbt project of what runner.toml selects, for the database that PGHOST … name:", markup=False
    )
    out.print(f"  dbt build --project-dir {folder} --profiles-dir {folder}", markup=False, soft_wrap=True)


def draw_check(found: GateCheck, out: Console) -> None:
    """The gates, the failing rows, and the backfills that none guards."""
    out.print(f"[dim]{escape(found.database)} · PostgreSQL {escape(found.server)}[/]")
    draw_gates(found.gates, out)
    for name in found.unguarded:
        out.print(
            f"[red]no gate guards {escape(name)}[/]: add a dbt test of severity error with the tag {escape(name)}"
        )
    if found.exit_code:
        out.print("\n[bold red]Something does not reconcile.[/]")
    elif found.gates:
        out.print("\n[bold green]Every gate passes.[/]")
    else:
        out.print("\nThere is no gate: no system is selected in runner.toml, and the project has none of its own.")
