"""The five systems: their names, what builds on what, and where their files are.

The engine knows no system: what a system brings stands in its folder of migrations/ and dbt_project/, in its package
of the runner, and in the rows that its migrations write into backfill.catalog and backfill.promotion_check.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from runner.errors import ConfigurationError, MigrationError

ENGINE: Final = "engine"

REQUIRES: Final[dict[str, tuple[str, ...]]] = {
    "charges": (),
    "invoices": (),
    "rent": (),
    "reconciliation": ("invoices",),
    "lending": (),
}
"""Each system in the order of its band of migrations, and what it builds on."""

SYSTEMS: Final = tuple(REQUIRES)

_OWN_NAME: Final = re.compile(r"[1-9]\d{3}(_[a-z][a-z0-9]*){2,}")
_PACKAGE: Final = Path(__file__).resolve().parent


def bundled(name: str) -> Path:
    """A folder that comes with the runner, migrations or dbt_project: within the installed package, else beside it."""
    inside = _PACKAGE / "bundled" / name
    return inside if inside.is_dir() else _PACKAGE.parent / name


def sample(system: str) -> Path:
    """The folder of a system's sample: an application's tables, files, and the story that the demo tells."""
    return _PACKAGE / system / "sample"


def selected(names: Iterable[str]) -> tuple[str, ...]:
    """The systems of runner.toml in the order of their bands.

    Raises ConfigurationError for an unknown name and for one without what it builds on.
    """
    wanted = list(names)
    for name in wanted:
        if name not in REQUIRES:
            raise ConfigurationError(f"there is no system {name!r}; there are {', '.join(SYSTEMS)}")
        missing = [other for other in REQUIRES[name] if other not in wanted]
        if missing:
            raise ConfigurationError(f"{name} builds on {missing[0]}, which is not selected: {_listed(wanted)}")
    return tuple(name for name in SYSTEMS if name in wanted)


def builders_on(names: Collection[str]) -> set[str]:
    """`names` and the systems that build on them."""
    return {name for name in SYSTEMS if name in names or set(REQUIRES[name]) & set(names)}


def refuse_unselected(system: str, chosen: Collection[str]) -> None:
    """Refuse (ConfigurationError) a verb of a system that runner.toml does not select."""
    if system not in chosen:
        needed = [name for name in SYSTEMS if name in {*chosen, system, *REQUIRES[system]}]
        raise ConfigurationError(f"{system} is not selected: add it to systems in runner.toml: {_listed(needed)}")


def _listed(names: Iterable[str]) -> str:
    return "systems = [" + ", ".join(f'"{name}"' for name in names) + "]"


@dataclass(frozen=True, slots=True)
class Sources:
    """Folders of migrations: those that apply, and those that are only known, so that what they brought is not lost.

    `folders` are the engine's, the selected systems' and the own ones, `others` those of the systems left out.
    """

    folders: tuple[Path, ...]
    others: tuple[Path, ...] = ()

    @classmethod
    def of(cls, chosen: Collection[str], own: Path | None = None) -> Sources:
        """The bundled folders of the engine and of the `chosen` systems, and an own folder with its sub-folders."""
        home = bundled("migrations")
        return cls(
            (home / ENGINE, *(home / name for name in SYSTEMS if name in chosen), *_own(own, home)),
            tuple(home / name for name in SYSTEMS if name not in chosen),
        )


def _own(folder: Path | None, home: Path) -> tuple[Path, ...]:
    """A project's own folder and, one level below, those of its parts; in a checkout of ours there is no own one.

    Raises MigrationError for a file whose name is not a number from 1000 on, schema and entity.
    """
    if folder is None or folder == home.resolve():
        return ()
    if not folder.is_dir():
        raise ConfigurationError(f"{folder} is not a directory: set migrations in runner.toml")
    folders = (folder, *sorted(below for below in folder.iterdir() if below.is_dir() and any(below.glob("*.sql"))))
    for file in sorted(file for each in folders for file in each.glob("*.sql")):
        if not _OWN_NAME.fullmatch(file.stem.removesuffix(".rollback")):
            raise MigrationError(
                f"{file}: a migration of your own is named NNNN_<schema>_<entity>.sql, with a number from 1000 "
                "on, e.g. 1001_backfill_deposits.sql: rename it"
            )
    return folders


def system_of(path: Path) -> str | None:
    """The bundled system (or the engine) whose file this is; None for a file of the project's own."""
    home = bundled("migrations").resolve()
    folder = path.resolve().parent
    return folder.name if folder.parent == home else None
