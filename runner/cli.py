"""The command line: verbs, options, exit codes, printing. Each verb is one call into the module of its name."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ParamSpec, TypeVar

import typer

from runner.errors import RunnerError

if TYPE_CHECKING:  # rich, psycopg and yoyo take longer than --help may
    from rich.console import Console

    from runner.result import Change, Report, Reversal
    from runner.settings import Settings

P = ParamSpec("P")
R = TypeVar("R")

app = typer.Typer(
    help="Rehearse, gate, apply, audit and reverse backfills of money in PostgreSQL.",
    epilog="Exit codes: 0 done or nothing due, 1 error, 2 usage, 3 a gate or reject stopped it, 4 the apply differed "
    "from the rehearsal, 5 no lock or no serialization, 6 reversal refused.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

DatabaseUrl = Annotated[
    str | None,
    typer.Option("--database-url", metavar="URL", help="Database; else DATABASE_URL, runner.toml, libpq's variables."),
]
Config = Annotated[Path | None, typer.Option("--config", metavar="FILE", help="runner.toml to read.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show a traceback with an error.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Do everything, show it, and roll it back.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before applying.")]
AllRows = Annotated[bool, typer.Option("--all", help="Show every row, not a sample of 20.")]
Actor = Annotated[str | None, typer.Option("--actor", metavar="NAME", help="Who it is done for, kept in the log.")]


def main() -> None:
    """The console script."""
    if isinstance(sys.stdout, TextIOWrapper):
        # A terminal that lacks a character must not turn a finished apply into a failure.
        sys.stdout.reconfigure(errors="replace")
    app()


def reporting_errors(command: Callable[P, R]) -> Callable[P, R]:
    """Print an error's chain of causes to stderr and end with its exit code; a traceback only with --debug."""

    @wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except RunnerError as exc:
            if kwargs.get("debug"):
                raise
            _print_error(exc, as_json=bool(kwargs.get("as_json")))
            raise typer.Exit(exc.exit_code) from exc
        except KeyboardInterrupt:
            sys.stderr.write("error: interrupted; nothing of the open transaction was kept\n")
            raise typer.Exit(1) from None
        except BrokenPipeError:
            # The reader (a pager, head) has seen enough; the verb's transaction has ended before printing.
            sys.stderr.close()
            raise typer.Exit(0) from None

    return wrapped


def _print_error(exc: RunnerError, *, as_json: bool) -> None:
    lines = [f"error: {exc}"]
    cause = exc.__cause__
    while cause is not None:
        # The database's own words are in the message already; its notes say which file and statement.
        lines += [f"  {note}" for note in getattr(cause, "__notes__", ())]
        if isinstance(cause, RunnerError | OSError):
            lines.append(f"  because: {cause}")
        cause = cause.__cause__
    sys.stderr.write("\n".join(lines) + "\n")
    if as_json:
        import json

        sys.stdout.write(json.dumps({"error": str(exc), "exit_code": exc.exit_code}, ensure_ascii=False) + "\n")


def settings_of(database_url: str | None, config: Path | None) -> Settings:
    """The settings of a command, from its two common options."""
    from runner.settings import load_settings

    return load_settings(database_url=database_url, config=config)


def output() -> Console:
    """Where results go; messages and progress go to stderr."""
    from runner.report import console

    return console()


@contextmanager
def progress_on_stderr() -> Iterator[Callable[[str], None]]:
    """A step line that shows how long it takes: alive on a terminal, plain lines elsewhere."""
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    err = Console(stderr=True)
    if not err.is_terminal:
        yield lambda step: print(f"… {step}", file=sys.stderr, flush=True)  # noqa: T201
        return
    with Progress(SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn(), console=err,
                  transient=True) as bar:  # fmt: skip
        task = bar.add_task("connecting")

        def step(text: str) -> None:
            bar.reset(task, description=text)

        yield step


def ask(question: str) -> bool:
    """Ask on stderr, so that stdout stays the result; without a terminal the answer is no."""
    if not sys.stdin.isatty():
        sys.stderr.write(f"{question} no (there is no terminal to ask: give --yes)\n")
        return False
    return typer.confirm(question, err=True)


@app.command()
@reporting_errors
def apply(
    backfills: Annotated[list[str] | None, typer.Argument(metavar="[BACKFILL]…", help="Default: all due.")] = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    allow_rejects: Annotated[int, typer.Option(min=0, metavar="N", help="Source rows that may be left out.")] = 0,
    allow_non_transactional: Annotated[
        bool, typer.Option(help="Apply `transactional: false` migrations, which cannot be rehearsed, first.")
    ] = False,
    all_rows: AllRows = False,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the report for Finance as a page.")] = None,
    actor: Actor = None,
    as_json: Json = False,
    database_url: DatabaseUrl = None,
    config: Config = None,
    debug: Debug = False,
) -> None:
    """Rehearse migrations, backfills and gates; then, unless --dry-run, do the same again and commit."""
    from runner import apply as apply_
    from runner.report import draw_findings, draw_report, draw_verdict, write_html

    settings = settings_of(database_url, config)
    out = output()
    with row_sink(all_rows, as_json) as sink, progress_on_stderr() as progress:
        shown: list[Report] = []

        def confirm(report: Report) -> bool:
            if yes:
                return True
            if not as_json:
                draw_findings(report, out, changes=not all_rows)
                shown.append(report)
            return ask("Apply this?")

        plan = apply_.Plan(
            backfills=tuple(backfills or ()),
            dry_run=dry_run,
            allow_rejects=allow_rejects,
            allow_non_transactional=allow_non_transactional,
            actor=actor,
            every_row=sink.add if sink else None,
        )
        report = apply_.apply(settings, plan, confirm=confirm, progress=progress)
    if html is not None:
        try:
            write_html(report, html)
        except OSError as exc:
            # The database's part is over: say both.
            raise RunnerError(f"{report.verdict}, but the page {html} was not written: {exc.strerror}") from exc
    if as_json:
        print_json(report, sink)
    elif report.verdict == "declined" and shown:
        draw_verdict(report, out)
    else:
        draw_report(report, out, changes=not all_rows and not shown)
    raise typer.Exit(report.exit_code)


class RowSink:
    """Every change of a run, printed at once or, for JSON, kept in a temporary file: memory stays flat."""

    def __init__(self, *, as_json: bool) -> None:
        import tempfile

        self.file = tempfile.TemporaryFile("w+", encoding="utf-8") if as_json else None  # noqa: SIM115
        self.count = 0

    def add(self, change: Change) -> None:
        """Take one change."""
        import json

        from runner.report import change_line, plain, reader_left

        if self.file is not None:
            self.file.write(json.dumps(plain(change), ensure_ascii=False) + "\n")
        else:
            key, operation, cents = change_line(change)
            # The transaction is open: a reader that has seen enough must not end it.
            try:
                sys.stdout.write(f"{operation}  {key}  {cents}\n")
            except BrokenPipeError:
                reader_left()
        self.count += 1


@contextmanager
def row_sink(wanted: bool, as_json: bool) -> Iterator[RowSink | None]:
    """A sink for every row where they are wanted."""
    yield RowSink(as_json=as_json) if wanted else None


def print_json(result: Any, sink: RowSink | None = None) -> None:
    """One object to stdout; with a sink its rows are the key `changes`."""
    from runner.report import reader_left, to_json

    try:
        text = to_json(result)
        if sink is None or sink.file is None:
            _write_json(text + "\n")
        else:
            sink.file.seek(0)
            _write_json(text.rstrip()[:-1].rstrip() + ',\n  "changes": [')
            for number, line in enumerate(sink.file):
                _write_json(("," if number else "") + "\n    " + line.rstrip("\n"))
            _write_json("\n  ]\n}\n")
            sink.file.close()
        sys.stdout.flush()
    except BrokenPipeError:
        reader_left()


def _write_json(text: str) -> None:
    """To stdout; where that is not Unicode, with JSON's own escapes, so that nothing is lost."""
    if not (sys.stdout.encoding or "").lower().startswith("utf"):
        import json
        import re

        text = re.sub(r"[^\x00-\x7f]", lambda found: json.dumps(found[0])[1:-1], text)
    sys.stdout.write(text)


@app.command()
@reporting_errors
def status(
    as_json: Json = False, database_url: DatabaseUrl = None, config: Config = None, debug: Debug = False
) -> None:
    """Pending and edited migrations, what is due, the last runs."""
    from runner.cli_draw import draw_status
    from runner.status import status as status_

    result = status_(settings_of(database_url, config))
    print_json(result) if as_json else draw_status(result, output())


@app.command()
@reporting_errors
def log(
    run: Annotated[str | None, typer.Argument(help="A run's id, or the beginning of it.")] = None,
    limit: Annotated[int, typer.Option(min=1, metavar="N", help="How many runs to list.")] = 20,
    all_rows: AllRows = False,
    as_json: Json = False,
    database_url: DatabaseUrl = None,
    config: Config = None,
    debug: Debug = False,
) -> None:
    """The runs; or one run's metrics and its rows by business key."""
    from runner import log as log_
    from runner.cli_draw import draw_run, draw_runs

    settings = settings_of(database_url, config)
    if run is None:
        runs = log_.log(settings, limit=limit)
        print_json({"runs": runs}) if as_json else draw_runs(runs, output())
        return
    with row_sink(all_rows, as_json) as sink:
        detail = log_.log_run(settings, run, every_row=sink.add if sink else None)
    print_json(detail, sink) if as_json else draw_run(detail, output())


@app.command()
@reporting_errors
def rollback(
    run: Annotated[str, typer.Argument(help="A run's id, or the beginning of it.")],
    dry_run: DryRun = False,
    yes: Yes = False,
    actor: Actor = None,
    as_json: Json = False,
    database_url: DatabaseUrl = None,
    config: Config = None,
    debug: Debug = False,
) -> None:
    """Undo a run: try it, show it, and only then do it. Refused where a row is no longer what the run left."""
    from runner import rollback as rollback_
    from runner.cli_draw import draw_reversal

    out = output()

    def confirm(reversal: Reversal) -> bool:
        if yes:
            return True
        if not as_json:
            draw_reversal(reversal, out)
        return ask("Undo this?")

    with progress_on_stderr() as progress:
        result = rollback_.rollback(
            settings_of(database_url, config), run, dry_run=dry_run, confirm=confirm, actor=actor, progress=progress
        )
    print_json(result) if as_json else draw_reversal(result, out)


@app.command()
@reporting_errors
def doctor(
    as_json: Json = False, database_url: DatabaseUrl = None, config: Config = None, debug: Debug = False
) -> None:
    """Server, rights, row security, locks, migrations, dbt, time zone: each line ok or what to do."""
    from runner.cli_draw import draw_checks
    from runner.doctor import doctor as doctor_

    findings = doctor_(settings_of(database_url, config))
    print_json({"findings": findings}) if as_json else draw_checks(findings, output())
    raise typer.Exit(1 if any(finding.state == "fail" for finding in findings) else 0)


@app.command()
@reporting_errors
def demo(
    keep: Annotated[bool, typer.Option("--keep", help="Leave the server running and say how to connect.")] = False,
    directory: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where the server keeps its data; default .demo of the project.")
    ] = None,
    debug: Debug = False,
) -> None:
    """The whole story on an embedded PostgreSQL: rehearse, apply, look, undo."""
    from runner.demo import demo as demo_

    demo_(keep=keep, directory=directory)


def _mount() -> None:
    from runner import cli_lending, cli_load, cli_reconcile, cli_verify

    for area in (cli_load.app, cli_verify.app, cli_reconcile.area, cli_lending.area):
        app.add_typer(area)


if __name__ == "__main__":
    # Under its own name: that is the one which the other files' commands are mounted on.
    from runner import cli

    cli.main()
else:
    _mount()
