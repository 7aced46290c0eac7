"""`runner verify …`: is everything that is in the files in the database?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from runner.cli import Config, DatabaseUrl, Debug, Json, output, print_json, reporting_errors, settings_of

if TYPE_CHECKING:
    from runner.verify import Verification

app = typer.Typer(
    name="verify",
    help="Prove, value by value, that files are in the database (exit 0), or list what is not (exit 3).",
    no_args_is_help=True,
)


@app.command("rent-history")
@reporting_errors
def rent_history(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Directory with YYYY_MM_vN.json files.")],
    as_json: Json = False,
    database_url: DatabaseUrl = None,
    config: Config = None,
    debug: Debug = False,
) -> None:
    """Rent calculations: every value in rent.calculation, and what counts in the ledger."""
    from runner.verify import verify_rent_history

    _finish(verify_rent_history(settings_of(database_url, config), directory), as_json=as_json)


@app.command()
@reporting_errors
def electricity(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Text file of bills under `# Provider` headings.")],
    as_json: Json = False,
    database_url: DatabaseUrl = None,
    config: Config = None,
    debug: Debug = False,
) -> None:
    """Electricity bills: every line in rent.electricity_bills."""
    from runner.verify import verify_electricity

    _finish(verify_electricity(settings_of(database_url, config), file), as_json=as_json)


def _finish(result: Verification, *, as_json: bool) -> None:
    from runner.verify import summary

    if as_json:
        print_json(result)
    else:
        out = output()
        for line in summary(result.findings):
            out.print(line, markup=False, soft_wrap=True, highlight=False)
        for name in result.ignored:
            out.print(f"not looked at: {name}", markup=False)
        if result.proved:
            out.print(
                f"All {result.values:,} values of {len(result.files):,} files are in the database. "
                "These files may be deleted.", highlight=False,
            )  # fmt: skip
        else:
            out.print(
                f"{len(result.findings):,} of {result.values:,} values are not proved: keep the files.", highlight=False
            )
    raise typer.Exit(0 if result.proved else 3)
