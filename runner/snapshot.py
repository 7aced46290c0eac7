"""`runner snapshot`: a pg_dump of the database, its checksum written down in backfill.snapshot."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from psycopg import pq

from runner import embedded
from runner.database import Connection, connect, step
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

    @property
    def kept(self) -> str:
        """What is there, whatever becomes of the output."""
        return f"The snapshot is in {self.file} and written down, sha256 {self.sha256}"


def snapshot(settings: Settings, *, directory: Path) -> Snapshot:
    """Dump the whole database to a file in `directory` and record it.

    Raises SnapshotError where pg_dump cannot be found, fails, or the file cannot be written.
    """
    with connect(settings, application_name="runner snapshot") as conn:
        program = _pg_dump(conn.info.server_version // 10000)
        taken_at = datetime.now(UTC)
        file = directory.resolve() / f"{_file_name(conn.info.dbname)}-{taken_at:%Y%m%dT%H%M%SZ}.dump"
        conn.rollback()
        with _environment(conn) as environment:
            sha256, size = _dump(settings, program, environment, file)
        [(snapshot_id,)] = step(
            conn, settings, "select snapshot_id::text from backfill.record_snapshot(%s, %s, %s, %s)",
            taken_at, str(file), sha256, size,
        )  # fmt: skip
    return Snapshot(snapshot_id, taken_at.isoformat(timespec="seconds"), file, sha256, size)


def _file_name(database: str) -> str:
    """A database may be called `../x`: its dump stays in the directory."""
    return re.sub(r"[^\w.-]", "_", database).lstrip(".") or "database"


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
            raise SnapshotError(f"pg_dump of PostgreSQL {version} cannot be found: put it on the PATH") from None
        return found


def _dump(settings: Settings, program: str, environment: dict[str, str], file: Path) -> tuple[str, int]:
    """Stream the dump into a file that has its name only when it is whole; its sha256 and size."""
    command = [program, "--format=custom"]
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


@contextmanager
def _environment(conn: Connection) -> Iterator[dict[str, str]]:
    """The same connection as libpq's variables: a command line is seen by every user of the machine, these by none.

    What has no variable, a key's passphrase for example, goes by a service file that only we may read.
    """
    given = {**conn.info.get_parameters(), "password": conn.info.password}
    # A dump is in the database's own encoding, whatever ours is.
    given = {key: str(value) for key, value in given.items() if value and key != "client_encoding"}
    variables = {
        option.keyword.decode(): option.envvar.decode() for option in pq.Conninfo.get_defaults() if option.envvar
    }
    environment = {name: value for name, value in os.environ.items() if name not in ("PGSERVICE", "PGSERVICEFILE")}
    environment |= {variables[key]: value for key, value in given.items() if key in variables}
    environment["LC_MESSAGES"] = "C"  # pg_dump's own words are looked through for the way out
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", prefix="runner-") as service:
        service.writelines(
            ["[runner]\n", *(f"{key}={value}\n" for key, value in given.items() if key not in variables)]
        )
        service.flush()
        yield {**environment, "PGSERVICE": "runner", "PGSERVICEFILE": service.name}


def _explain(said: str) -> str:
    """pg_dump's words without the query, which names every table, and the way out."""
    lines = [line for line in said.splitlines() if "detail: Query was" not in line]
    way = next((way for sign, way in _ADVICE if sign in said), "")
    return f"pg_dump failed: {' '.join(' '.join(lines).split())}{way}"


_ADVICE = (
    ("row-level security", ". Policies would hide rows from this role: use the owner or a role with BYPASSRLS"),
    ("permission denied", ". A dump holds every row: grant pg_read_all_data to this role, which lets it write nothing"),
)
