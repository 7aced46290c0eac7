"""The command line: every verb under its name. What a verb does and how it looks is in the verb's own module."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from typer.core import TyperGroup

from runner.invoices import terminal as invoices
from runner.lending import terminal as lending
from runner.reconciliation import terminal as reconciliation
from runner.rent import terminal as rent
from runner.terminal import (
    apply,
    approve,
    audit,
    demo,
    doctor,
    gates,
    log,
    migrate,
    promote,
    rejects,
    rollback,
    run_report,
    snapshot,
    status,
    waive,
)
from runner.text import clean_stream, to_json

_UsageError: Any = typer.BadParameter.__mro__[1]  # click's, wherever typer keeps it


class Verbs(TyperGroup):
    """All verbs. A command line with --json that typer itself refuses is an object on stdout, as other errors are."""

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        """Read the options before the verb."""
        as_json = "--json" in args
        try:
            context = super().make_context(info_name, args, parent, **extra)
        except _UsageError as exc:
            _print_usage_error(exc, as_json=as_json)
            raise
        context.meta["as_json"] = as_json
        return context

    def invoke(self, ctx: Any) -> Any:
        """Find the verb, read its options, run it."""
        try:
            return super().invoke(ctx)
        except _UsageError as exc:
            _print_usage_error(exc, as_json=ctx.meta["as_json"])
            raise


def _print_usage_error(exc: Any, *, as_json: bool) -> None:
    if as_json:
        error = {"error": exc.format_message(), "exit_code": exc.exit_code}
        sys.stdout.write(to_json(error) + "\n")


app = typer.Typer(
    cls=Verbs,
    help="Rehearse, gate, apply, audit and reverse backfills of money in PostgreSQL.",
    epilog="Exit codes: 0 done or nothing due, 1 error, 2 usage, 3 a gate, a reject or a missing approval "
    "stopped it, 4 the apply differed from the rehearsal, 5 no lock or no serialization, 6 reversal refused.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def _version(wanted: bool) -> None:
    if wanted:
        import platform
        from importlib.metadata import version

        typer.echo(f"runner {version('backfill-runner')}, Python {platform.python_version()}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Options of the runner itself; they are acted upon as they are read."""


GROUPS: Final = {
    "load": "Load files into staging; loading a file twice is a no-op.",
    "verify": "Prove that files are in the database, or the audit is whole (exit 0), or list what is not (exit 3).",
    "audit": "The audit's images: into files, and back.",
    "fetch": "Fetch from a service into staging; again is a no-op.",
    "schedules": "Which schedule belongs to which mortgage.",
    "ledger": "This ledger and Formance's.",
}

VERBS: Final[dict[str, Callable[..., None]]] = {
    "apply": apply.apply,
    "approve": approve.approve,
    "migrate": migrate.migrate,
    "status": status.status,
    "log": log.log,
    "report": run_report.report,
    "rejects": rejects.rejects,
    "rollback": rollback.rollback,
    "doctor": doctor.doctor,
    "gates": gates.gates,
    "demo": demo.demo,
    "snapshot": snapshot.snapshot,
    "waive": waive.waive,
    "promote": promote.promote,
    "load invoices": invoices.load_invoices,
    "load rent-history": rent.load_rent_history,
    "load electricity": rent.load_electricity,
    "verify rent-history": rent.verify_rent_history,
    "verify electricity": rent.verify_electricity,
    "verify audit": audit.verify_audit,
    "audit export": audit.export_audit,
    "audit restore": audit.restore_audit,
    "statement": invoices.statement,
    "reconcile": reconciliation.reconcile,
    "fetch rotessa": lending.fetch_rotessa,
    "schedules list": lending.list_schedules,
    "schedules link": lending.link,
    "schedules unlink": lending.unlink,
    "ledger push": lending.push,
    "ledger verify": lending.verify_ledger,
}


EXAMPLES: Final[dict[str, tuple[str, str]]] = {
    "apply": ("--dry-run --html report.html --save-plan plan.json", "--plan plan.json"),
    "approve": ("plan.json --remark 'seen with Finance'", "plan.json --refuse --remark 'wrong year'"),
    "migrate": ("--dry-run", "--max-time 10min"),
    "status": ("", "--json"),
    "log": ("", "3f9a2c --all"),
    "report": ("3f9a2c", "3f9a2c --html run.html"),
    "rejects": ("", "invoices --csv rejects.csv"),
    "rollback": ("3f9a2c --dry-run", "--since 3f9a2c --html undo.html"),
    "doctor": ("", "--json"),
    "gates": ("", "--json"),
    "demo": ("", "all --directory /tmp/demo"),
    "snapshot": ("", "--directory /backup"),
    "waive": (
        "payments_without_charge --until 2026-12-31 --reason 'ticket 4711'",
        "invoices --until 2026-12-31 --reason …",
    ),
    "promote": ("--html sheet.html", "--stage staging --sheet sheet.md"),
    "load invoices": ("catalogue.csv --dry-run", "catalogue.csv --lines lines.csv --allow-rejects 3"),
    "load rent-history": ("history/ --dry-run", "history/"),
    "load electricity": ("bills.csv --dry-run", "bills.csv"),
    "verify rent-history": ("history/", "history/ --json"),
    "verify electricity": ("bills.csv", "bills.csv --json"),
    "verify audit": ("", "--anchor 42:9f86d081…"),
    "audit export": ("--before 2025-01-01 --dry-run", "--before 2025-01-01 --directory archive"),
    "audit restore": ("archive/charges.ndjson.gz", "archive/charges.ndjson.gz --actor maria"),
    "statement": ("--to 2024-12-31", "'Hillside Clinic' --from 2024-01-01 --csv hillside.csv"),
    "reconcile": ("--ledger ledger.csv", "--ledger january.csv --as-of 2026-01-31 --html page.html"),
    "fetch rotessa": ("--from 2024-01-01", "--host sandbox"),
    "schedules list": ("", "--json"),
    "schedules link": ("1001 M-17", "1001 M-17 --backfill"),
    "schedules unlink": ("1001 --reason 'another borrower'", "1001 --reason 'a new one' --keep-payments"),
    "ledger push": ("", "--retry-refused"),
    "ledger verify": ("", "--json"),
}
"""Two of each verb, in its --help."""


class Messages(TextIOWrapper):
    """stderr, on which nothing but our own progress on a terminal is a command to that terminal.

    Tracebacks, warnings and whatever a library says pass here. That nobody can read them ends nothing.
    """

    def __init__(self, stream: TextIOWrapper) -> None:
        super().__init__(stream.buffer, encoding=stream.encoding, errors="backslashreplace", write_through=True)
        self.terminal = stream

    def write(self, text: str) -> int:
        """Write what is clean of it."""
        with suppress(OSError):
            super().write(clean_stream(text))
        return len(text)

    def flush(self) -> None:
        """Nothing is kept back."""
        with suppress(OSError, ValueError):
            super().flush()


def main() -> None:
    """The console script."""
    for number in range(3):
        # A standard stream that is closed is where the next connection would be opened, and printed into.
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    nowhere = Path(os.devnull)
    sys.stdout = sys.stdout or nowhere.open("w", encoding="utf-8")
    sys.stderr = sys.stderr or nowhere.open("w", encoding="utf-8")
    if isinstance(sys.stderr, TextIOWrapper):
        sys.stderr = Messages(sys.stderr)
    if isinstance(sys.stdout, TextIOWrapper):
        # A terminal that lacks a character must not turn a finished apply into a failure.
        sys.stdout.reconfigure(errors="replace")
    app()


def _mount() -> None:
    groups = {"": app}
    for name, words in GROUPS.items():
        groups[name] = typer.Typer(help=words, no_args_is_help=True)
        app.add_typer(groups[name], name=name)
    for words, command in VERBS.items():
        group, _, name = words.rpartition(" ")
        examples = "\n".join(["\b", "Examples:", *(f"  runner {words} {rest}".rstrip() for rest in EXAMPLES[words])])
        groups[group].command(name, epilog=examples)(command)


_mount()

if __name__ == "__main__":
    main()
