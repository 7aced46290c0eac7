"""Migrations in yoyo's own files and tables, run on the caller's connection.

yoyo's own apply opens a second connection, marks in a second transaction and swallows BadMigration. Here the
statements, yoyo's mark and our checksum are part of the one transaction that is open, so that a rehearsal
can roll all of it back. yoyo still reads the files and keeps its tables: `yoyo list` agrees.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import psycopg
from psycopg.pq import TransactionStatus

from runner import history, indexes
from runner.database import RETRIED, Connection
from runner.errors import OUTSIDE, EditedMigrationError, MigrationError, NotRehearsableError, translate
from runner.migration_files import Migration, known, read
from runner.pinned import PINNED_NAMES, ROLE_NAMES
from runner.proof import Proof
from runner.systems import REQUIRES, SYSTEMS, Sources

UNTRUSTED = "BF014"
"""A table belongs to a role that nobody has trusted: a decision to be made, and no misfit."""

_CHECKSUMS = "backfill.migration_checksum"


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


@dataclass(frozen=True, slots=True)
class Misfit:
    """A system that does not fit the database, its first pending migration, and why; None: a project's own file."""

    system: str | None
    migration: str
    reason: str

    def __str__(self) -> str:
        return f"{self.system or self.migration} is left out: {self.reason}"


def applied(conn: Connection) -> list[str]:
    """Ids of the applied migrations, oldest first; empty where yoyo's tables are not there. Writes nothing."""
    return history.applied(conn, history.homes(conn))


def pending(conn: Connection, sources: Sources) -> list[Migration]:
    """The migrations still to apply, in order. Writes nothing.

    Raises MigrationError for one that builds on a migration of a system which is neither selected nor installed.
    """
    done = set(applied(conn))
    todo = [migration for migration in read(sources) if migration.id not in done]
    for migration in todo:
        for name, system in migration.elsewhere:
            if name not in done:
                raise MigrationError(
                    f"{migration.path.name} depends on {name} of {system}, which is not selected: add it to systems in "
                    "runner.toml"
                )
    return todo


def edited(conn: Connection, sources: Sources) -> list[Edited]:
    """Applied migrations whose file was changed or removed since. Writes nothing."""
    if not _exists(conn, _CHECKSUMS):
        return []
    files = known(sources)
    kept = conn.execute("select migration_id, sha256 from backfill.migration_checksum order by migration_id")
    return [Edited(id_, sha256, files.get(id_)) for id_, sha256 in kept.fetchall() if files.get(id_) != sha256]


class _OneStatement(psycopg.Cursor[Any]):
    """A cursor whose query is one statement by protocol: what else a text might hold, the server refuses unexecuted."""

    def _execute_send(self, query: Any, *, force_extended: bool = False, binary: bool | None = None) -> None:  # noqa: ARG002
        super()._execute_send(query, force_extended=True, binary=binary)


def apply(
    conn: Connection, sources: Sources, *, leave_out: Collection[str] = (), misfits: list[Misfit] | None = None,
    proof: Proof | None = None,
) -> list[Migration]:  # fmt: skip
    """Apply what is pending within the transaction that is open, and return it; the caller commits.

    After each one it is proved that the transaction is still the same, by the `proof` of whoever began it.

    A rehearsal leaves out what no transaction can hold, by id; what depends on it is left out as well. Raises
    EditedMigrationError, and NotRehearsableError when a pending one is `transactional: false` (apply it first with
    apply_outside()). A driver error carries a note that names file and statement; translate() shows it. With a list
    of `misfits` a system of ours whose migrations the database refuses is none: it is undone alone and named there,
    with what builds on it.
    """
    left_out = with_dependents(checked(conn, sources), leave_out)
    todo = [migration for migration in pending(conn, sources) if migration.id not in left_out]
    outside = [migration.id for migration in todo if not migration.transactional]
    if outside:
        raise NotRehearsableError(
            f"{', '.join(outside)}: `transactional: false`, so neither rehearsed nor rolled back; it was not "
            "applied. Read it, then run `runner apply --allow-non-transactional`"
        )
    done: list[Migration] = []
    proof = proof or Proof(conn)
    if todo:  # whoever may only run backfills cannot write yoyo's tables, and need not
        with history.kept(conn, known(sources)) as backend:
            for system, group in groupby(todo, key=lambda migration: migration.system):
                files = list(group)
                if misfits is None or system not in SYSTEMS:
                    done += _apply_all(proof, backend, [item for item in files if item.id not in left_out])
                    continue
                misfit = _misfit(proof, backend, system, files, misfits)
                if misfit is None:
                    done += files
                else:
                    misfits.append(misfit)
                    left_out |= with_dependents(todo, {item.id for item in files})
        if misfits is not None:
            misfits += [
                Misfit(None, item.id, "it depends on a migration of a system that was left out")
                for item in todo if item.system is None and item.id in left_out
            ]  # fmt: skip
    _keep_checksums(conn, sources)
    _seal(conn, "applied", done)
    _nothing_left(conn, sources, left_out)
    return done


def _apply_all(proof: Proof, backend: history.Backend, todo: list[Migration]) -> list[Migration]:
    for migration in todo:
        there = indexes.there(proof.conn, migration)  # built before, by `runner migrate`
        _execute(proof.conn, migration, migration.statements, "apply", proof, leave_out=there)
        backend.mark(migration)
    _hand_over(proof.conn, todo)
    return todo


def apply_one(proof: Proof, sources: Sources, migration: Migration, after: Callable[[], None]) -> None:
    """Apply one pending migration within the open transaction, which the caller commits; `after` each statement."""
    there = indexes.there(proof.conn, migration)
    with history.kept(proof.conn, known(sources)) as backend:
        _execute(proof.conn, migration, migration.statements, "apply", proof, leave_out=there, after=after)
        backend.mark(migration)
    _hand_over(proof.conn, [migration])
    _keep_checksums(proof.conn, sources)
    _seal(proof.conn, "applied", [migration])


def commit_outside(conn: Connection, sources: Sources, migration: Migration) -> None:
    """Apply one that is `transactional: false`, each of its statements committed, on a connection that is idle."""
    _commit_one(conn, sources, migration)
    _keep_checksums(conn, sources)
    _seal(conn, "applied", [migration])
    conn.commit()


def _hand_over(conn: Connection, done: Collection[Migration]) -> None:
    """What a superuser's migrations made goes to the engine's owner, so that none of it runs with a superuser's rights.

    Of a project's own migrations that is what they made in the engine's schemas.
    """
    if done and conn.execute("select to_regprocedure('backfill.hand_over(boolean)') is not null").fetchone() == (True,):
        ours = any(migration.system is not None for migration in done)
        conn.execute("select backfill.hand_over(%s)", [ours])


def _misfit(
    proof: Proof, backend: history.Backend, system: str, files: list[Migration], before: Sequence[Misfit]
) -> Misfit | None:
    """Apply a system's migrations below a savepoint; why it does not fit, where it does not."""
    missing = {misfit.system for misfit in before} & set(REQUIRES[system])
    if missing:
        return Misfit(system, files[0].id, f"it builds on {missing.pop()}, which does not fit")
    try:
        with proof.savepoint():
            _apply_all(proof, backend, files)
    except psycopg.Error as exc:
        if proof.conn.closed or exc.sqlstate in (*RETRIED, UNTRUSTED) or isinstance(exc, psycopg.OperationalError):
            raise
        proof.after(f"undoing {system}")
        return Misfit(system, files[0].id, " ".join(str(translate(exc)).split()))
    return None


def apply_outside(conn: Connection, sources: Sources) -> list[Migration]:
    """Apply and commit, one by one, what is pending up to the last `transactional: false` migration.

    For a connection with no transaction open: CREATE INDEX CONCURRENTLY and its like refuse one. A statement
    that fails leaves what came before it, which its note says; the migration stays pending and must bear being run
    again.
    """
    if conn.info.transaction_status != TransactionStatus.IDLE:
        raise AssertionError("apply_outside() needs a connection without an open transaction")
    todo = checked(conn, sources)
    conn.commit()
    last = max((index for index, migration in enumerate(todo) if not migration.transactional), default=-1)
    for count, migration in enumerate(todo[: last + 1]):
        try:
            _commit_one(conn, sources, migration)
        except psycopg.Error as exc:
            exc.add_note(f"committed before: {', '.join(item.id for item in todo[:count]) or 'nothing'}")
            raise
        _keep_checksums(conn, sources)
        _seal(conn, "applied", [migration])
        conn.commit()
    return todo[: last + 1]


def _commit_one(conn: Connection, sources: Sources, migration: Migration) -> None:
    """Do a migration and mark it; one without a transaction is committed with each of its statements."""
    if migration.transactional:
        _execute(conn, migration, migration.statements, "apply", Proof(conn))
    else:
        conn.autocommit = True
        try:
            _execute(conn, migration, migration.statements, "apply")
        finally:
            if not conn.closed:
                conn.autocommit = False
    _hand_over(conn, [migration])
    with history.kept(conn, known(sources)) as backend:
        backend.mark(migration)


def rollback(conn: Connection, sources: Sources, *, down_to: str | None = None) -> list[Migration]:
    """Roll applied migrations back, newest first, within the open transaction; the caller commits.

    `down_to` is the id of the migration to stop before (it stays applied); None means all. Raises
    MigrationError when it is not applied, when a file is gone or has no rollback, or when a statement fails.
    """
    done = set(applied(conn))
    if down_to is not None and down_to not in done:
        raise MigrationError(f"{down_to} is not an applied migration: `runner status` lists them")
    files = read(Sources((*sources.folders, *sources.others)))
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
    proof = Proof(conn)
    with history.kept(conn, known(sources)) as backend:
        for migration in todo:
            _execute(conn, migration, migration.rollback, "roll back", proof)
            backend.unmark(migration)
            if _exists(conn, _CHECKSUMS):
                conn.execute("delete from backfill.migration_checksum where migration_id = %s", [migration.id])
    _seal(conn, "rolled back", todo)
    return todo


def checked(conn: Connection, sources: Sources) -> list[Migration]:
    """What is pending. Raises EditedMigrationError where the file of an applied one is another now."""
    changed = edited(conn, sources)
    if changed:
        raise EditedMigrationError(
            f"{'; '.join(map(str, changed))}. An applied migration never changes: restore the file and write "
            "the change as a new migration"
        )
    return pending(conn, sources)


def _execute(
    conn: Connection, migration: Migration, statements: tuple[str, ...], verb: str, proof: Proof | None = None,
    leave_out: Collection[int] = (), after: Callable[[], None] = lambda: None,
) -> None:  # fmt: skip
    """Run a file's statements, and prove that its transaction is the same afterwards; without a proof it has none."""
    what = f"{migration.id}, statement"
    for number, statement in enumerate(statements, start=1):
        if number - 1 in leave_out:
            continue
        if proof is not None:
            _name(conn, migration, statement)
        try:
            with _OneStatement(conn) as cursor:
                # Bytes and no parameters: sent as they are, a % is a %.
                cursor.execute(statement.encode())
        except psycopg.Error as exc:
            if proof is None:
                exc.add_note(OUTSIDE)
            exc.add_note(f"cannot {verb} {what} {number} of {len(statements)}")
            raise
        if proof is not None:
            proof.open_after(f"migration {what} {number}")
        after()
    if proof is not None:
        conn.execute(PINNED_NAMES)
        proof.after(f"migration {migration.id}")


def _name(conn: Connection, migration: Migration, statement: str) -> None:
    """A project's own statements find names as their role does; ours name the schema of whatever is not the server's.

    Only track() keeps the path of whoever calls it: there the application's triggers find what they name.
    """
    conn.execute(PINNED_NAMES)
    if migration.system is None or "backfill.track(" in statement:
        conn.execute(ROLE_NAMES)


def _keep_checksums(conn: Connection, sources: Sources) -> None:
    """Write down the checksum of each applied file that has none: the first migrations run before the table is."""
    if not _exists(conn, _CHECKSUMS):
        return
    kept = {row[0] for row in conn.execute("select migration_id from backfill.migration_checksum")}
    without = set(applied(conn)) - kept
    with conn.cursor() as cursor:
        cursor.executemany(
            "insert into backfill.migration_checksum (migration_id, sha256, applied_at) values (%s, %s, now())",
            [(migration.id, migration.sha256) for migration in read(sources) if migration.id in without],
        )


def _seal(conn: Connection, what: str, done: Sequence[Migration]) -> None:
    """Say in the chain what the engine is made of now: whoever changes it otherwise is found by verify_chain()."""
    if not done:
        return
    may = "select coalesce(has_function_privilege(to_regprocedure('backfill.seal_engine(text)'), 'execute'), false)"
    if conn.execute(may).fetchone() != (True,):  # not there yet, or any more; or not the engine's owner who applies
        return
    names = done[0].id if len(done) == 1 else f"{done[0].id} ... {done[-1].id}"
    conn.execute("select backfill.seal_engine(%s)", [f"{what}: {names}"])


def with_dependents(todo: list[Migration], ids: Collection[str]) -> set[str]:
    """`ids` and what depends on them; `todo` is in the order of dependence, so that once through is enough."""
    found = set(ids)
    for migration in todo:
        if found & {dependency.id for dependency in migration.source.depends}:
            found.add(migration.id)
    return found


def _nothing_left(conn: Connection, sources: Sources, left_out: set[str]) -> None:
    left = [migration.id for migration in pending(conn, sources) if migration.id not in left_out]
    if left:
        raise MigrationError(f"still pending after applying: {', '.join(left)}")


def _exists(conn: Connection, name: str) -> bool:
    row = conn.execute("select to_regclass(%s) is not null", [name]).fetchone()
    return bool(row and row[0])
