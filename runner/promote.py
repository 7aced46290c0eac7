"""`runner promote`: the runbook's checklist, each line proved."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import psycopg
from psycopg import sql

from runner import gates as gates_
from runner import migrations
from runner.database import Connection, connect, transaction
from runner.errors import RunnerError, translate
from runner.money import money_text
from runner.pinned import ROLE_NAMES, place
from runner.proof import Proof, proved
from runner.settings import Settings
from runner.snapshot import checksum
from runner.status import unselected_systems
from runner.text import counted

State = Literal["green", "waived", "red"]


@dataclass(frozen=True, slots=True)
class Waiver:
    """Who answers for a finding, until which day (ISO) and why."""

    test: str
    until: str
    reason: str
    actor: str

    @property
    def kept(self) -> str:
        """What is committed, whatever becomes of the output."""
        return f"The waiver of {self.test} is committed"


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the checklist; `details` name what is in the way, with the way out."""

    name: str
    state: State
    message: str
    details: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Promotion:
    """The checklist. `green` is true only where no line is red."""

    stage: str
    database: str
    server: str
    checked_at: str
    green: bool
    lines: tuple[Line, ...]
    waivers: tuple[Waiver, ...]

    @property
    def exit_code(self) -> int:
        """3 where a line is red."""
        return 0 if self.green else 3


def promote(
    settings: Settings,
    *,
    stage: str = "production",
    snapshot_hours: int = 24,
    progress: Callable[[str], None] = lambda _: None,
) -> Promotion:
    """Prove every line; nothing is written: what the smoke test does is rolled back, and that is proved."""
    progress("compiling the gates")
    compiled = gates_.compile(settings)
    with (
        connect(settings, application_name="runner promote") as conn,
        transaction(conn, settings, at_once=True),
        _on_primary(conn),
        proved(conn) as proof,
    ):
        found = [_migrations(conn, settings)]
        if found[0].state == "red":
            waivers: dict[str, Waiver] = {}
        else:
            waivers = _waivers(conn)
            found.insert(0, _snapshot(conn, snapshot_hours))
            progress("gates")
            left_out = list(unselected_systems(conn, settings))
            backfills = _backfills(conn, left_out)
            found.append(_gates(proof, compiled, backfills, waivers))
            progress("what is due")
            found.append(_due(conn, backfills, waivers))
            found += _checks(proof, left_out, progress)
        proof.roll_back()
        server, at = conn.info.parameter_status("server_version") or "", place(conn)
    return Promotion(
        stage=stage,
        database=at,
        server=server,
        checked_at=datetime.now(UTC).isoformat(timespec="seconds"),
        green=all(line.state != "red" for line in found),
        lines=tuple(found),
        waivers=tuple(waivers.values()),
    )


def _on_primary(conn: Connection) -> AbstractContextManager[None]:
    if conn.execute("select pg_is_in_recovery()").fetchone() == (True,):
        raise RunnerError("this server is a standby, on which nothing can be tried: promote on the primary")
    return nullcontext()


def waive(settings: Settings, test: str, *, until: str, reason: str, actor: str | None = None) -> Waiver:
    """Record that `test` may fail until a day (ISO). Raises SqlError BF036 for one without reason or end."""
    with connect(settings, application_name="runner waive") as conn, transaction(conn, settings):
        row = conn.execute(
            "select test, until::text, reason, actor from backfill.waive(%s, %s, %s, %s)", [test, until, reason, actor]
        ).fetchone()
    assert row is not None  # noqa: S101 - a function call returns a row
    return Waiver(*row)


def _waivers(conn: Connection) -> dict[str, Waiver]:
    rows = conn.execute("select test, until::text, reason, actor from backfill.active_waivers order by test").fetchall()
    return {row[0]: Waiver(*row) for row in rows}


def _migrations(conn: Connection, settings: Settings) -> Line:
    pending = [f"{item.id} is pending: runner apply" for item in migrations.pending(conn, settings.sources)]
    edited = [str(item) for item in migrations.edited(conn, settings.sources)]
    message = f"{len(pending)} pending, {len(edited)} edited"
    return Line("migrations", "red" if pending or edited else "green", message, (*pending, *edited))


def _snapshot(conn: Connection, hours: int) -> Line:
    row = conn.execute(
        "select taken_at, file, sha256, now() - taken_at < make_interval(hours => %s),"
        " taken_at > coalesce((select max(completed_at) from backfill.backfill_log where mode <> 'load'), '-infinity')"
        " from backfill.snapshot where database = current_database() order by taken_at desc limit 1",
        [hours],
    ).fetchone()
    if row is None:
        return Line("snapshot", "red", "there is none", ("runner snapshot",))
    taken_at, file, sha256, fresh, newest = row
    wrong = []
    if not fresh:
        wrong.append(f"it is older than {hours} hours: runner snapshot")
    if not newest:
        wrong.append("runs have changed the database since: runner snapshot")
    if not Path(file).is_file():
        wrong.append(f"{file} is not there: promote on the machine that took it, or take another")
    elif checksum(Path(file)) != sha256:
        wrong.append(f"{file} is not what was dumped: its sha256 differs")
    message = f"{taken_at:%Y-%m-%d %H:%M:%S%z}, sha256 {sha256[:12]}…, {file}"
    return Line("snapshot", "red" if wrong else "green", message, tuple(wrong))


def _backfills(conn: Connection, left_out: list[str]) -> list[str]:
    """Those of the catalog, less the ones of systems that are installed and no longer selected."""
    query = "select backfill from backfill.catalog where system <> all (%s) order by position"
    return [row[0] for row in conn.execute(query, [left_out]).fetchall()]


def _gates(proof: Proof, compiled: gates_.Gates, catalog: list[str], waivers: dict[str, Waiver]) -> Line:
    guarded = {name for gate in compiled if gate.severity == "error" for name in gate.backfills}
    bad = [f"{name} has no gate" for name in catalog if name not in guarded]
    waived = []
    results = gates_.run(proof.conn, compiled, sorted(guarded), after=proof.after)
    for result in results:
        if not result.stops:
            continue
        text = f"{result.name}: {counted(result.failures, 'failing row')}"
        if result.status == "error":  # nobody can answer for what nobody has seen
            bad.append(f"{result.name} could not be run: {result.message}")
        elif result.name in waivers:
            waived.append(f"{text}; waived until {waivers[result.name].until}: {waivers[result.name].reason}")
        else:
            bad.append(f"{text}; mend it, or runner waive {result.name}")
    passed = sum(not result.stops for result in results)
    message = f"{passed} of {len(results)} pass, {len(waived)} waived"
    return Line("gates", "red" if bad else "waived" if waived else "green", message, (*bad, *waived))


def _due(conn: Connection, backfills: list[str], waivers: dict[str, Waiver]) -> Line:
    bad, waived = [], []
    query = "select backfill, due_rows, due_money, rejects from backfill.due(%s)"
    rows = conn.execute(query, [backfills]).fetchall()
    for backfill, due_rows, due_money, rejects in rows:
        if not due_rows and not rejects:
            continue
        worth = "" if due_money is None else f" of {money_text(due_money)}"
        text = f"{backfill}: {counted(due_rows, 'row')}{worth} due, {counted(rejects, 'reject')}"
        if backfill in waivers:
            waived.append(f"{text}; waived until {waivers[backfill].until}: {waivers[backfill].reason}")
        else:
            bad.append(f"{text}; runner apply {backfill}, or runner waive {backfill}")
    message = f"{counted(len(rows), 'backfill')}, {len(bad)} with work left, {len(waived)} waived"
    return Line("backfills", "red" if bad else "waived" if waived else "green", message, (*bad, *waived))


def _checks(proof: Proof, left_out: list[str], progress: Callable[[str], None]) -> Iterator[Line]:
    """The lines that the engine, the systems and the project registered in backfill.promotion_check."""
    query = "select name, function_name from backfill.promotion_check where system <> all (%s) order by position"
    registered = proof.conn.execute(query, [left_out]).fetchall()
    for name, function in registered:
        progress(name)
        line = _check(proof, name, function)
        proof.after(f"check {name}")
        yield line


def _check(proof: Proof, name: str, function: str) -> Line:
    query = sql.SQL("select passed, finding, way_out from {}()").format(sql.Identifier(*function.split(".", 1)))
    try:
        with proof.savepoint(undone=True):  # what a check writes is not kept
            proof.conn.execute(ROLE_NAMES)
            found = proof.conn.execute(query).fetchall()
    except psycopg.Error as exc:
        if proof.conn.closed or isinstance(exc, psycopg.OperationalError):
            raise
        return Line(name, "red", "could not be checked", (" ".join(str(translate(exc)).split()),))
    bad = tuple(f"{finding}: {way_out}" if way_out else finding for passed, finding, way_out in found if not passed)
    if not found:
        return Line(name, "red", "nothing was checked", (f"{function}() returned no row",))
    if bad:
        few = [finding for passed, finding, _ in found if not passed]
        words = "; ".join(few) if len(few) <= 2 else f"{few[0]}, and {len(few) - 1} more"
        return Line(name, "red", words, bad)
    return Line(name, "green", found[0][1] if len(found) == 1 else f"{len(found)} checks hold")
