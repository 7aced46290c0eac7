"""Gates: dbt tests that must pass on the uncommitted rows, before the commit.

dbt opens its own connection and cannot see an open transaction. So the project is compiled once, offline,
with the target `gates`, where every test becomes one SELECT that needs no object of dbt's; these run on the
runner's connection and are judged as dbt judges them. What was compiled is kept by the project's content:
a runner that finds it imports no dbt. What a test means is dbt's alone; here nobody knows.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass
from hashlib import sha256
from importlib import metadata
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

import psycopg
from psycopg import sql
from psycopg.rows import dict_row, tuple_row

from runner.errors import GateError, RunnerError
from runner.settings import Settings

Severity = Literal["error", "warn"]
Status = Literal["pass", "warn", "fail", "error"]

COMPILE_SECONDS: Final = 300
_FORMAT: Final = 1  # of the kept file
_NOT_SOURCE: Final = ("target", "logs")
_RETRYABLE: Final = (
    psycopg.errors.SerializationFailure,
    psycopg.errors.DeadlockDetected,
    psycopg.errors.LockNotAvailable,
)
# dbt only warns of a test that refers to nothing, and leaves it out: a gate would be gone.
_MISSING_IS_AN_ERROR: Final = '{"error": ["NodeNotFoundOrDisabled"]}'
# dbt wants a profile even where it must not connect; the reserved name makes sure that it does not.
_PROFILE: Final = """\
offline:
  target: gates
  outputs:
    gates: {type: postgres, host: offline.invalid, port: 5432, user: nobody, password: "", dbname: offline,
            schema: reconciliation, threads: 1}
"""


class GateCompileError(RunnerError):
    """The dbt project cannot be compiled into gates."""


class NoGateError(GateError):
    """A due backfill has no gate that could stop it."""


@dataclass(frozen=True, slots=True)
class Gate:
    """One dbt test. `sql` selects the failing rows; the last three are dbt's configs of the same name."""

    name: str
    sql: str
    severity: Severity
    backfills: tuple[str, ...]
    """The test's tags; a gate guards the backfills of these names."""
    description: str = ""
    fail_calc: str = "count(*)"
    warn_if: str = "!= 0"
    error_if: str = "!= 0"


Gates: TypeAlias = tuple[Gate, ...]


@dataclass(frozen=True, slots=True)
class GateResult:
    """How one gate ended. `failures` is the full count, `rows` a sample of them by column name."""

    name: str
    severity: Severity
    status: Status
    failures: int
    rows: list[dict[str, Any]]
    seconds: float
    message: str = ""
    """The server's words where the gate's own SQL failed (status error)."""

    @property
    def stops(self) -> bool:
        """Whether nothing may be committed after this result."""
        return self.status in ("fail", "error")


def compile(settings: Settings) -> Gates:  # noqa: A001 - read as gates.compile
    """All tests of the dbt project that carry a tag, by name; from the cache where the project is unchanged.

    Raises GateCompileError with dbt's own words.
    """
    kept = _cache() / f"{_key(settings.dbt_project)}.json"
    try:
        return _load(kept.read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError, KeyError):
        pass  # not there yet, or not whole: it is made anew
    gates = _from_manifest(_dbt_compile(settings.dbt_project))
    _keep(kept, gates)
    return gates


def require(gates: Gates, backfills: Collection[str]) -> None:
    """Refuse (NoGateError) a backfill that no gate of severity error guards: it would pass on nothing."""
    guarded = {name for gate in gates if gate.severity == "error" for name in gate.backfills}
    missing = [name for name in backfills if name not in guarded]
    if missing:
        raise NoGateError(
            f"no gate guards {', '.join(missing)}: nothing could stop a wrong commit. Add a dbt test of severity "
            f"error with the tag {missing[0]}, for example as dbt_project/tests/{missing[0]}/<what must not be>.sql"
        )


def run(conn: psycopg.Connection[Any], gates: Gates, backfills: Collection[str], sample: int = 20) -> list[GateResult]:
    """Run the gates of `backfills` inside the open transaction; at most `sample` failing rows of each are fetched.

    Each runs read-only below a savepoint of its own, so that neither its errors nor its settings stay behind.
    A gate whose SQL fails is a result (status error). Raises NoGateError, and psycopg.OperationalError where the
    server or a lock failed rather than the gate.
    """
    require(gates, backfills)
    wanted = set(backfills)
    return [_run(conn, gate, sample) for gate in gates if wanted.intersection(gate.backfills)]


def _run(conn: psycopg.Connection[Any], gate: Gate, sample: int) -> GateResult:
    started = time.perf_counter()
    status: Status
    rows: list[dict[str, Any]] = []
    message = ""
    try:
        # Rolled back in any case: that alone undoes `set local` before the end of the transaction.
        with conn.transaction(force_rollback=True):
            conn.execute("set transaction read only")
            conn.execute("set local jit = off")  # compiling plans of large estimates costs more than it gives
            conn.execute("set local work_mem = '64MB'")  # gates join and group whole tables
            status, failures = _judge(conn, gate)
            if status != "pass":
                rows = _sample(conn, gate, sample)
    except psycopg.OperationalError as exc:
        if not isinstance(exc, psycopg.errors.QueryCanceled):
            raise
        status, failures, message = "error", 0, _words(exc)
    except psycopg.Error as exc:
        if conn.closed or isinstance(exc, _RETRYABLE):
            raise
        status, failures, message = "error", 0, _words(exc)
    return GateResult(gate.name, gate.severity, status, failures, rows, time.perf_counter() - started, message)


def _judge(conn: psycopg.Connection[Any], gate: Gate) -> tuple[Status, int]:
    """As dbt does: its get_test_sql, then its order of severity, error_if and warn_if."""
    query = sql.SQL("select {calc}, {calc} {warn_if}, {calc} {error_if} from (\n{test}\n) as dbt_internal_test").format(
        calc=sql.SQL(gate.fail_calc),
        warn_if=sql.SQL(gate.warn_if),
        error_if=sql.SQL(gate.error_if),
        test=sql.SQL(gate.sql),
    )
    with conn.cursor(row_factory=tuple_row) as cursor:
        row = cursor.execute(query).fetchone()
    if row is None or row[0] is None:
        raise psycopg.DataError(f"fail_calc {gate.fail_calc} gave no number")
    failures, should_warn, should_error = row
    if gate.severity == "error" and should_error:
        return "fail", int(failures)
    if should_warn:
        return "warn", int(failures)
    return "pass", 0


def _sample(conn: psycopg.Connection[Any], gate: Gate, sample: int) -> list[dict[str, Any]]:
    query = sql.SQL("select * from (\n{test}\n) as failing limit {sample}").format(
        test=sql.SQL(gate.sql), sample=sample
    )
    with conn.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(query).fetchall()


def _words(exc: psycopg.Error) -> str:
    return exc.diag.message_primary or str(exc)


def _cache() -> Path:
    """In the user's own cache, not in the project: it is SQL that will run with the user's rights."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path("~/.cache").expanduser()) / "backfill-runner" / "gates"


def _key(project: Path) -> str:
    """sha256 over dbt's versions and the project's files with their names."""
    if not (project / "dbt_project.yml").is_file():
        raise GateCompileError(f"{project} holds no dbt_project.yml: name the dbt project in runner.toml (dbt_project)")
    digest = sha256(f"{_FORMAT} {_version('dbt-core')} {_version('dbt-postgres')}".encode())
    for file in sorted(_sources(project)):
        content = file.read_bytes()
        digest.update(f"\0{file.relative_to(project).as_posix()}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()


def _sources(project: Path) -> Iterator[Path]:
    for directory, folders, files in os.walk(project):
        here = Path(directory)
        # What dbt writes, at the top only; and what starts with a dot, which it does not read.
        folders[:] = [name for name in folders if name[0] != "." and not (here == project and name in _NOT_SOURCE)]
        yield from (here / name for name in files if name[0] != ".")


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError as exc:
        raise GateCompileError(f"{package} is not installed beside the runner: make install") from exc


def _keep(file: Path, gates: Gates) -> None:
    """Write whole or not at all, also beside another runner; a cache that cannot be written only costs time."""
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=file.parent, delete=False) as part:
            json.dump([asdict(gate) for gate in gates], part)
        Path(part.name).replace(file)
    except OSError:
        return


def _load(text: str) -> Gates:
    return tuple(Gate(**{**values, "backfills": tuple(values["backfills"])}) for values in json.loads(text))


def _from_manifest(manifest: dict[str, Any]) -> Gates:
    """The tests of dbt's manifest that carry a tag; dbt's unit tests and disabled tests are not among its tests."""
    tests = [node for node in manifest["nodes"].values() if node["resource_type"] == "test" and node["tags"]]
    return tuple(_gate(node) for node in sorted(tests, key=lambda node: str(node["name"])))


def _gate(node: dict[str, Any]) -> Gate:
    config = node["config"]
    limit = config.get("limit")
    return Gate(
        name=node["name"],
        sql=node["compiled_code"] + (f"\nlimit {limit}" if limit is not None else ""),
        severity="error" if config["severity"].lower() == "error" else "warn",
        backfills=tuple(sorted(node["tags"])),
        description=" ".join(node.get("description", "").split()),
        fail_calc=config["fail_calc"],
        warn_if=config["warn_if"],
        error_if=config["error_if"],
    )


def _dbt_compile(project: Path) -> dict[str, Any]:
    """dbt's manifest. In a process of its own: dbt takes 100 MB, five seconds and the logging of whoever imports it."""
    with tempfile.TemporaryDirectory(prefix="gates-") as scratch:
        (Path(scratch) / "profiles.yml").write_text(_PROFILE, encoding="utf-8")
        command = [
            sys.executable, "-c", "from dbt.cli.main import cli; cli()", "--quiet", "--no-use-colors", "compile",
            "--project-dir", str(project.resolve()), "--profiles-dir", scratch,
            "--profile", "offline", "--target", "gates", "--target-path", scratch, "--log-path", scratch,
            "--no-introspect", "--no-populate-cache", "--no-partial-parse", "--no-version-check",
            "--no-send-anonymous-usage-stats", "--warn-error-options", _MISSING_IS_AN_ERROR,
        ]  # fmt: skip
        # dbt takes every option from DBT_… too; what was compiled must depend on the project alone.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("DBT_")}
        try:
            done = subprocess.run(
                command, cwd=scratch, env=environment, capture_output=True, text=True, timeout=COMPILE_SECONDS,
                check=False,
            )  # fmt: skip
            if done.returncode:
                raise GateCompileError(f"the dbt project {project} cannot be compiled: {_dbt_words(done)}")
            manifest: dict[str, Any] = json.loads((Path(scratch) / "manifest.json").read_text(encoding="utf-8"))
        except subprocess.TimeoutExpired as exc:
            raise GateCompileError(f"dbt compile of {project} took longer than {COMPILE_SECONDS} s") from exc
    return manifest


def _dbt_words(done: subprocess.CompletedProcess[str]) -> str:
    lines = [line.strip() for line in (done.stdout or done.stderr).splitlines()]
    return "\n".join([line for line in lines if line][-12:])
