"""Gates: dbt tests that must pass on the uncommitted rows, before the commit.

dbt opens its own connection and cannot see an open transaction. So the project is compiled once, offline,
with the target `gates`, where every test becomes one SELECT that needs no object of dbt's; these run on the
runner's connection and are judged as dbt judges them. What was compiled is kept by the project's content:
a runner that finds it imports no dbt. What a test means is dbt's alone; here nobody knows.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from importlib import metadata
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

import psycopg
from psycopg import sql
from psycopg.rows import dict_row, tuple_row

from runner import cache, dbt_root
from runner.database import connect, transaction
from runner.errors import GateCompileError, GateError, RunnerError
from runner.pinned import ROLE_NAMES, place, role_names
from runner.planning import plan_for_many
from runner.settings import Settings
from runner.shared_models import ONE_STATEMENT, Model, models_of, share
from runner.systems import SYSTEMS
from runner.text import clean

Severity = Literal["error", "warn"]
Status = Literal["pass", "warn", "fail", "error"]

COMPILE_SECONDS: Final = 300
_LOG: Final = logging.getLogger(__name__)
CACHE: Final = "gates"
"""The folder of the cache where compiled gates are kept."""
_FORMAT: Final = 3  # of the kept file
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
    models: tuple[Model, ...] = ()
    """Models that `sql` holds as common table expressions, each after those that it uses."""
    uses: tuple[str, ...] = ()
    """Those of them that it refers to itself."""


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
    description: str = ""
    """What must not be, in the words of dbt's description; empty where it has none."""

    @property
    def stops(self) -> bool:
        """Whether nothing may be committed after this result."""
        return self.status in ("fail", "error")


def compile(settings: Settings) -> Gates:  # noqa: A001 - read as gates.compile
    """The gates of the selected systems and of the own project, by name; from the cache where nothing has changed.

    A gate is a test with a tag, or one in a folder below tests/, whose name then is its tag. With neither a system nor
    an own project there is none, and no dbt is started. Raises GateCompileError with dbt's own words.
    """
    if not settings.systems and dbt_root.own_project(settings) is None:
        return ()
    kept = f"{_key(settings)}.json"
    try:
        return _load(cache.read(CACHE, kept) or "")
    except (ValueError, TypeError, KeyError):
        pass  # not there yet, not to be trusted, or not whole: it is made anew
    gates = _from_manifest(_dbt_compile(settings))
    fault = cache.write(CACHE, kept, json.dumps([asdict(gate) for gate in gates]))
    if fault is not None:
        _LOG.warning("%s", clean(uncached(fault)))
    return gates


def uncached(fault: str) -> str:
    """What it costs that compiled gates cannot be kept, and the way out."""
    return (
        f"the compiled gates cannot be kept ({fault}): dbt compiles them anew each time, which takes seconds. Set "
        "XDG_CACHE_HOME to a folder of your own that nobody else may write"
    )


def require(gates: Gates, backfills: Collection[str]) -> None:
    """Refuse (NoGateError) a backfill that no gate of severity error guards: it would pass on nothing."""
    guarded = {name for gate in gates if gate.severity == "error" for name in gate.backfills}
    missing = [name for name in backfills if name not in guarded]
    if missing:
        raise NoGateError(
            f"no gate guards {', '.join(missing)}: nothing could stop a wrong commit. Add a dbt test of severity "
            f"error with the tag {missing[0]}, for example as dbt_project/tests/{missing[0]}/<what must not be>.sql"
        )


def run(
    conn: psycopg.Connection[Any],
    gates: Gates,
    backfills: Collection[str],
    sample: int = 20,
    *,
    after: Callable[[str], None] = lambda _: None,
    progress: Callable[[int, int], object] = lambda *_: None,
) -> list[GateResult]:
    """Run the gates of `backfills` inside the open transaction; at most `sample` failing rows of each are fetched.

    Each runs read-only below a savepoint of its own, so that neither its errors nor its settings stay behind; `after`
    each, which is named, the caller may look at the transaction. A gate whose SQL fails is a result (status error).
    Raises NoGateError, and psycopg.OperationalError where the server or a lock failed, or where somebody or
    statement_timeout cancelled it, rather than the gate: the next one would find the same.
    """
    require(gates, backfills)
    wanted = set(backfills)
    shared = _shared(conn, [gate for gate in gates if wanted.intersection(gate.backfills)])
    after("models that several gates read")
    results = []
    for number, gate in enumerate(shared, 1):
        progress(number, len(shared))
        results.append(_run(conn, gate, sample))
        after(f"gate {gate.name}")
    return results


@dataclass(frozen=True, slots=True)
class GateCheck:
    """How the gates of the selected systems and of the own project judge committed data."""

    database: str
    server: str
    gates: tuple[GateResult, ...]
    unguarded: tuple[str, ...]
    """Backfills of the catalog, of what was selected or is the project's own, that no gate could stop."""

    @property
    def stopped(self) -> tuple[GateResult, ...]:
        """The gates that forbid a commit."""
        return tuple(gate for gate in self.gates if gate.stops)

    @property
    def exit_code(self) -> int:
        """3 where a gate stops, or where a backfill has none."""
        return 3 if self.stopped or self.unguarded else 0


def check(settings: Settings, *, sample: int = 20, progress: Callable[[str], None] = lambda _: None) -> GateCheck:
    """Run all gates on committed data in one read-only snapshot: what CI asks. Waivers of a promotion do not count.

    Raises RunnerError where the engine or a selected system is not installed.
    """
    progress("compiling the gates")
    compiled = compile(settings)
    with connect(settings, application_name="runner gates") as conn, transaction(conn, settings):
        unguarded = _unguarded(conn, settings, compiled)
        progress("gates")
        shared = _shared(conn, compiled)
        conn.execute("set transaction read only")
        results = tuple(_run(conn, gate, sample) for gate in shared)
        server, at = conn.info.parameter_status("server_version") or "", place(conn)
    return GateCheck(at, server, results, unguarded)


def _unguarded(conn: psycopg.Connection[Any], settings: Settings, gates: Gates) -> tuple[str, ...]:
    engine = conn.execute("select to_regclass('backfill.catalog') is not null").fetchone()
    if not (engine and engine[0]):
        raise RunnerError("there is nothing to judge: the engine is not installed in this database; runner apply")
    catalog = conn.execute("select backfill, system from backfill.catalog order by position").fetchall()
    missing = [name for name in settings.systems if name not in {system for _, system in catalog}]
    if missing:
        raise RunnerError(
            f"{', '.join(missing)}: not installed in this database; runner apply, or select others in runner.toml"
        )
    guarded = {name for gate in gates if gate.severity == "error" for name in gate.backfills}
    left_out = set(SYSTEMS) - set(settings.systems)
    return tuple(name for name, system in catalog if system not in left_out and name not in guarded)


def _shared(conn: psycopg.Connection[Any], gates: Sequence[Gate]) -> Gates:
    """The gates, with the models that several of them read computed once; the transaction is not read-only yet."""
    with role_names(conn):
        texts = share(conn, gates)
    return tuple(replace(gate, sql=text) for gate, text in zip(gates, texts, strict=True))


def _run(conn: psycopg.Connection[Any], gate: Gate, sample: int) -> GateResult:
    started = time.perf_counter()
    status: Status
    rows: list[dict[str, Any]] = []
    message = ""
    try:
        # Rolled back in any case: that alone undoes `set local` before the end of the transaction.
        with conn.transaction(force_rollback=True):
            conn.execute("set transaction read only")
            conn.execute(ROLE_NAMES)
            plan_for_many(conn)
            status, failures = _judge(conn, gate)
            if status != "pass":
                rows = _sample(conn, gate, sample)
    except psycopg.OperationalError as exc:
        exc.add_note(f"gate {gate.name}")
        raise
    except psycopg.Error as exc:
        if conn.closed or isinstance(exc, _RETRYABLE):
            raise
        status, failures, message = "error", 0, _words(exc)
    return GateResult(
        gate.name, gate.severity, status, failures, rows, time.perf_counter() - started, message, gate.description
    )


def _judge(conn: psycopg.Connection[Any], gate: Gate) -> tuple[Status, int]:
    """As dbt does: its get_test_sql, then its order of severity, error_if and warn_if."""
    query = sql.SQL(
        "{one} select {calc}, {calc} {warn_if}, {calc} {error_if} from (\n{test}\n) as dbt_internal_test"
    ).format(
        one=ONE_STATEMENT,
        calc=sql.SQL(gate.fail_calc),
        warn_if=sql.SQL(gate.warn_if),
        error_if=sql.SQL(gate.error_if),
        test=sql.SQL(gate.sql),
    )
    with psycopg.RawCursor(conn, row_factory=tuple_row) as cursor:
        row = cursor.execute(query, [1]).fetchone()
    if row is None or row[0] is None:
        raise psycopg.DataError(f"fail_calc {gate.fail_calc} gave no number")
    failures, should_warn, should_error = row
    if gate.severity == "error" and should_error:
        return "fail", int(failures)
    if should_warn:
        return "warn", int(failures)
    return "pass", 0


def _sample(conn: psycopg.Connection[Any], gate: Gate, sample: int) -> list[dict[str, Any]]:
    query = sql.SQL("{one} select * from (\n{test}\n) as failing limit {sample}").format(
        one=ONE_STATEMENT, test=sql.SQL(gate.sql), sample=sample
    )
    with psycopg.RawCursor(conn, row_factory=dict_row) as cursor:
        return cursor.execute(query, [1]).fetchall()


def _words(exc: psycopg.Error) -> str:
    return " ".join((exc.diag.message_primary or str(exc)).split())


def _key(settings: Settings) -> str:
    """sha256 over dbt's versions and all that the root project is made of."""
    versions = f"{_FORMAT} {_version('dbt-core')} {_version('dbt-postgres')}"
    return sha256(versions.encode() + dbt_root.fingerprint(settings)).hexdigest()


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError as exc:
        raise GateCompileError(f"{package} is not installed beside the runner: make install") from exc


def _load(text: str) -> Gates:
    return tuple(
        Gate(
            **{**row, "backfills": tuple(row["backfills"]), "models": tuple(row["models"]), "uses": tuple(row["uses"])}
        )
        for row in json.loads(text, object_hook=_model)
    )


def _model(values: dict[str, Any]) -> Any:
    """What json.loads() makes of an object: a model where it is one."""
    return (
        Model(values["name"], values["sql"], tuple(values["uses"]))
        if values.keys() == {"name", "sql", "uses"}
        else values
    )


def _from_manifest(manifest: dict[str, Any]) -> Gates:
    """The gates among dbt's tests; its unit tests and disabled tests are not among them."""
    tests = [node for node in manifest["nodes"].values() if node["resource_type"] == "test" and _guarded(node)]
    twice = [name for name, count in Counter(node["name"] for node in tests).items() if count > 1]
    if twice:  # dbt takes it where the projects differ; a waiver and a report could not tell which is meant
        files = sorted(
            f"{node['package_name']}: {node['original_file_path']}" for node in tests if node["name"] in twice
        )
        raise GateCompileError(f"two gates are named {twice[0]}; rename one of {', '.join(files)}")
    nodes = manifest["nodes"]
    return tuple(_gate(node, nodes) for node in sorted(tests, key=lambda node: str(node["name"])))


def _guarded(node: dict[str, Any]) -> tuple[str, ...]:
    """The backfills that a test guards: its tags, else its folder below tests/. A model's untagged test guards none."""
    folders = [] if "test_metadata" in node else node["fqn"][1:-1]
    return tuple(sorted(node["tags"])) or tuple(folders[-1:])


def _gate(node: dict[str, Any], nodes: dict[str, Any]) -> Gate:
    config = node["config"]
    limit = config.get("limit")
    models, uses = models_of(node, nodes)
    return Gate(
        name=node["name"],
        sql=node["compiled_code"] + (f"\nlimit {limit}" if limit is not None else ""),
        severity="error" if config["severity"].lower() == "error" else "warn",
        backfills=_guarded(node),
        description=" ".join(node.get("description", "").split()),
        fail_calc=config["fail_calc"],
        warn_if=config["warn_if"],
        error_if=config["error_if"],
        models=models,
        uses=uses,
    )


def _dbt_compile(settings: Settings) -> dict[str, Any]:
    """dbt's manifest. In a process of its own: dbt takes 100 MB, five seconds and the logging of whoever imports it."""
    with tempfile.TemporaryDirectory(prefix="gates-") as scratch:
        root = Path(scratch) / "root"
        dbt_root.write_root(settings, root, profile="offline", gates=True)
        (Path(scratch) / "profiles.yml").write_text(_PROFILE, encoding="utf-8")
        command = [
            sys.executable, "-c", "from dbt.cli.main import cli; cli()", "--quiet", "--no-use-colors", "compile",
            "--project-dir", str(root), "--profiles-dir", scratch,
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
        except subprocess.TimeoutExpired as exc:
            raise GateCompileError(f"dbt compile took longer than {COMPILE_SECONDS} s") from exc
        if done.returncode:
            project = settings.dbt_project or "of the selected systems"
            raise GateCompileError(f"the dbt project {project} cannot be compiled: {_dbt_words(done)}")
        manifest: dict[str, Any] = json.loads((Path(scratch) / "manifest.json").read_text(encoding="utf-8"))
    return manifest


def _dbt_words(done: subprocess.CompletedProcess[str]) -> str:
    lines = [line.strip() for line in (done.stdout or done.stderr).splitlines()]
    return "\n".join([line for line in lines if line][-12:])
