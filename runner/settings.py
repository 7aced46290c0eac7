"""Where the database and the limits come from: command line, environment, runner.toml, libpq's own variables."""

from __future__ import annotations

import math
import os
import re
import time
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from runner.errors import ConfigurationError
from runner.systems import SYSTEMS, Sources, bundled, selected

FILE_NAME = "runner.toml"

_FOLDERS = ("migrations", "dbt_project")
_SECRET = re.compile(r"password|secret|_key$")
_URL = re.compile(r"^postgres(ql)?://", re.IGNORECASE)
_DURATION = re.compile(r"^\s*(\d+)\s*(ms|s|min|h)?\s*$")
_LONGEST = 2**31 - 1
_UNIT = {"ms": 1, "s": 1_000, "min": 60_000, "h": 3_600_000, None: 1}


@dataclass(frozen=True, slots=True)
class Settings:
    """What a run needs to know before it connects. Durations are milliseconds; 0 means no limit.

    `conninfo` may hold a password and is therefore left out of repr(); print `shown` instead. Empty means
    that libpq's defaults and variables (PGHOST, PGSERVICE, ~/.pgpass …) decide.
    """

    conninfo: str = field(default="", repr=False)
    lock_timeout: int = 5_000
    statement_timeout: int = 1_800_000
    idle_in_transaction_timeout: int = 300_000
    lock_wait: int = 30_000
    """How long to wait for another runner before giving up (exit 5)."""
    lock_budget: int = 1_000
    """How long others may wait for a lock of this run before it is ended (exit 5)."""
    max_time: int = 0
    """How long the whole verb may take (exit 1)."""
    deadline: float = field(default=math.inf, compare=False)
    """When max_time is over, by the clock that only goes forward."""
    retries: int = 3
    """How often a transaction that met 40001, 40P01 or 55P03 is tried again."""
    systems: tuple[str, ...] = ()
    """The systems of ours that the project uses; none means the engine and the project's own alone."""
    migrations: Path | None = None
    """The project's own migrations: a folder, and its sub-folders. Default: migrations/ beside runner.toml."""
    dbt_project: Path | None = None
    """The project's own gates: a dbt project. Default: dbt_project/ beside runner.toml."""
    tables: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """`[<system>]` of runner.toml: each system reads and checks its own; never a token."""

    @property
    def sources(self) -> Sources:
        """Where migrations come from: the engine's, the selected systems' and the own ones."""
        return Sources.of(self.systems, self.migrations)

    @property
    def time_left(self) -> float:
        """Seconds of max_time that are left; below zero where it is over."""
        return self.deadline - time.monotonic()

    @property
    def shown(self) -> str:
        """The connection as it may be printed."""
        return redact(self.conninfo)


def load_settings(
    *,
    database_url: str | None = None,
    config: Path | None = None,
    environ: dict[str, str] | None = None,
    directory: Path | None = None,
) -> Settings:
    """Read the settings; the database is --database-url, else DATABASE_URL, else runner.toml, else libpq's.

    `config` names the file, else RUNNER_CONFIG; without them the nearest runner.toml upward from `directory` (the
    current one) is used, if there is any. Raises ConfigurationError naming file, key and value.
    """
    environment = os.environ if environ is None else environ
    file = _find(config, environment, directory or Path.cwd())
    values = _read(file) if file else {}
    from_file = values.pop("database_url", "")
    conninfo = database_url or environment.get("DATABASE_URL") or from_file
    settings = limited(Settings(conninfo=conninfo, **values))
    if conninfo and _parse(conninfo) is None:
        origin = "--database-url" if database_url else "DATABASE_URL" if environment.get("DATABASE_URL") else file
        raise ConfigurationError(f"{origin}: {redact(conninfo)}")
    return settings


def limited(settings: Settings, **limits: int) -> Settings:
    """The settings with these limits; max_time begins now."""
    settings = replace(settings, **limits)  # type: ignore[arg-type]
    deadline = time.monotonic() + settings.max_time / 1000 if settings.max_time else math.inf
    return replace(settings, deadline=deadline)


def redact(conninfo: str) -> str:
    """The connection without any secret, as `host=… dbname=…`; a malformed one is described, never repeated."""
    if not conninfo.strip():
        return "libpq's defaults"
    parameters = _parse(conninfo)
    if parameters is None:
        return (
            "the connection string cannot be read; it is not repeated here because it may hold a password. "
            "Expected postgresql://user@host:port/database, with characters such as @ : / ? # % in a "
            "password written as %40 %3A %2F %3F %23 %25, or key=value pairs as libpq takes them"
        )
    return " ".join(f"{key}={value}" for key, value in parameters.items() if not _SECRET.search(key))


def scrub(text: str, conninfo: str) -> str:
    """`text` without any secret of `conninfo` or PGPASSWORD, for messages that come from elsewhere."""
    secrets = {value for key, value in (_parse(conninfo) or {}).items() if _SECRET.search(key)}
    secrets.add(os.environ.get("PGPASSWORD", ""))
    for secret in sorted(secrets, key=len, reverse=True):
        if secret:
            text = text.replace(secret, "****")
    return text


def duration(value: object) -> int:
    """Milliseconds of `5000`, "5s", "30min" or "1h", as PostgreSQL reads them. Raises ValueError."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return _limited(value)
    match = _DURATION.match(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError("expected milliseconds or a text such as 500ms, 5s, 30min, 1h")
    return _limited(int(match[1]) * _UNIT[match[2]])


def _limited(milliseconds: int) -> int:
    if milliseconds > _LONGEST:
        raise ValueError(f"is longer than {_LONGEST} milliseconds, the longest that the server takes; 0 is no limit")
    return milliseconds


def _parse(conninfo: str) -> dict[str, str] | None:
    """The parameters, or None where it cannot be read or where a piece of a password might be taken for a name."""
    import psycopg
    from psycopg.conninfo import conninfo_to_dict

    if _URL.match(conninfo):
        # libpq ends the password at the first @: an unescaped one would leave the rest of it in host or dbname.
        authority, _, _ = conninfo.partition("://")[2].partition("/")
        if conninfo.count("@") > 1 or conninfo.count("@") > authority.count("@"):
            return None
    try:
        parameters = conninfo_to_dict(conninfo)
    except psycopg.Error:
        return None
    port = str(parameters.get("port", ""))
    if not all(piece == "" or piece.isdecimal() for piece in port.split(",")):
        return None
    return {key: str(value) for key, value in parameters.items() if value is not None}


def _find(config: Path | None, environment: Mapping[str, str], directory: Path) -> Path | None:
    named = environment.get("RUNNER_CONFIG")
    for origin, file in (("--config", config), ("RUNNER_CONFIG", Path(named) if named else None)):
        if file is not None:
            if not file.is_file():
                raise ConfigurationError(f"{origin} {file}: there is no such file")
            return file
    start = directory.resolve()
    return next((path / FILE_NAME for path in (start, *start.parents) if (path / FILE_NAME).is_file()), None)


def _read(file: Path) -> dict[str, Any]:
    try:
        raw = tomllib.loads(file.read_text(encoding="utf-8-sig"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        # The parser's message quotes the text at fault, which may be the database's URL.
        raise ConfigurationError(f"{file}: not valid TOML (at fault: {_place(exc)})") from None
    known = {item.name for item in fields(Settings)} - {"conninfo", "tables", "deadline"} | {"database_url", *SYSTEMS}
    unknown = sorted(set(raw) - known)
    if unknown:
        raise ConfigurationError(f"{file}: unknown key {unknown[0]!r}; known are {', '.join(sorted(known))}")
    tables = {name: raw.pop(name) for name in SYSTEMS if name in raw}
    for name, table in tables.items():
        if not isinstance(table, dict):
            raise ConfigurationError(f"{file}: {name}: expected a table, [{name}]")
    values = {key: _convert(file, key, value) for key, value in raw.items()}
    for key in _FOLDERS:
        beside = (file.parent / key).resolve()
        there = file.parent / key
        if key in values or not (there.exists() or there.is_symlink()):
            continue
        if not there.is_dir():
            raise ConfigurationError(f"{there} is not a folder: move it, or name another in {file.name} ({key})")
        # In a checkout of ours they are the bundled ones, which are there anyway.
        if beside != bundled(key).resolve():
            values[key] = beside
    return values | {"tables": tables}


def _place(exc: Exception) -> str:
    match = re.search(r"line \d+, column \d+", str(exc))
    return match[0] if match else "unknown place"


def _convert(file: Path, key: str, value: object) -> object:
    try:
        if key in _FOLDERS:
            if not isinstance(value, str):
                raise ValueError("expected the name of a folder")
            return (file.parent / value).resolve()
        if key == "systems":
            if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
                raise ValueError(f"expected a list of names, of {', '.join(SYSTEMS)}")
            return selected(value)
        if key == "retries":
            if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 100:
                raise ValueError("expected a whole number from 0 to 100")
            return value
        if key == "database_url":
            if not isinstance(value, str):
                raise ValueError("expected a text")
            return value
        return duration(value)
    except ConfigurationError as exc:
        raise ConfigurationError(f"{file}: {key}: {exc}") from exc
    except ValueError as exc:
        shown = "" if key == "database_url" else f" = {value!r}"
        raise ConfigurationError(f"{file}: {key}{shown}: {exc}") from exc
