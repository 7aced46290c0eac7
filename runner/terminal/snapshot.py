"""`runner snapshot`: a dump of the database, and its checksum written down."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from runner.terminal.verb import Answer, Call, verb
from runner.text import size

if TYPE_CHECKING:
    from rich.console import Console

    from runner.snapshot import Snapshot


@verb()
def snapshot(
    call: Call,
    directory: Annotated[Path, typer.Option(metavar="DIR", help="Where to write it.")] = Path("snapshots"),
) -> Answer:
    """Dump the database with pg_dump and record the file's checksum."""
    from runner.snapshot import snapshot as snapshot_

    return Answer(snapshot_(call.settings, directory=directory), draw_snapshot)


def draw_snapshot(taken: Snapshot, out: Console) -> None:
    """The file, its size and its checksum."""
    out.print(f"{taken.file}\n  {size(taken.bytes)}, sha256 {taken.sha256}", markup=False, soft_wrap=True)
