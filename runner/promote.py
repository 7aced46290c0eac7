"""`runner promote`: the runbook's checklist, each line proved, and the sheet that Finance signs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from runner import gates as gates_
from runner import migrations
from runner.database import Connection, connect, transaction
from runner.report import money
from runner.settings import Settings
from runner.snapshot import checksum

State = Literal["green", "waived", "red"]


@dataclass(frozen=True, slots=True)
class Waiver:
    """Who answers for a finding, until which day (ISO) and why."""

    test: str
    until: str
    reason: str
    actor: str


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
    """Prove every line; nothing is written: what the smoke test does is rolled back."""
    progress("compiling the gates")
    compiled = gates_.compile(settings)
    with connect(settings, application_name="runner promote") as conn, transaction(conn, settings):
        found = [_migrations(conn, settings)]
        if found[0].state == "red":
            waivers: dict[str, Waiver] = {}
        else:
            waivers = _waivers(conn)
            found.insert(0, _snapshot(conn, snapshot_hours))
            progress("gates")
            found.append(_gates(conn, compiled, waivers))
            progress("what is due")
            found.append(_due(conn, waivers))
            found += _schema(conn)
            progress("smoke test")
            found.append(_smoke(conn))
        conn.rollback()
        server = conn.info.parameter_status("server_version") or ""
    return Promotion(
        stage=stage,
        database=settings.shown,
        server=server,
        checked_at=datetime.now(UTC).isoformat(timespec="seconds"),
        green=all(line.state != "red" for line in found),
        lines=tuple(found),
        waivers=tuple(waivers.values()),
    )


def waive(settings: Settings, test: str, *, until: str, reason: str, actor: str | None = None) -> Waiver:
    """Record that `test` may fail until a day (ISO). Raises WaiverError for one without reason or end."""
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
    pending = [f"{item.id} is pending: runner apply" for item in migrations.pending(conn, settings.migrations)]
    edited = [str(item) for item in migrations.edited(conn, settings.migrations)]
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


def _gates(conn: Connection, compiled: gates_.Gates, waivers: dict[str, Waiver]) -> Line:
    catalog = [row[0] for row in conn.execute("select backfill from backfill.catalog order by position").fetchall()]
    guarded = {name for gate in compiled if gate.severity == "error" for name in gate.backfills}
    bad = [f"{name} has no gate" for name in catalog if name not in guarded]
    waived = []
    results = gates_.run(conn, compiled, sorted(guarded))
    for result in results:
        if not result.stops:
            continue
        text = f"{result.name}: {result.failures:,} failing rows"
        if result.status == "error":  # nobody can answer for what nobody has seen
            bad.append(f"{result.name} could not be run: {result.message}")
        elif result.name in waivers:
            waived.append(f"{text}; waived until {waivers[result.name].until}: {waivers[result.name].reason}")
        else:
            bad.append(f"{text}; mend it, or runner waive {result.name}")
    passed = sum(not result.stops for result in results)
    message = f"{passed} of {len(results)} pass, {len(waived)} waived"
    return Line("gates", "red" if bad else "waived" if waived else "green", message, (*bad, *waived))


def _due(conn: Connection, waivers: dict[str, Waiver]) -> Line:
    bad, waived = [], []
    rows = conn.execute("select backfill, due_rows, due_cents, rejects from backfill.due()").fetchall()
    for backfill, due_rows, due_cents, rejects in rows:
        if not due_rows and not rejects:
            continue
        text = f"{backfill}: {due_rows:,} rows of {money(due_cents)} due, {rejects:,} rejects"
        if backfill in waivers:
            waived.append(f"{text}; waived until {waivers[backfill].until}: {waivers[backfill].reason}")
        else:
            bad.append(f"{text}; runner apply {backfill}, or runner waive {backfill}")
    message = f"{len(rows)} backfills, {len(bad)} with work left, {len(waived)} waived"
    return Line("backfills", "red" if bad else "waived" if waived else "green", message, (*bad, *waived))


def _schema(conn: Connection) -> list[Line]:
    found: dict[str, list[str]] = {"constraints": [], "policies": []}
    for subject, finding, detail in conn.execute("select * from backfill.promotion_checks()").fetchall():
        found[subject].append(f"{finding}: {detail}")
    words = {"constraints": "every foreign key and check is validated", "policies": "row-level security is prepared"}
    return [
        Line(name, "red" if bad else "green", f"{len(bad)} in the way" if bad else words[name], tuple(bad))
        for name, bad in found.items()
    ]


def _smoke(conn: Connection) -> Line:
    with conn.transaction(force_rollback=True):
        steps = conn.execute("select step, passed, message from billing.smoke_test()").fetchall()
    bad = tuple(f"{step}: {message}" for step, passed, message in steps if not passed)
    message = ", ".join(step for step, passed, _ in steps if passed) or "no step passes"
    return Line("billing flows", "red" if bad else "green", message, bad)


def sheet(found: Promotion) -> str:
    """The sign-off sheet for Finance, in Markdown."""
    marks = {"green": "✓", "waived": "waived", "red": "✗"}
    lines = [
        f"# Promotion to {found.stage}: {'ready' if found.green else 'not ready'}",
        "",
        f"{found.database} · PostgreSQL {found.server} · {found.checked_at}",
        "",
        "| | line | what was found |",
        "|---|---|---|",
        *(f"| {marks[line.state]} | {line.name} | {_cell(line.message)} |" for line in found.lines),
    ]
    for line in found.lines:
        if line.details:
            lines += ["", f"## {line.name}", "", *(f"- {detail}" for detail in line.details)]
    if found.waivers:
        lines += ["", "## Waivers", "", "| test | until | by | why |", "|---|---|---|---|"]
        lines += [f"| {w.test} | {w.until} | {w.actor} | {_cell(w.reason)} |" for w in found.waivers]
    lines += ["", "## Signed", "", "| role | name | date | signature |", "|---|---|---|---|"]
    lines += [f"| {role} | | | |" for role in ("Finance", "Operations")]
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
