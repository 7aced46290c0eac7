"""`runner demo`: the stories of samples/, told on an embedded PostgreSQL with the real commands.

A story is a text file: `#` narrates, `@ file.sql` runs a file, `sql …` one statement, `$ runner …` a command that
must end with code 0 (`$6` with 6). In a command RUN is the latest run, the name of a backfill in capitals its
latest run that stands, and REPORT a page in the demo's directory.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
from psycopg import sql
from rich.console import Console
from rich.text import Text

from runner import embedded
from runner.database import Connection
from runner.errors import RunnerError
from runner.report import console, table

SAMPLES = Path(__file__).resolve().parent / "samples"
DATABASE = "demo"


class DemoError(RunnerError):
    """A step of the demo did not end as the story says."""


def demo(*, keep: bool = False, directory: Path | None = None) -> None:
    """Tell every story in turn in a fresh database. Raises DemoError where a command ends otherwise than told."""
    out = console()
    with _server(keep, directory) as server:
        out.print(f"[dim]PostgreSQL {server.version} in {server.data}; nothing outside this directory is touched[/]")
        with psycopg.connect(server.url("postgres"), autocommit=True) as conn:
            conn.execute(sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(DATABASE)))
            conn.execute(sql.SQL("create database {}").format(sql.Identifier(DATABASE)))
        url = server.url(DATABASE)
        report = server.data.parent / "report.html"
        for story in sorted(SAMPLES.glob("*/story.txt")):
            _tell(story, url, report, out)
        out.print(f"\n[bold green]That was all.[/] The page for Finance: {report}")
        if keep:
            out.print(f"The server goes on: psql {shlex.quote(url)}")


@contextmanager
def _server(keep: bool, directory: Path | None) -> Iterator[embedded.Server]:
    server = embedded.start(directory / f"pg{embedded.DEFAULT_VERSION}" if directory else None)
    try:
        yield server
    finally:
        if not keep:
            server.stop()


def _tell(story: Path, url: str, report: Path, out: Console) -> None:
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
                ended = _command(conn, shlex.split(rest), url, report, story.parent, out)
                if ended != wanted:
                    raise DemoError(f"{story.parent.name}, line {number}: `{rest}` ended with {ended}, not {wanted}")
            elif line.strip():
                raise DemoError(f"{story}, line {number}: cannot be read: {line}")


def _ask(conn: Connection, query: str, out: Console) -> None:
    out.print(Text(f"sql> {query};", "cyan"))
    cursor = conn.execute(query.encode())
    if cursor.description:
        out.print(
            table(
                *(column.name for column in cursor.description),
                rows=[["" if value is None else value for value in row] for row in cursor.fetchall()],
            )
        )


def _command(
    conn: psycopg.Connection[tuple[object, ...]],
    words: list[str],
    url: str,
    report: Path,
    directory: Path,
    out: Console,
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
    out.print(Text(f"$ {shlex.join(shown)}", "cyan"))
    out.file.flush()
    width = {"COLUMNS": str(out.width)}
    done = subprocess.run(
        [sys.executable, "-m", "runner.cli", *shown[1:]],
        env=_ours() | width | {"DATABASE_URL": url},
        cwd=directory,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    return done.returncode


def _ours() -> dict[str, str]:
    """The environment without keys of services: a story never asks a real one."""
    return {name: value for name, value in os.environ.items() if name not in ("ROTESSA_TOKEN", "FORMANCE_TOKEN")}
