"""`runner demo`: the systems' stories, told on an embedded PostgreSQL with the real commands.

Each is told in a copy of its sample, with a runner.toml that chooses the systems which are told.

A story is a text file: `#` narrates, `@ file.sql` runs a file, `sql …` one statement, `$ runner …` a command that
must end with code 0 (`$6` with 6). In a command RUN is the latest run, the name of a backfill in capitals its
latest run that stands, and REPORT a page in the demo's directory.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from runner.errors import RunnerError, UsageError
from runner.systems import REQUIRES, SYSTEMS, sample
from runner.terminal.output import console, styled, table
from runner.terminal.verb import Debug, reporting_errors

if TYPE_CHECKING:
    from rich.console import Console

    from runner import embedded
    from runner.database import Connection

DATABASE = "demo"
HEAD, TAIL = 5, 4
"""Lines of what a command prints that a story shows, from its beginning and its end."""
_NOT_OURS = ("ROTESSA_TOKEN", "FORMANCE_TOKEN", "RUNNER_CONFIG")


class DemoError(RunnerError):
    """A step of the demo did not end as the story says."""


@reporting_errors
def demo(
    systems: Annotated[
        list[str] | None,
        typer.Argument(metavar="SYSTEM", help="Whose story: systems, or all; default: charges."),
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the server running and say how to connect.")] = False,
    directory: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where the server keeps its data; default ./.demo.")
    ] = None,
    full: Annotated[
        bool, typer.Option("--full", help="All that the commands print, not its beginning and end.")
    ] = False,
    debug: Debug = False,  # noqa: ARG001 - reporting_errors reads it
) -> None:
    """The story of a system on an embedded PostgreSQL: rehearse, apply, look, undo."""
    import psycopg
    from psycopg import sql

    told = _told(systems or [])
    out = console()
    with _server(keep, directory) as server:
        out.print(
            f"[dim]PostgreSQL {server.version} in {server.data}; "
            f"nothing outside {server.data.parent} is touched, but for a cache[/]"
        )
        with psycopg.connect(server.url("postgres"), autocommit=True) as conn:
            conn.execute(sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(DATABASE)))
            conn.execute(sql.SQL("create database {}").format(sql.Identifier(DATABASE)))
        url = server.url(DATABASE)
        report = server.data.parent / "report.html"
        for system in told:
            _tell(_copied(system, told, server.data.parent) / "story.txt", url, report, full, out)
        out.print(f"\n[bold green]That was all.[/] The page for Finance: {report}")
        if keep:
            out.print(f"The server goes on: psql {shlex.quote(url)}")
            out.print(
                f"To stop it: kill -INT $(head -1 {shlex.quote(str(server.data / 'postmaster.pid'))})", soft_wrap=True
            )


def _told(names: list[str]) -> list[str]:
    """The systems whose stories are told, in the order of their bands. Raises UsageError for an unknown name."""
    unknown = [name for name in names if name not in (*SYSTEMS, "all")]
    if unknown:
        raise UsageError(f"there is no story of {unknown[0]}; there are {', '.join(SYSTEMS)}, and all")
    wanted = SYSTEMS if "all" in names else names or ["charges"]
    return [name for name in SYSTEMS if name in wanted]


def _copied(system: str, told: list[str], directory: Path) -> Path:
    """A copy of the system's sample below `directory`, whose runner.toml chooses what is told and what that needs."""
    folder = directory / system
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(sample(system), folder)
    needed = {*told, *(other for name in told for other in REQUIRES[name])}
    chosen = ", ".join(f'"{name}"' for name in SYSTEMS if name in needed)
    file = folder / "runner.toml"
    own = file.read_text(encoding="utf-8") if file.is_file() else ""
    file.write_text(f"systems = [{chosen}]\n\n{own}", encoding="utf-8")
    return folder


@contextmanager
def _server(keep: bool, directory: Path | None) -> Iterator[embedded.Server]:
    from runner import embedded

    server = embedded.start(directory / f"pg{embedded.DEFAULT_VERSION}" if directory else None)
    try:
        yield server
    finally:
        if not keep:
            server.stop()


def _tell(story: Path, url: str, report: Path, full: bool, out: Console) -> None:
    """One story. Raises DemoError where a command ends otherwise than told."""
    import psycopg

    with psycopg.connect(url, autocommit=True) as conn:
        for number, line in enumerate(story.read_text(encoding="utf-8").splitlines(), start=1):
            mark, _, rest = line.partition(" ")
            if mark == "#":
                out.print(f"\n[bold]{rest}[/]")
            elif mark == "@":
                conn.execute((story.parent / rest).read_bytes())
            elif mark == "sql":
                _ask(conn, rest, out)
            elif mark.startswith("$"):
                wanted = int(mark[1:] or 0)
                ended = _command(conn, shlex.split(rest), url, report, story.parent, full, out)
                if ended != wanted:
                    raise DemoError(f"{story.parent.name}, line {number}: `{rest}` ended with {ended}, not {wanted}")
            elif line.strip():
                raise DemoError(f"{story}, line {number}: cannot be read: {line}")


def _ask(conn: Connection, query: str, out: Console) -> None:
    out.print(styled(f"sql> {query};", "cyan"))
    cursor = conn.execute(query.encode())
    if cursor.description:
        out.print(
            table(
                *(column.name for column in cursor.description),
                rows=[["" if value is None else value for value in row] for row in cursor.fetchall()],
            )
        )


def _command(
    conn: Connection, words: list[str], url: str, report: Path, directory: Path, full: bool, out: Console
) -> int:
    runs = conn.execute("select to_regclass('backfill.backfill_log') is not null").fetchone()
    names = {"REPORT": str(report)}
    if runs and runs[0]:
        latest = conn.execute(
            "select upper(backfill), run_id::text from backfill.backfill_log"
            " where mode <> 'reversal' and status <> 'reversed' order by started_at"
        ).fetchall()
        names |= {str(name): str(run) for name, run in latest}
        if latest:
            names["RUN"] = str(latest[-1][1])
    shown = [names.get(word, word) for word in words]
    out.print(styled(f"$ {shlex.join(shown)}", "cyan"))
    out.file.flush()
    width = {"COLUMNS": str(out.width)}
    colours = {"FORCE_COLOR": "1"} if out.is_terminal else {}
    done = subprocess.run(
        [sys.executable, "-m", "runner", *shown[1:]],
        env=_ours() | width | colours | {"DATABASE_URL": url},
        cwd=directory,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    for line in _told_of(done.stdout.rstrip().splitlines(), full):
        out.file.write(f"{line}\n")
    # Its progress is of no interest once it is over.
    for line in done.stderr.splitlines():
        if not line.startswith("… "):
            said = textwrap.fill(line, out.width, subsequent_indent="  ", break_on_hyphens=False)
            out.file.write(f"{said}\n")
    out.file.flush()
    return done.returncode


def _told_of(lines: list[str], full: bool) -> list[str]:
    """What a command printed: its beginning and its end, where a story is to stay one."""
    left = len(lines) - HEAD - TAIL
    if full or left < 2:
        return lines
    return [*lines[:HEAD], f"  … {left} more lines: runner demo --full", *lines[-TAIL:]]


def _ours() -> dict[str, str]:
    """The environment without keys of services, since a story never asks a real one, and without another's settings."""
    return {name: value for name, value in os.environ.items() if name not in _NOT_OURS}
