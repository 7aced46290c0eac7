"""The dbt project that is compiled and built: a root over the bundled project, a user's own one, and its packages.

Only a root may switch folders of a package on and off and override ref() and source(), and dbt takes every folder below
`packages-install-path` for a package: so the root is written, and the projects are linked into it. Nothing is fetched.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

from runner.errors import GateCompileError, UsageError
from runner.settings import Settings
from runner.systems import SYSTEMS, bundled

BUNDLED: Final = "reconciliation"
"""The name of the bundled dbt project; own ones refer to it without naming it."""

_NAME: Final = "gates_of_the_runner"
_FILE: Final = "dbt_project.yml"
_MARK: Final = "# Written by `runner gates --write`, and written anew the next time.\n"
_NOT_SOURCE: Final = ("target", "logs")


@dataclass(frozen=True, slots=True)
class Own:
    """A dbt project of the user's, and the packages that `dbt deps` brought into it."""

    name: str
    path: Path
    packages: tuple[Path, ...]


def own_project(settings: Settings) -> Own | None:
    """The project of settings.dbt_project. Raises GateCompileError where it is none or has a name of ours."""
    path = settings.dbt_project
    if path is None or path.resolve() == bundled("dbt_project").resolve():
        return None
    file = path / _FILE
    if not file.is_file():
        raise GateCompileError(f"{path} holds no {_FILE}: name the dbt project in runner.toml (dbt_project)")
    said = _read(file)
    name = said.get("name")
    if not isinstance(name, str) or not name:
        raise GateCompileError(f"{file} has no name: one line is enough, name: my_gates")
    if not re.fullmatch(r"[^\W\d]\w*", name):
        raise GateCompileError(f"{file}: name: {name!r} is not a name for dbt: letters, digits and underscores")
    if name in (BUNDLED, _NAME):
        raise GateCompileError(f"{file}: name: {name} is the name of the runner's own dbt project; choose another")
    return Own(name, path, tuple(_packages(path, said)))


def fingerprint(settings: Settings) -> bytes:
    """sha256 over all that decides what the root is: systems, and both projects by relative name and content."""
    digest = sha256(repr(sorted(settings.systems)).encode())
    own = own_project(settings)
    projects = [bundled("dbt_project"), *((own.path, *own.packages) if own else ())]
    for project in projects:
        digest.update(b"\0project")
        for file in sorted(_sources(project)):
            content = file.read_bytes()
            digest.update(f"\0{file.relative_to(project).as_posix()}\0{len(content)}\0".encode())
            digest.update(content)
    return digest.digest()


def write_root(settings: Settings, directory: Path, *, profile: str = "backfill", gates: bool = False) -> None:
    """Write the root project for the selected systems and the own project into `directory`; dbt needs nothing else.

    With `gates` no model becomes an object of the database. Raises GateCompileError for an own project that is none.
    """
    own = own_project(settings)
    (directory / "macros").mkdir(parents=True)
    (directory / "packages").mkdir()
    home = bundled("dbt_project").resolve()
    shutil.copyfile(home / "macros" / "names.sql", directory / "macros" / "names.sql")
    links = {BUNDLED: home}
    if own:
        links |= {own.name: own.path} | {package.name: package for package in own.packages}
    for name, project in links.items():
        (directory / "packages" / name).symlink_to(project.resolve(), target_is_directory=True)
    (directory / _FILE).write_text(_MARK + _dump(_root(settings, profile, gates)), encoding="utf-8")


def write_project(settings: Settings, directory: Path) -> None:
    """Write the root, with a profile that reads libpq's variables, for `dbt build --project-dir D --profiles-dir D`.

    A folder that holds anything else than what was written before is refused (UsageError); its profiles.yml stays.
    """
    profiles = directory / "profiles.yml"
    try:
        _clear(directory)
        write_root(settings, directory)
        if not profiles.exists():
            shutil.copyfile(bundled("dbt_project").parent / "profiles.yml.example", profiles)
    except OSError as exc:
        raise UsageError(f"{directory}: {exc}") from exc


def _root(settings: Settings, profile: str, gates: bool) -> dict[str, Any]:
    return {
        "name": _NAME,
        "config-version": 2,
        "profile": profile,
        "packages-install-path": "packages",
        "macro-paths": ["macros"],
        "flags": {"send_anonymous_usage_stats": False},
        # On top of all projects: a gate must be one SELECT that needs no object of dbt's.
        "models": {**({"+materialized": "ephemeral"} if gates else {}), BUNDLED: _switches(settings)},
        "data_tests": {BUNDLED: _switches(settings)},
    }


def _switches(settings: Settings) -> dict[str, dict[str, Any]]:
    # A list given to `dbt build --vars` chooses among the selected ones, as where the bundled project is the root.
    among = "{{{{ '{0}' in var('systems', ['{0}']) }}}}"
    return {name: {"+enabled": among.format(name) if name in settings.systems else False} for name in SYSTEMS}


def _clear(directory: Path) -> None:
    """Make room for a root: take away one that was written before, and refuse a folder that holds anything else."""
    if not directory.is_dir() or not any(directory.iterdir()):
        return
    file = directory / _FILE
    if not (file.is_file() and file.read_text(encoding="utf-8").startswith(_MARK)):
        raise UsageError(f"{directory} is not empty: name a folder that is not there yet, or one written before")
    for folder in ("macros", "packages"):
        shutil.rmtree(directory / folder)


def _packages(project: Path, said: dict[str, Any]) -> Iterator[Path]:
    """What `dbt deps` installed beside an own project."""
    folder = project / str(said.get("packages-install-path", "dbt_packages"))
    if folder.is_dir():
        for package in sorted(folder.iterdir()):
            # An own project may have the bundled one among its packages, to be parsed by itself.
            if (package / _FILE).is_file() and package.resolve() != bundled("dbt_project").resolve():
                yield package
    elif any((project / name).is_file() for name in ("packages.yml", "dependencies.yml")):
        raise GateCompileError(f"{project} names packages that are not installed: dbt deps --project-dir {project}")


def _sources(project: Path) -> Iterator[Path]:
    seen = set()
    for directory, folders, files in os.walk(project, followlinks=True):  # as dbt does
        here = Path(directory)
        if here.resolve() in seen:
            folders.clear()
            continue
        seen.add(here.resolve())
        # What dbt writes, at the top only; and what starts with a dot, which it does not read.
        folders[:] = [name for name in folders if name[0] != "." and not (here == project and name in _NOT_SOURCE)]
        yield from (here / name for name in files if name[0] != ".")


def _read(file: Path) -> dict[str, Any]:
    import yaml  # dbt's own; a runner without an own project starts without it

    try:
        said = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as exc:
        raise GateCompileError(f"{file}: not valid YAML: {exc}") from exc
    if not isinstance(said, dict):
        raise GateCompileError(f"{file} is empty: one line is enough, name: my_gates")
    return said


def _dump(root: dict[str, Any]) -> str:
    import yaml

    return str(yaml.safe_dump(root, sort_keys=False))
