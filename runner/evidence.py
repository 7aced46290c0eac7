"""The evidence: is the chain whole, and is the engine what its migrations made? Exports of images, and back.

What is exported is removed only after the file, on disk and read again, has been shown to hold what the chain says.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import re
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Final
from uuid import UUID

from psycopg.errors import Diagnostic

from runner import migration_files
from runner.database import Connection, connect, locked_transaction, transaction
from runner.errors import RunnerError, SqlError
from runner.pinned import place
from runner.proof import Proof
from runner.runs import chain_head
from runner.settings import Settings
from runner.systems import Sources

_CHUNK: Final = 8 << 20
"""Characters of lines that are sent to the server at once; a line, a pack, may be longer."""

_BODIES: Final = """
    select p.proname, p.oid::regprocedure::text, p.prosrc
    from pg_proc as p join pg_language as l on l.oid = p.prolang
    where p.pronamespace = 'backfill'::regnamespace and l.lanname in ('sql', 'plpgsql') and p.prosrc <> ''
        and p.proname <> 'written_tables'
    order by 2
"""


@dataclass(frozen=True, slots=True)
class Wrong:
    """What does not hold: of a link, of a run, or of the engine."""

    link: int | None
    run_id: UUID | None
    wrong: str


@dataclass(frozen=True, slots=True)
class Verification:
    """What `runner verify audit` found. `head` is the anchor to keep, N:hash; `anchored` whether one was given."""

    database: str
    server: str
    checked_at: str
    head: str
    links: int
    runs: int
    anchored: bool
    findings: tuple[Wrong, ...]

    @property
    def exit_code(self) -> int:
        """3 where anything does not hold."""
        return 3 if self.findings else 0


def verify(settings: Settings, anchor: str | None = None) -> Verification:
    """Recompute the chain, and compare the engine with its seals and with the migrations of this runner.

    Writes nothing. Raises SqlError BF009 for an anchor that is no hash.
    """
    with connect(settings, application_name="runner verify") as conn:
        with transaction(conn, settings):
            rows = conn.execute("select link, run_id, wrong from backfill.verify_chain(%s)", [anchor]).fetchall()
            found = [Wrong(*row) for row in rows]
            found += [Wrong(None, None, words) for words in _foreign_bodies(conn, settings.sources)]
            head, links, runs = conn.execute(
                "select coalesce(backfill.chain_head(), ''), count(*), count(*) filter (where kind = 'run')"
                " from backfill.chain"
            ).fetchone() or ("", 0, 0)
            conn.rollback()
        return Verification(
            place(conn), conn.info.parameter_status("server_version") or "",
            datetime.now(UTC).isoformat(timespec="seconds"), head, links, runs, anchor is not None, tuple(found),
        )  # fmt: skip


def _foreign_bodies(conn: Connection, sources: Sources) -> Iterator[str]:
    """Functions of the engine whose body no migration of this runner holds: a seal could have been renewed for them."""
    texts: dict[str, list[str]] = {}
    for migration in migration_files.read(Sources((*sources.folders, *sources.others))):
        for statement in migration.statements:
            named = re.match(
                r"(?:\s|--[^\n]*\n)*create\s+(?:or\s+replace\s+)?function\s+backfill\.(\w+)", statement, re.IGNORECASE
            )
            if named:
                texts.setdefault(named[1].lower(), []).append(statement)
    for name, signature, body in conn.execute(_BODIES).fetchall():
        if not any(body in text for text in texts.get(name, ())):
            yield f"function {signature} has a body that is in no migration of this runner"


@dataclass(frozen=True, slots=True)
class Exported:
    """A run whose images are to be exported, or were: then `file` holds them."""

    run_id: UUID
    backfill: str
    completed_at: datetime
    packs: int
    rows: int
    file: str = ""
    sha256: str = ""
    bytes: int = 0


@dataclass(frozen=True, slots=True)
class Export:
    """What `runner audit export` found or did; `head` is the chain's afterwards."""

    verdict: str
    before: str
    runs: tuple[Exported, ...]
    head: str = ""

    @property
    def exit_code(self) -> int:
        """2 where nobody could be asked."""
        return 2 if self.verdict == "not asked" else 0


def export(
    settings: Settings, before: date, directory: Path, *,
    dry_run: bool, confirm: Callable[[Export], bool], progress: Callable[[str], None], actor: str | None = None,
) -> Export:  # fmt: skip
    """Write the images of runs that ended before a day (UTC) to a file each, and remove them here.

    Each run is a transaction of its own: what was exported stays exported where a later one fails. Raises RunnerError
    where a file cannot be written, and SqlError BF018, with the images still here, where it does not hold them.
    """
    moment = datetime(before.year, before.month, before.day, tzinfo=UTC)
    with connect(settings, application_name="runner audit export") as conn:
        with transaction(conn, settings):
            query = "select run_id, backfill, completed_at, packs, row_count from backfill.exportable_runs(%s)"
            runs = tuple(Exported(*row) for row in conn.execute(query, [moment]).fetchall())
        found = Export("nothing to export" if not runs else "listed", before.isoformat(), runs)
        if not runs or dry_run:
            return found
        if not confirm(found):
            return Export("declined", found.before, runs)
        done = []
        for run in runs:
            progress(f"exporting run {run.run_id} ({run.backfill}), {run.rows:,} rows")
            with locked_transaction(conn, settings) as proof:
                done.append(_export_one(proof, run, directory, actor))
        with transaction(conn, settings):
            head = chain_head(conn)
        return Export("exported", found.before, tuple(done), head)


def _export_one(proof: Proof, run: Exported, directory: Path, actor: str | None) -> Exported:
    file = directory.resolve() / f"{run.completed_at.astimezone(UTC):%Y%m%d}-{run.run_id}.jsonl.gz"
    with proof.conn.cursor(name="export") as cursor:
        cursor.itersize = 16  # a pack is a thousand rows
        cursor.execute("select line from backfill.export_lines(%s) as line", [run.run_id])
        _write(file, (row[0] for row in cursor))
    # From here on it is the file that counts, as it lies on the disk.
    sha256 = checksum(file)
    _take(proof.conn, file)
    proof.conn.execute("select backfill.export_run(%s, %s, %s, %s)", [run.run_id, file.name, sha256, actor])
    return Exported(
        run.run_id, run.backfill, run.completed_at, run.packs, run.rows, str(file), sha256, file.stat().st_size
    )


def _write(file: Path, lines: Iterator[str]) -> None:
    """A gzip file of lines that has its name only when it is whole and on disk; for its owner alone.

    One of that name that is there already stays, and must hold the same.
    """
    part = file.with_name(f".{file.name}.{os.getpid()}.part")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        part.unlink(missing_ok=True)
        try:
            with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as raw:
                # Without time and name: the same lines are the same bytes.
                with gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0) as zipped:
                    for line in lines:
                        zipped.write(line.encode() + b"\n")
                raw.flush()
                os.fsync(raw.fileno())
            if file.exists():
                if checksum(file) != checksum(part):
                    raise RunnerError(f"{file} is there and holds something else: move it away. Nothing was removed")
            else:
                part.rename(file)
            directory = os.open(file.parent, os.O_RDONLY)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)
        finally:
            part.unlink(missing_ok=True)
    except OSError as exc:
        raise RunnerError(f"{file} cannot be written: {exc.strerror}. Nothing was removed") from exc


@dataclass(frozen=True, slots=True)
class Restored:
    """A run whose images are back; `warnings` are the server's, e.g. of values that were erased since."""

    run_id: UUID
    backfill: str
    file: str
    sha256: str
    head: str
    warnings: tuple[str, ...]


def restore(settings: Settings, file: Path, *, actor: str | None = None) -> Restored:
    """Bring the images of an exported run back from its file. Raises SqlError BF018 for any other file."""
    try:
        sha256 = checksum(file)
    except OSError as exc:
        raise RunnerError(f"{file} cannot be read: {exc.strerror}") from exc
    warnings: list[str] = []

    def keep(notice: Diagnostic) -> None:
        if notice.severity_nonlocalized == "WARNING":
            warnings.append(notice.message_primary or "")

    with connect(settings, application_name="runner audit restore") as conn:
        conn.add_notice_handler(keep)
        with locked_transaction(conn, settings):
            # Before it is unpacked: only a file that was written from here is.
            query = "select 1 from backfill.chain where kind = 'export' and detail ->> 'sha256' = %s"
            if conn.execute(query, [sha256]).fetchone() is None:
                raise SqlError("BF018", f"no run of this database was exported to {file}: its sha256 is {sha256}")
            _take(conn, file)
            row = conn.execute(
                "select c.run_id, l.backfill, c.link || ':' || c.hash from backfill.restore_run(%s, %s) as c"
                " join backfill.backfill_log as l on l.run_id = c.run_id", [sha256, actor],
            ).fetchone()  # fmt: skip
            assert row is not None  # noqa: S101 - a function call returns a row
    run_id, backfill, head = row
    return Restored(run_id, backfill, str(file), sha256, head, tuple(warnings))


def _take(conn: Connection, file: Path) -> None:
    """Send the lines of a file to the server, some at once. Raises RunnerError where it is no whole gzip file."""
    chunk: list[str] = []
    length = 0
    try:
        with gzip.open(file, "rt", encoding="utf-8", newline="\n") as lines:
            for line in lines:
                chunk.append(line)
                length += len(line)
                if length > _CHUNK:
                    conn.execute("select backfill.take_export(%s)", [chunk])
                    chunk, length = [], 0
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as exc:
        raise RunnerError(f"{file} cannot be read as what an export writes: {exc}") from exc
    conn.execute("select backfill.take_export(%s)", [chunk])


def checksum(file: Path) -> str:
    """sha256 of a file's bytes. Raises OSError."""
    with file.open("rb") as source:
        return hashlib.file_digest(source, "sha256").hexdigest()
