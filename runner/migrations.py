"""Migrations in yoyo's own files and tables, run on the caller's connection.

yoyo's own apply opens a second connection, marks in a second transaction and swallows BadMigration. Here the
statements, yoyo's mark and our checksum are part of the one transaction that is open, so that a rehearsal
can roll all of it back. yoyo still reads the files and keeps its tables: `yoyo list` agrees.
"""

from __future__ import annotations

import getpass
import glob
import hashlib
import os
import re
import socket
import uuid
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

import psycopg
import sqlparse
from psycopg.pq import TransactionStatus
from psycopg.rows import tuple_row
from yoyo import exceptions
from yoyo.backends.core.postgresql import PostgresqlPsycopgBackend
from yoyo.migrations import Migration as YoyoMigration
from yoyo.migrations import (
    default_migration_table,
    parse_metadata_from_sql_comments,
    read_migrations,
    topological_sort,
)

from runner.database import Connection
from runner.errors import EditedMigrationError, MigrationError, NotRehearsableError

NAME = re.compile(r"^\d{4}(_[a-z][a-z0-9]*){2,}$")

_CHECKSUMS = "backfill.migration_checksum"


@dataclass(frozen=True, slots=True)
class Migration:
    """One file pair as it was read; `sha256` is that of the file's bytes."""

    id: str
    path: Path
    sha256: str
    transactional: bool
    text: str
    rollback_text: str
    source: YoyoMigration

    @property
    def statements(self) -> tuple[str, ...]:
        """Its statements as yoyo takes them apart."""
        return _split(self.text)

    @property
    def rollback(self) -> tuple[str, ...]:
        """Those of the rollback file; empty where there is none."""
        return _split(self.rollback_text)


@dataclass(frozen=True, slots=True)
class Edited:
    """An applied migration whose file is another one now; `actual` is None where the file is gone."""

    id: str
    applied: str
    actual: str | None

    def __str__(self) -> str:
        if self.actual is None:
            return f"{self.id}: applied, but its file is gone"
        return f"{self.id}: applied as sha256 {self.applied[:12]}…, the file is {self.actual[:12]}… now"


def read(directory: Path) -> list[Migration]:
    """All migrations of a directory in the order in which they apply. Raises MigrationError naming the file."""
    if not directory.is_dir():
        raise MigrationError(f"{directory} is not a directory: set migrations in runner.toml")
    files = ((path.name, path.read_bytes()) for path in sorted(directory.glob("*.*")) if path.is_file())
    return list(_read(directory, tuple((name, hashlib.sha256(content).hexdigest()) for name, content in files)))


@lru_cache(maxsize=8)
def _read(directory: Path, fingerprint: tuple[tuple[str, str], ...]) -> tuple[Migration, ...]:
    """A run reads the files several times: keyed by their content."""
    sha256 = dict(fingerprint)
    try:
        found = list(read_migrations(glob.escape(str(directory))))
        texts = {item.id: _load(item, {other.id: other for other in found}) for item in found}
        return tuple(_read_one(item, sha256[Path(item.path).name], texts[item.id]) for item in topological_sort(found))
    except exceptions.BadMigration as exc:
        raise MigrationError(f"a migration cannot be read: {exc}. Check its `-- depends:` line") from exc
    except exceptions.MigrationConflict as exc:
        raise MigrationError(f"two migrations share a name: {exc}") from exc


def applied(conn: Connection) -> list[str]:
    """Ids of the applied migrations, oldest first; empty where yoyo's tables are not there. Writes nothing."""
    if not _exists(conn, default_migration_table):
        return []
    rows = conn.execute("select migration_id from _yoyo_migration order by applied_at_utc, migration_id").fetchall()
    return [row[0] for row in rows]


def pending(conn: Connection, directory: Path) -> list[Migration]:
    """The migrations still to apply, in order. Writes nothing."""
    done = set(applied(conn))
    return [migration for migration in read(directory) if migration.id not in done]


def edited(conn: Connection, directory: Path) -> list[Edited]:
    """Applied migrations whose file was changed or removed since. Writes nothing."""
    if not _exists(conn, _CHECKSUMS):
        return []
    files = {migration.id: migration.sha256 for migration in read(directory)}
    kept = conn.execute("select migration_id, sha256 from backfill.migration_checksum order by migration_id")
    return [Edited(id_, sha256, files.get(id_)) for id_, sha256 in kept.fetchall() if files.get(id_) != sha256]


def apply(conn: Connection, directory: Path, *, leave_out: Collection[str] = ()) -> list[Migration]:
    """Apply what is pending within the transaction that is open, and return it; the caller commits.

    A rehearsal leaves out what no transaction can hold, by id; what depends on it is left out as well. Raises
    EditedMigrationError, and NotRehearsableError when a pending one is `transactional: false` (apply it first with
    apply_outside()). A driver error carries a note that names file and statement; translate() shows it.
    """
    left_out = _with_dependents(_checked(conn, directory), leave_out)
    todo = [migration for migration in pending(conn, directory) if migration.id not in left_out]
    outside = [migration.id for migration in todo if not migration.transactional]
    if outside:
        raise NotRehearsableError(
            f"{', '.join(outside)}: `transactional: false`, so neither rehearsed nor rolled back; it was not "
            "applied. Read it, then run `runner apply --allow-non-transactional`"
        )
    if todo:  # whoever may only run backfills cannot write yoyo's tables, and need not
        with _yoyo(conn) as backend:
            for migration in todo:
                _execute(conn, migration, migration.statements, "apply")
                backend.mark(migration)
    _keep_checksums(conn, directory)
    _nothing_left(conn, directory, left_out)
    return todo


def apply_outside(conn: Connection, directory: Path) -> list[Migration]:
    """Apply and commit, one by one, what is pending up to the last `transactional: false` migration.

    For a connection with no transaction open: CREATE INDEX CONCURRENTLY and its like refuse one. A statement
    that fails leaves what came before it; the migration stays pending and must bear being run again.
    """
    if conn.info.transaction_status != TransactionStatus.IDLE:
        raise AssertionError("apply_outside() needs a connection without an open transaction")
    todo = _checked(conn, directory)
    conn.commit()
    last = max((index for index, migration in enumerate(todo) if not migration.transactional), default=-1)
    for migration in todo[: last + 1]:
        if not migration.transactional:
            conn.autocommit = True
            try:
                _execute(conn, migration, migration.statements, "apply")
            finally:
                conn.autocommit = False
        else:
            _execute(conn, migration, migration.statements, "apply")
        with _yoyo(conn) as backend:
            backend.mark(migration)
        _keep_checksums(conn, directory)
        conn.commit()
    return todo[: last + 1]


def rollback(conn: Connection, directory: Path, *, down_to: str | None = None) -> list[Migration]:
    """Roll applied migrations back, newest first, within the open transaction; the caller commits.

    `down_to` is the id of the migration to stop before (it stays applied); None means all. Raises
    MigrationError when it is not applied, when a file is gone or has no rollback, or when a statement fails.
    """
    done = set(applied(conn))
    if down_to is not None and down_to not in done:
        raise MigrationError(f"{down_to} is not an applied migration: `runner status` lists them")
    files = read(directory)
    gone = done - {migration.id for migration in files}
    if gone:
        raise MigrationError(f"{', '.join(sorted(gone))}: applied, but the file is gone, so it cannot be rolled back")
    todo: list[Migration] = []
    for migration in reversed(files):
        if migration.id == down_to:
            break
        if migration.id in done:
            todo.append(migration)
    for migration in todo:
        if not migration.rollback:
            raise MigrationError(f"{migration.id} has no {migration.path.stem}.rollback.sql")
        if not migration.transactional:
            raise NotRehearsableError(f"{migration.id}: `transactional: false`; undo it by hand, then `yoyo unmark`")
    with _yoyo(conn) as backend:
        for migration in todo:
            _execute(conn, migration, migration.rollback, "roll back")
            backend.unmark(migration)
            if _exists(conn, _CHECKSUMS):
                conn.execute("delete from backfill.migration_checksum where migration_id = %s", [migration.id])
    return todo


class _Backend(PostgresqlPsycopgBackend):  # type: ignore[misc]
    """yoyo's bookkeeping on a connection and in a transaction that belong to somebody else."""

    def __init__(self, conn: Connection) -> None:
        self._borrowed = conn
        super().__init__(None, default_migration_table)

    def connect(self, dburi: object) -> Connection:  # noqa: ARG002 - yoyo's signature
        return self._borrowed

    def cursor(self) -> psycopg.Cursor[Any]:
        return self._borrowed.cursor(row_factory=tuple_row)

    def list_tables(self, **kwargs: object) -> list[str]:  # noqa: ARG002 - yoyo's signature
        # information_schema, which yoyo asks, hides tables on which the role has no privilege.
        names = (default_migration_table, self.log_table, self.version_table)
        return [name for name in names if _exists(self._borrowed, name)]

    def begin(self) -> None:
        self._in_transaction = True

    def commit(self) -> None:
        self._in_transaction = False

    def rollback(self) -> None:
        self._in_transaction = False

    @contextmanager
    def lock(self, timeout: float = 10) -> Iterator[None]:  # noqa: ARG002 - yoyo's signature
        # The caller holds an advisory lock; yoyo's own is a row that a killed process leaves behind.
        yield

    def get_log_data(self, migration: YoyoMigration | None = None, operation: str = "apply") -> dict[str, Any]:
        # As yoyo's, but without asking DNS for the host's full name, which can take seconds where there is none.
        return {
            "id": str(uuid.uuid4()),
            "migration_id": migration.id if migration else None,
            "migration_hash": migration.hash if migration else None,
            "username": _user(),
            "hostname": socket.gethostname(),
            "created_at_utc": datetime.now(UTC).replace(tzinfo=None),
            "operation": operation,
        }

    def mark(self, migration: Migration) -> None:
        self.log_migration(migration.source, "apply")
        self.mark_one(migration.source, log=False)

    def unmark(self, migration: Migration) -> None:
        self.log_migration(migration.source, "rollback")
        self.unmark_one(migration.source, log=False)


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return str(os.getuid())


@contextmanager
def _yoyo(conn: Connection) -> Iterator[_Backend]:
    from yoyo import internalmigrations

    backend = _Backend(conn)
    if internalmigrations.needs_upgrading(backend):
        # As ensure_internal_schema_updated() does, without its commit.
        try:
            internalmigrations.upgrade(backend)
        except psycopg.Error as exc:
            exc.add_note("cannot create yoyo's tables")
            raise
    backend._internal_schema_updated = True
    yield backend


def _load(item: YoyoMigration, known: dict[str, YoyoMigration]) -> str:
    """What item.load() does, without taking every file apart: that is a second for files of which none is pending."""
    path = Path(item.path)
    if path.suffix != ".sql":
        raise MigrationError(f"{path.name}: migrations are SQL only")
    text = path.read_text(encoding="utf-8")
    directives = parse_metadata_from_sql_comments(text)[0]
    missing = [name for name in directives.get("depends", "").split() if name not in known]
    if missing:
        raise exceptions.BadMigration(f"{path.name} depends on {missing[0]}, which is not there")
    item._depends = {known[name] for name in directives.get("depends", "").split()}
    transactional = directives.get("transactional", "true").lower()
    if transactional not in ("true", "false"):
        raise exceptions.BadMigration(f"{path.name}: transactional is true or false, not {transactional!r}")
    item.use_transactions = transactional == "true"
    item.steps = []
    return text


def _read_one(item: YoyoMigration, sha256: str, text: str) -> Migration:
    rollback = Path(item.path).with_suffix(".rollback.sql")
    return Migration(
        id=item.id,
        path=Path(item.path),
        sha256=sha256,
        transactional=item.use_transactions,
        text=text,
        rollback_text=rollback.read_text(encoding="utf-8") if rollback.is_file() else "",
        source=item,
    )


@lru_cache(maxsize=256)
def _split(text: str) -> tuple[str, ...]:
    """As yoyo's read_sql_migration() does with a file."""
    statements = sqlparse.split(text)
    if statements:
        statements[0] = parse_metadata_from_sql_comments(statements[0])[2]
    return tuple(statement for statement in statements if statement.strip())


def _checked(conn: Connection, directory: Path) -> list[Migration]:
    changed = edited(conn, directory)
    if changed:
        raise EditedMigrationError(
            f"{'; '.join(map(str, changed))}. An applied migration never changes: restore the file and write "
            "the change as a new migration"
        )
    return pending(conn, directory)


def _execute(conn: Connection, migration: Migration, statements: tuple[str, ...], verb: str) -> None:
    for number, statement in enumerate(statements, start=1):
        try:
            # Bytes and no parameters: sent as they are, a % is a %.
            conn.execute(statement.encode())
        except psycopg.Error as exc:
            exc.add_note(f"cannot {verb} {migration.id}, statement {number} of {len(statements)}")
            raise


def _keep_checksums(conn: Connection, directory: Path) -> None:
    """Write down the checksum of each applied file that has none: the first migrations run before the table is."""
    if not _exists(conn, _CHECKSUMS):
        return
    kept = {row[0] for row in conn.execute("select migration_id from backfill.migration_checksum")}
    without = set(applied(conn)) - kept
    with conn.cursor() as cursor:
        cursor.executemany(
            "insert into backfill.migration_checksum (migration_id, sha256, applied_at) values (%s, %s, now())",
            [(migration.id, migration.sha256) for migration in read(directory) if migration.id in without],
        )


def _with_dependents(todo: list[Migration], ids: Collection[str]) -> set[str]:
    """`ids` and what depends on them; `todo` is in the order of dependence, so that once through is enough."""
    found = set(ids)
    for migration in todo:
        if found & {dependency.id for dependency in migration.source.depends}:
            found.add(migration.id)
    return found


def _nothing_left(conn: Connection, directory: Path, left_out: set[str]) -> None:
    left = [migration.id for migration in pending(conn, directory) if migration.id not in left_out]
    if left:
        raise MigrationError(f"still pending after applying: {', '.join(left)}")


def _exists(conn: Connection, name: str) -> bool:
    row = conn.execute("select to_regclass(%s) is not null", [name]).fetchone()
    return bool(row and row[0])
