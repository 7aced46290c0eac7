"""`runner snapshot`: a pg_dump of the database, its checksum written down in backfill.snapshot."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from psycopg.conninfo import conninfo_to_dict, make_conninfo

from runner import embedded
from runner.database import connect, transaction
from runner.errors import EmbeddedServerError, SnapshotError
from runner.settings import Settings, scrub

_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A dump in pg_dump's custom format, readable by its owner alone. `file` is absolute."""

    snapshot_id: str
    taken_at: str
    file: Path
    sha256: str
    bytes: int


def snapshot(settings: Settings, *, directory: Path) -> Snapshot:
    """Dump the whole database to a file in `directory` and record it.

    Raises SnapshotError where pg_dump is not to be found, fails, or the file cannot be written.
    """
    with connect(settings, application_name="runner snapshot") as conn:
        program = _pg_dump(conn.info.server_version // 10000)
        taken_at = datetime.now(UTC)
        file = directory.resolve() / f"{conn.info.dbname}-{taken_at:%Y%m%dT%H%M%SZ}.dump"
        conn.rollback()
        sha256, size = _dump(settings, program, file)
        with transaction(conn, settings):
            row = conn.execute(
                "select snapshot_id::text from backfill.record_snapshot(%s, %s, %s, %s)",
                [taken_at, str(file), sha256, size],
            ).fetchone()
    return Snapshot(row[0] if row else "", taken_at.isoformat(timespec="seconds"), file, sha256, size)


def checksum(file: Path) -> str:
    """sha256 of a file's bytes."""
    with file.open("rb") as source:
        return hashlib.file_digest(source, "sha256").hexdigest()


def _pg_dump(version: int) -> str:
    """pg_dump of the server's version or newer: an older one refuses."""
    try:
        return str(embedded.programs(version) / "pg_dump")
    except EmbeddedServerError:
        found = shutil.which("pg_dump")
        if found is None:
            raise SnapshotError(f"pg_dump of PostgreSQL {version} is not to be found: put it on the PATH") from None
        return found


def _dump(settings: Settings, program: str, file: Path) -> tuple[str, int]:
    """Stream the dump into a file that has its name only when it is whole; its sha256 and size."""
    parameters = conninfo_to_dict(settings.conninfo)
    environment = dict(os.environ)
    password = parameters.pop("password", None)  # a command line is seen by every user of the machine
    if password is not None:
        environment["PGPASSWORD"] = str(password)
    command = [program, "--format=custom", f"--dbname={make_conninfo('', **parameters)}"]
    digest, size = hashlib.sha256(), 0
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=file.parent, delete=False) as part, tempfile.TemporaryFile() as words:
            try:
                with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=words, env=environment) as process:
                    assert process.stdout is not None  # noqa: S101 - it was asked for
                    while chunk := process.stdout.read(_CHUNK):
                        digest.update(chunk)
                        size += part.write(chunk)
                if process.returncode:
                    words.seek(0)
                    raise SnapshotError(_explain(scrub(words.read().decode(errors="replace"), settings.conninfo)))
                part.flush()
                os.fsync(part.fileno())
                Path(part.name).replace(file)
            except BaseException:
                Path(part.name).unlink(missing_ok=True)
                raise
    except OSError as exc:
        raise SnapshotError(f"{file} cannot be written: {exc.strerror}") from exc
    return digest.hexdigest(), size


def _explain(said: str) -> str:
    """pg_dump's words without the query, which names every table, and the way out."""
    lines = [line for line in said.splitlines() if "detail: Query was" not in line]
    way = next((way for sign, way in _ADVICE if sign in said), "")
    return f"pg_dump failed: {' '.join(' '.join(lines).split())}{way}"


_ADVICE = (
    ("row-level security", ". Policies would hide rows from this role: use the owner or a role with BYPASSRLS"),
    ("permission denied", ". A dump holds every row: grant pg_read_all_data to this role, which lets it write nothing"),
)
