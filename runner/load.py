"""Land files in staging: one transaction, one run, every row either staged or rejected with its reason."""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from pathlib import Path

from psycopg import sql
from psycopg.types.json import Jsonb

from runner import migrations
from runner.database import Connection, connect, locked_transaction, retrying
from runner.errors import MigrationError, SqlError, UsageError
from runner.files import opened
from runner.pinned import own_names
from runner.result import TableChanges
from runner.runs import table_changes
from runner.settings import Settings
from runner.text import counted

SAMPLE, BATCH = 20, 1000


@dataclass(frozen=True, slots=True)
class Reject:
    """A source row that cannot be taken. `source_key` is its key or line in `source`; never an account number."""

    source: str
    source_key: str
    line: int | None
    reason: str
    cents: int | None = None
    """In the minor unit of `currency`."""
    payload: dict[str, object] = field(default_factory=dict)
    currency: str | None = None

    def __str__(self) -> str:
        return f"{self.source} {'line ' + str(self.line) if self.line else self.source_key}: {self.reason}"


@dataclass(frozen=True, slots=True)
class LandedFile:
    """A file as it was read once: what is staged is what was hashed, unless it changes between (then: refused)."""

    path: Path
    name: str
    sha256: str
    bytes: int
    left_out: int = 0
    """Where it was loaded before: what its load was allowed to reject."""


@dataclass(frozen=True, slots=True)
class LoadResult:
    """What a load did. `run_id` is None where every file had been loaded before, and in a dry run."""

    loader: str
    run_id: uuid.UUID | None
    files: tuple[LandedFile, ...]
    skipped: tuple[LandedFile, ...]
    rows: int
    rejects: int
    sample: tuple[Reject, ...]
    dry_run: bool
    tables: tuple[TableChanges, ...] = ()
    """What was written, table by table, of tracked ones."""

    @property
    def kept(self) -> str:
        """What is committed, whatever becomes of the output; empty where nothing is."""
        return f"All of it is staged: run {self.run_id}" if self.run_id is not None else ""


class Landing:
    """The open run of a load, handed to the loader's `fill`."""

    def __init__(
        self, conn: Connection, loader: str, run_id: uuid.UUID, files: tuple[LandedFile, ...],
        given: tuple[LandedFile, ...],
    ) -> None:  # fmt: skip
        self.conn, self.loader, self.run_id, self.files = conn, loader, run_id, files
        self.given = given  # those loaded before too, for loaders whose files belong together
        self.again: tuple[LandedFile, ...] = ()
        self.metrics: dict[str, object] = {}  # kept in the log beside rows and rejects
        self.rows = self.rejects = 0
        self.sample: list[Reject] = []

    def copy(self, table: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> int:
        """COPY typed rows into `schema.table`; returns how many. Rows may be a generator: memory stays flat."""
        command = sql.SQL("copy {} ({}) from stdin").format(
            sql.Identifier(*table.split(".")), sql.SQL(", ").join(map(sql.Identifier, columns))
        )
        count = 0
        with self.conn.cursor() as cursor, cursor.copy(command) as copy:
            for row in rows:
                copy.write_row(row)
                count += 1
        self.rows += count
        return count

    def read_again(self) -> None:
        """What is taken of the given files that were loaded before is of this load: they are landed again."""
        new = {file.sha256 for file in self.files}
        self.again = tuple({file.sha256: file for file in self.given if file.sha256 not in new}.values())
        _land_files(self.conn, self.loader, self.again)

    def reject(self, rejects: Iterable[Reject]) -> int:
        """Keep rejects in backfill.reject; returns how many."""
        count, rest = 0, iter(rejects)
        while batch := list(islice(rest, BATCH)):
            self.conn.execute("select backfill.keep_rejects(%s)", [Jsonb([asdict(item) for item in batch])])
            count += len(batch)
            self.sample += batch[: SAMPLE - len(self.sample)]
        self.rejects += count
        return count


class _Undone(Exception):  # noqa: N818 - no error: it carries a dry run out of its transaction
    pass


def load(
    settings: Settings,
    *,
    loader: str,
    paths: Sequence[Path],
    fill: Callable[[Landing], None],
    dry_run: bool = False,
    allow_rejects: int = 0,
) -> LoadResult:
    """Land `paths` with `fill`, which copies rows and rejects of `landing.files` (those not loaded before).

    All or nothing. Raises UsageError for a file that cannot be read, MigrationError while migrations are
    pending, SqlError BF004 (exit 3, everything rolled back) when there are more rejects than allowed.
    """
    given = tuple(_hash(path) for path in paths)
    with connect(settings, application_name=f"runner load {loader}") as conn:
        return retrying(lambda: _land(conn, settings, loader, given, fill, dry_run, allow_rejects), settings)


def _land(
    conn: Connection, settings: Settings, loader: str, given: tuple[LandedFile, ...], fill: Callable[[Landing], None],
    dry_run: bool, allow_rejects: int,
) -> LoadResult:  # fmt: skip
    """The load in one transaction, which may be tried again: `fill` starts anew each time."""
    result: LoadResult | None = None
    try:
        with locked_transaction(conn, settings):
            _refuse_pending(conn, settings)
            known = _loaded(conn, loader, [file.sha256 for file in given])
            new = tuple({file.sha256: file for file in given if file.sha256 not in known}.values())
            skipped = tuple(replace(file, left_out=known.get(file.sha256, 0)) for file in given if file not in new)
            if not new:
                return LoadResult(loader, None, (), skipped, 0, 0, (), dry_run)
            landing = Landing(conn, loader, _begin(conn, loader, new), new, given)
            fill(landing)
            for file in (*new, *landing.again):
                if _hash(file.path).sha256 != file.sha256:
                    raise UsageError(f"{file.path} was changed while it was being read: nothing was loaded")
            if landing.rejects > allow_rejects:
                raise SqlError("BF004", _refusal(landing, allow_rejects))
            metrics = {**landing.metrics, "rows": landing.rows, "rejects": landing.rejects}
            done = conn.execute("select metrics from backfill.finish_run(%s)", [Jsonb(metrics)]).fetchone()
            run_id = None if dry_run else landing.run_id
            result = LoadResult(
                loader, run_id, new, skipped, landing.rows, landing.rejects, tuple(landing.sample), dry_run,
                table_changes(done[0]) if done else (),
            )  # fmt: skip
            with own_names(conn):
                conn.execute("set constraints all immediate")
            if dry_run:
                raise _Undone
    except _Undone:
        pass
    assert result is not None  # noqa: S101 - the block above either returned, raised, or set it
    return result


def _hash(path: Path) -> LandedFile:
    try:
        with opened(path) as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            # A name may be any bytes; what is kept of it is text.
            name = os.fsencode(path.name).decode(errors="backslashreplace")
            return LandedFile(path, name, digest, os.fstat(file.fileno()).st_size)
    except OSError as exc:
        raise UsageError(f"{path} cannot be read: {exc.strerror}") from exc


def _refuse_pending(conn: Connection, settings: Settings) -> None:
    waiting = [migration.id for migration in migrations.pending(conn, settings.sources)]
    if waiting:
        raise MigrationError(f"{len(waiting)} migrations are pending ({waiting[0]} …): `runner apply` first")


def _loaded(conn: Connection, loader: str, hashes: list[str]) -> dict[str, int]:
    """The files that were loaded before, with the rejects of their loads."""
    query = (
        "select f.sha256, coalesce((l.metrics ->> 'rejects')::bigint, 0) from staging.file as f"
        " join backfill.backfill_log as l on l.run_id = f.run_id where f.loader = %s and f.sha256 = any(%s)"
    )
    return dict(conn.execute(query, [loader, hashes]).fetchall())


def _begin(conn: Connection, loader: str, files: tuple[LandedFile, ...]) -> uuid.UUID:
    subject = {"loader": loader, "files": [file.name for file in files]}
    row = conn.execute(
        "select backfill.begin_run(%s, p_mode => 'load', p_subject => %s)", [f"load {loader}", Jsonb(subject)]
    ).fetchone()
    assert row is not None  # noqa: S101 - a function call returns a row
    run_id: uuid.UUID = row[0]
    _land_files(conn, loader, files)
    return run_id


def _land_files(conn: Connection, loader: str, files: tuple[LandedFile, ...]) -> None:
    landed = [{"sha256": file.sha256, "name": file.name, "bytes": file.bytes} for file in files]
    conn.execute("select staging.land_files(%s, %s)", [loader, Jsonb(landed)])


def _refusal(landing: Landing, allowed: int) -> str:
    listed = "".join(f"\n  {item}" for item in islice(landing.sample, 10))
    more = f"\n  … and {landing.rejects - 10:,} more" if landing.rejects > 10 else ""
    return (
        f"{landing.rejects:,} of {counted(landing.rows + landing.rejects, 'source row')} cannot be taken, "
        f"{allowed:,} allowed; nothing was loaded:{listed}{more}\n"
        f"Mend the rows, or allow them: --allow-rejects {landing.rejects}"
    )
