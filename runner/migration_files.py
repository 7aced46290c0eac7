"""Migration files as yoyo reads them: which there are, in which order, with which content."""

from __future__ import annotations

import glob
import hashlib
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from yoyo import exceptions
from yoyo.migrations import Migration as YoyoMigration
from yoyo.migrations import parse_metadata_from_sql_comments, read_migrations, topological_sort

from runner.errors import MigrationError
from runner.sql_text import refused, statements
from runner.systems import ENGINE, SYSTEMS, Sources, system_of

NAME = re.compile(r"^\d{4}(_[a-z][a-z0-9]*){2,}$")


@dataclass(frozen=True, slots=True)
class Migration:
    """One file pair as it was read; `sha256` is that of the file's bytes."""

    id: str
    path: Path
    sha256: str
    transactional: bool
    text: str
    rollback_text: str
    system: str | None
    """The engine or the system that it belongs to; None where it is the project's own."""
    elsewhere: tuple[tuple[str, str], ...]
    """Migrations that it depends on, with their systems, where those are not selected: they may be applied."""
    source: YoyoMigration

    @property
    def statements(self) -> tuple[str, ...]:
        """Its statements as the server takes them apart."""
        return _split(self.text)

    @property
    def rollback(self) -> tuple[str, ...]:
        """Those of the rollback file; empty where there is none."""
        return _split(self.rollback_text)


def read(sources: Sources) -> list[Migration]:
    """All migrations of these folders in the order in which they apply. Raises MigrationError naming the file.

    The engine's come first, then each system's together, then the project's own. One that would end or begin a
    transaction, itself or in its rollback, is refused here by file and line: before anything is connected.
    """
    for folder in sources.folders:
        if not folder.is_dir():
            raise MigrationError(f"{folder} is not a directory: set migrations in runner.toml")
    left_out = tuple((path.stem, path.parent.name) for path, _ in _fingerprint(sources.others))
    return list(_read(sources.folders, _fingerprint(sources.folders), left_out))


def _fingerprint(folders: tuple[Path, ...]) -> tuple[tuple[Path, str], ...]:
    """Every file of these folders with the sha256 of its content."""
    paths = (path for folder in folders for path in sorted(folder.glob("*.*")) if path.is_file())
    return tuple((path, hashlib.sha256(path.read_bytes()).hexdigest()) for path in paths)


@lru_cache(maxsize=8)
def _read(
    folders: tuple[Path, ...], fingerprint: tuple[tuple[Path, str], ...], left_out: tuple[tuple[str, str], ...]
) -> tuple[Migration, ...]:
    """A run reads the files several times: keyed by their content."""
    sha256 = dict(fingerprint)
    try:
        found = list(read_migrations(*(glob.escape(str(folder)) for folder in folders)))
        by_id = {item.id: item for item in found}
        texts = {item.id: _load(item, by_id, dict(left_out)) for item in found}
        ordered = [_read_one(item, sha256[Path(item.path)], texts[item.id]) for item in topological_sort(found)]
    except exceptions.BadMigration as exc:
        raise MigrationError(f"a migration cannot be read: {exc}. Check its `-- depends:` line") from exc
    except exceptions.MigrationConflict as exc:
        raise MigrationError(f"two migrations share a name: {exc}") from exc
    # No system depends on a later one and none on the project's own, so that this keeps the order of dependence.
    rank = {name: place for place, name in enumerate((ENGINE, *SYSTEMS, None))}
    return tuple(sorted(ordered, key=lambda migration: rank[migration.system]))


def known(sources: Sources) -> dict[str, str]:
    """Name to sha256 of every migration there is a file of, also of the systems that are left out."""
    files = _fingerprint((*sources.folders, *sources.others))
    return {
        path.stem: sha256 for path, sha256 in files if path.suffix == ".sql" and not path.stem.endswith(".rollback")
    }


def defining(sources: Sources, relation: str) -> Path | None:
    """The file whose migration creates this view, in which its rule is read; the last one, where several do."""
    words = re.compile(rf"^create (or replace )?view {re.escape(relation)}\b", re.IGNORECASE | re.MULTILINE)
    paths = [path for path, _ in _fingerprint((*sources.folders, *sources.others)) if ".rollback" not in path.suffixes]
    return next((path for path in reversed(paths) if words.search(path.read_text(encoding="utf-8"))), None)


def rule_file(sources: Sources, relation: str) -> str:
    """The migration in which the rule of a due view is read, as folder/file; empty where no file makes it."""
    path = defining(sources, relation)
    return f"{path.parent.name}/{path.name}" if path else ""


def _load(item: YoyoMigration, known: dict[str, YoyoMigration], left_out: dict[str, str]) -> str:
    """What item.load() does, without taking every file apart: that is a second for files of which none is pending."""
    path = Path(item.path)
    if path.suffix != ".sql":
        raise MigrationError(f"{path.name}: migrations are SQL only")
    text = _read_text(path)
    directives = parse_metadata_from_sql_comments(text)[0]
    depends = directives.get("depends", "").split()
    # One of a system that is not selected may be applied all the same: pending() looks.
    item.elsewhere = tuple((name, left_out[name]) for name in depends if name not in known and name in left_out)
    missing = [name for name in depends if name not in known and name not in left_out]
    if missing:
        raise exceptions.BadMigration(f"{path.name} depends on {missing[0]}, which is not there")
    item._depends = {known[name] for name in depends if name in known}
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
        rollback_text=_read_text(rollback) if rollback.is_file() else "",
        system=system_of(Path(item.path)),
        elsewhere=item.elsewhere,
        source=item,
    )


def _read_text(path: Path) -> str:
    """A file's text, which holds no transaction control; the tests have read those that are bundled."""
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as exc:
        raise MigrationError(f"{path.name} is not UTF-8: {exc.reason} at byte {exc.start}. Save it as UTF-8") from exc
    if text.startswith("\ufeff"):
        raise MigrationError(
            f"{path.name} begins with a byte order mark, which is no SQL: save it as UTF-8 without one (without BOM)"
        )
    found = None if system_of(path) else refused(text)
    if found:
        raise MigrationError(f"{path.name}, {found}")
    return text


@lru_cache(maxsize=256)
def _split(text: str) -> tuple[str, ...]:
    return tuple(statements(text))
