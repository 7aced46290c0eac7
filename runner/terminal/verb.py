"""A verb: one command with the options that all of them have, its errors, its questions, its answer.

    @verb()
    def status(call: Call) -> Answer:
        return Answer(look(call.settings), draw_status)

runner.cli mounts it under its name. What a system of ours brings says so, `@verb(system="lending")`: without the system
it stays in --help, and ends before anything is connected.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import date
from functools import cached_property, partial, wraps
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, ParamSpec, TypeVar, get_type_hints

import typer

from runner.errors import RunnerError, UsageError
from runner.systems import refuse_unselected
from runner.terminal.output import NotPrintedError, OutputFile, RowSink, console, print_json, printing
from runner.terminal.progress import Progress, ci_listens, command_to_ci, say, wrapped
from runner.text import clean, clean_lines, cleaned, to_json

if TYPE_CHECKING:  # rich, psycopg and yoyo take longer than --help may
    from rich.console import Console

    from runner.result import Change
    from runner.settings import Settings
    from runner.terminal.page_rows import PageRows

P = ParamSpec("P")
R = TypeVar("R")

DryRun = Annotated[bool, typer.Option("--dry-run", help="Do everything, show it, and roll it back.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do it without asking.")]
AllRows = Annotated[bool, typer.Option("--all", help="Show every row, not a sample of 20.")]
Actor = Annotated[str | None, typer.Option("--actor", metavar="NAME", help="Who it is done for, kept in the log.")]
AllowRejects = Annotated[int, typer.Option(min=0, metavar="N", help="Source rows that may be left out.")]
AsOf = Annotated[
    str | None,
    typer.Option(
        "--as-of",
        metavar="MOMENT",
        help="Leave out what was not settled before: 2026-11-01, '1 hour ago'.",
        show_default=False,
    ),
]
Debug = Annotated[bool, typer.Option("--debug", help="Show a traceback with an error.")]


@dataclass
class Call:
    """One call of a verb. The fields are the options that every verb has, after its own."""

    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")] = False
    database_url: Annotated[
        str | None,
        typer.Option(
            "--database-url", metavar="URL", help="Database; else DATABASE_URL, runner.toml, libpq's variables."
        ),
    ] = None
    config: Annotated[Path | None, typer.Option("--config", metavar="FILE", help="runner.toml to read.")] = None
    debug: Debug = False
    lock_budget: Annotated[
        str | None,
        typer.Option(
            "--lock-budget", metavar="TIME", help="How long others may wait for a lock of this command; 0: no limit."
        ),
    ] = None
    log_format: Annotated[
        str, typer.Option("--log-format", metavar="FORMAT", help="Progress on stderr: text, or json, a line a step.")
    ] = "text"
    max_time: Annotated[
        str | None, typer.Option("--max-time", metavar="TIME", help="How long all of it may take; 0: no limit.")
    ] = None

    shown = False  # no option: whether confirm() has drawn what was found
    unasked = False  # nor this: whether there was no terminal on which it could ask

    @cached_property
    def settings(self) -> Settings:
        """The settings, read once. Raises ConfigurationError."""
        from runner.settings import duration, limited, load_settings

        settings = load_settings(database_url=self.database_url, config=self.config)
        limits = {}
        for name, given in (("lock_budget", self.lock_budget), ("max_time", self.max_time)):
            if given is not None:
                try:
                    limits[name] = duration(given)
                except ValueError as exc:
                    raise UsageError(f"--{name.replace('_', '-')} {given}: {exc}") from None
        return limited(settings, **limits) if limits else settings

    @cached_property
    def files(self) -> list[OutputFile | PageRows]:
        """The files of this call that are open."""
        return []

    @cached_property
    def out(self) -> Console:
        """Where results go; messages and progress go to stderr."""
        return console()

    @cached_property
    def progress(self) -> Progress:
        """Call it with each step; it leaves the terminal before a question and at the end of the verb."""
        if self.log_format not in ("text", "json"):
            raise UsageError(f"--log-format {self.log_format}: text or json")
        return Progress(as_json=self.log_format == "json")

    def row_sink(self, wanted: bool) -> RowSink | None:
        """Where every row goes, if they are wanted; what is printed finds the terminal free of progress."""
        return RowSink(as_json=self.as_json, before_printing=self.progress.stop) if wanted else None

    def page_rows(self, page: Path | None, also: Callable[[Change], None] | None) -> PageRows | None:
        """What keeps the rows of a page, where one is wanted."""
        if page is None:
            return None
        from runner.terminal.page_rows import PageRows

        rows = PageRows(page, also)
        self.files.append(rows)
        return rows

    def tell(self, lines: Sequence[str]) -> None:
        """Lines for a program that reads along, on stderr: stdout is the result's."""
        self.progress.stop()
        for line in lines:
            say(line)

    def file(self, path: Path | None) -> OutputFile | None:
        """The file of an option, if one is given: opened now, before anything is done, and written by the Answer."""
        if path is None:
            return None
        file = OutputFile(path)
        self.files.append(file)
        return file

    def write_beside(self, file: OutputFile | None, content: Callable[[], bytes]) -> None:
        """Write a file beside an error that is the verb's own: where it cannot be written, stderr says that as well."""
        if file is not None:
            try:
                file.write(content())
            except RunnerError as exc:
                say(f"error: {clean(str(exc))}")

    def confirm(self, question: str, result: R, draw: Callable[[R, Console], None], *, yes: bool) -> bool:
        """Whether it may be done: `yes`, else what a person answers who has seen the result drawn."""
        if yes:
            return True
        self.progress.stop()
        if not self.as_json:
            with printing():
                draw(cleaned(result), self.out)
            self.shown = True
        try:
            answer = ask(question)
        except (KeyboardInterrupt, typer.Abort):
            kept = getattr(result, "kept", "")
            raise RunnerError(
                f"interrupted at the question: nothing {'else ' if kept else ''}was written. {kept}".rstrip()
            ) from None
        self.unasked = answer is None
        return bool(answer)


class Answer:
    """What a verb has found or done, and how it is drawn. Its exit code is the result's, 0 where that has none.

    JSON is one object: a list is `named`, and the rows of a sink become its key `changes`. What is drawn, and what the
    `file` gets by `page` and each of `files` by its own, holds no text of others that is not clean. A result's `kept`
    says what is in the database whatever becomes of the output.
    """

    def __init__(
        self, result: R, draw: Callable[[R, Console], None], *,
        named: str | None = None, rows: RowSink | None = None, exit_code: int | None = None,
        file: OutputFile | None = None, page: Callable[[R], bytes] | None = None,
        files: Sequence[tuple[OutputFile | None, Callable[[R], bytes]]] = (),
    ) -> None:  # fmt: skip
        self.json: Any = result if named is None else {named: result}
        shown = cleaned(result)
        self.draw = partial(draw, shown)
        self.rows = rows
        pages = [*files, (file, page)] if page else files
        self.files = [(into, partial(make, shown)) for into, make in pages if into is not None]
        self.kept: str = getattr(result, "kept", "")
        self.exit_code: int = getattr(result, "exit_code", 0) if exit_code is None else exit_code


def verb(*, system: str | None = None) -> Callable[[Callable[..., Answer]], Callable[..., None]]:
    """Make a command of a function that takes a Call and then the verb's own options."""

    def decorate(command: Callable[..., Answer]) -> Callable[..., None]:
        @wraps(command)
        def run(**given: Any) -> None:
            call = Call(**{name: given.pop(name) for name in _COMMON})
            if system is not None:
                refuse_unselected(system, call.settings.systems)
            try:
                _refuse_halves(given)
                try:
                    answer = command(call, **given)
                except BaseException:
                    call.progress.stop(failed=True)
                    raise
                call.progress.stop()
                raise typer.Exit(_give(call, answer))
            finally:
                for file in call.files:
                    file.close()

        own = _parameters(command)[1:]
        options = [option.replace(kind=Parameter.KEYWORD_ONLY) for option in (*own, *_COMMON.values())]
        run.__annotations__ = {option.name: option.annotation for option in options}
        run.__signature__ = Signature(options)  # type: ignore[attr-defined]
        return reporting_errors(run)

    return decorate


def _give(call: Call, answer: Answer) -> int:
    """Print an answer and write its file, each whatever becomes of the other; the exit code.

    What was done is done: where it cannot be printed, stderr says so, and the code is still that of what was done.
    """
    code = answer.exit_code
    try:
        with printing():
            if call.as_json:
                print_json(answer.json, answer.rows)
            else:
                answer.draw(call.out)
    except NotPrintedError as exc:
        say(f"error: {clean(str(exc))}. {clean(answer.kept)}".rstrip())
        code = code if answer.kept else code or exc.exit_code
    for file, page in answer.files:
        try:
            file.write(page())
        except RunnerError as exc:
            say(f"error: {clean(str(exc))}. {clean(answer.kept)}".rstrip())
            code = code or exc.exit_code
    return code


def _refuse_halves(given: dict[str, Any]) -> None:
    """A text that is not of this locale's characters can be kept nowhere; a file's name may be any bytes."""
    for name, value in given.items():
        for text in value if isinstance(value, list | tuple) else [value]:
            if isinstance(text, str) and any("\ud800" <= character <= "\udfff" for character in text):
                raise UsageError(f"{name.replace('_', '-')} {clean(text)}: not text in this terminal's encoding")


def _parameters(function: Callable[..., Any]) -> list[Parameter]:
    hints = get_type_hints(function, include_extras=True)
    return [item.replace(annotation=hints[item.name]) for item in signature(function).parameters.values()]


_COMMON: Final = {item.name: item for item in _parameters(Call)}


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
        except (KeyboardInterrupt, typer.Abort):  # at a question it is click's own
            what = "interrupted; what was not committed is not kept, `runner log` shows what was"
            _print_error(RunnerError(what), as_json=bool(kwargs.get("as_json")))
            raise typer.Exit(1) from None

    return wrapped


def _print_error(exc: RunnerError, *, as_json: bool) -> None:
    lines = [f"error: {exc}"]

    def add(before: str, words: str) -> None:
        """What was not said above."""
        if not any(words in line for line in lines):
            lines.append(f"  {before}{words}")

    cause = exc.__cause__
    while cause is not None:
        # The database's own words are in the message already; its notes say which file and statement.
        for note in getattr(cause, "__notes__", ()):
            add("", note)
        if isinstance(cause, RunnerError | OSError):
            add("because: ", getattr(cause, "strerror", None) or str(cause))
        cause = cause.__cause__
    say("\n".join(wrapped(clean_lines(line)) for line in lines))
    if ci_listens():
        say(command_to_ci(str(exc)))
    if as_json:
        with suppress(NotPrintedError), printing():
            sys.stdout.write(to_json({"error": str(exc), "exit_code": exc.exit_code}) + "\n")


def ask(question: str) -> bool | None:
    """Ask on stderr, so that stdout stays the result; None where there is no terminal on which to ask."""
    if not sys.stdin.isatty():
        say(f"{clean(question)} Nobody was asked (no terminal): give --yes")
        return None
    forget_typed_ahead()
    return typer.confirm(wrapped(clean(question)), err=True)


def forget_typed_ahead() -> None:
    """What was typed before the question was there is no answer to it."""
    try:
        import termios
    except ImportError:  # no POSIX terminal
        return
    termios.tcflush(sys.stdin, termios.TCIFLUSH)


def day(option: str, text: str) -> date:
    """A day as YYYY-MM-DD. Raises UsageError naming the option."""
    try:
        if not re.fullmatch(r"\d{4}-\d\d-\d\d", text):
            raise ValueError
        return date.fromisoformat(text)
    except ValueError:
        raise UsageError(f"{option} {text}: a day is written YYYY-MM-DD") from None
