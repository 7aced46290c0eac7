"""A plan that binds: what a rehearsal found, in a file, so that what somebody signed is what is done, or nothing.

The file says for which database and until when it holds, which migrations and gates it was made with, what each
backfill writes by table and currency, and every row by its business key with the beginning of its sha256. It
carries its own sha256.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from psycopg.types.json import Jsonb

from runner import approvals, migrations
from runner.database import Connection
from runner.errors import PlanError, UsageError
from runner.gates import Gates
from runner.money import Money, add_money, load_json, money_text, of_row
from runner.result import Attempt, BackfillResult, Taken
from runner.settings import Settings
from runner.text import counted, plain

FORMAT: Final = 1
VALID: Final = timedelta(days=7)
"""How long a plan holds, unless --valid-for says otherwise."""
_SHOWN: Final = 20
"""Rows of a difference that are told one by one."""

_DATABASE: Final = """
    select current_database(),
        case when has_function_privilege('pg_control_system()', 'execute')
            then (select system_identifier::text from pg_control_system()) end,
        case when has_function_privilege('pg_control_checkpoint()', 'execute')
            then (select timeline_id from pg_control_checkpoint()) end
"""
_ROWS: Final = """
    select table_name, business_key, operation, currency, amount, sha256 from backfill.signed_rows(%s)
    order by table_name collate "C", business_key collate "C", operation, sha256 collate "C"
"""


@dataclass(frozen=True, slots=True)
class Row:
    """A row that is written: by its business key, without keys that the database assigns; its money; its sha256."""

    table: str
    key: str
    operation: str
    money: Money | None
    sha256: str


@dataclass(frozen=True, slots=True)
class Planned:
    """One backfill of a plan: what was due, what it writes by table, its signature, its rows."""

    name: str
    due_rows: int
    due_money: Money | None
    rejects: int
    tables: list[dict[str, Any]]
    signature: str
    rows: list[Row]


@dataclass(frozen=True, slots=True)
class SavedPlan:
    """What the file holds."""

    database: dict[str, Any]
    """name, host, port, system_identifier, timeline, server."""
    made_at: str
    expires_at: str
    as_of: str
    allow_rejects: int
    everything: bool
    """Whether it was made of all that was due: then one backfill more is another plan."""
    migrations: dict[str, str]
    """Pending ones with the sha256 of their files."""
    gates: str
    """sha256 over the compiled gates."""
    signature: str
    snapshot: str
    """What the rehearsal saw, as the server writes it: what is not in it was committed later."""
    backfills: list[Planned]

    @property
    def names(self) -> tuple[str, ...]:
        """The backfills to ask for: none where it was made of all that was due."""
        return () if self.everything else tuple(planned.name for planned in self.backfills)


@dataclass(slots=True)
class Signing:
    """Signs the runs of a rehearsal; keeps their rows where somebody wants them, for a file or to tell a difference."""

    keep: bool = False
    rows: dict[str, list[Row]] = field(default_factory=dict)
    snapshot: str = ""

    def sign(self, conn: Connection, backfill: str, run_id: object) -> str:
        """The signature of a run of the open transaction."""
        if self.keep:
            self.rows[backfill] = [
                Row(table, key, operation, of_row(amount, currency), sha256)
                for table, key, operation, currency, amount, sha256 in conn.execute(_ROWS, [run_id]).fetchall()
            ]
        row = conn.execute("select backfill.signature(%s), pg_current_snapshot()::text", [run_id]).fetchone()
        signed, self.snapshot = (str(row[0]), str(row[1])) if row else ("", "")
        return signed


def signature(results: Sequence[BackfillResult]) -> str:
    """Of a plan: that of its one backfill, or the sha256 over those of several, by name. Empty without any."""
    if len(results) == 1:
        return results[0].signature
    lines = "".join(f"{item.name} {item.signature}\n" for item in sorted(results, key=lambda item: item.name))
    return hashlib.sha256(lines.encode()).hexdigest() if results else ""


def where(conn: Connection) -> dict[str, Any]:
    """Which database this is. Its own transaction."""
    row = conn.execute(_DATABASE).fetchone()
    conn.rollback()
    name, system, timeline = row or ("", "", 0)
    return {
        "name": name, "host": conn.info.host, "port": conn.info.port, "system_identifier": system,
        "timeline": timeline, "server": conn.info.parameter_status("server_version") or "",
    }  # fmt: skip


def hash_of_gates(gates: Gates) -> str:
    """sha256 over the gates as they were compiled."""
    text = json.dumps([asdict(gate) for gate in gates], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def save(
    conn: Connection, settings: Settings, attempt: Attempt, signing: Signing, gates: Gates, *,
    as_of: str, allow_rejects: int, everything: bool, valid: timedelta,
) -> bytes:  # fmt: skip
    """The file of a rehearsal that found something to do."""
    now = datetime.now(UTC)
    plan = SavedPlan(
        database=where(conn),
        made_at=now.isoformat(timespec="seconds"),
        expires_at=(now + valid).isoformat(timespec="seconds"),
        as_of=as_of,
        allow_rejects=allow_rejects,
        everything=everything,
        migrations=_hashes(conn, settings),
        gates=hash_of_gates(gates),
        signature=attempt.signature,
        snapshot=signing.snapshot,
        backfills=[
            Planned(
                item.name, item.due_rows, item.due_money, item.rejects, plain(item.tables), item.signature,
                signing.rows.get(item.name, []),
            )
            for item in attempt.backfills
        ],
    )  # fmt: skip
    content = {"format": FORMAT, "plan": plain(plan)}
    return json.dumps({**content, "sha256": _sha256(content)}, ensure_ascii=False, indent=1).encode()


def read(path: Path) -> SavedPlan:
    """The plan of a file. Raises UsageError where there is none, PlanError where it is not as it was written."""
    try:
        content = load_json(path.read_bytes())
    except OSError as exc:
        raise UsageError(f"{path} cannot be read: {exc.strerror}") from exc
    except ValueError as exc:
        raise PlanError(f"{path} is no plan: it is not JSON. A plan is written by runner apply --save-plan") from exc
    if not isinstance(content, dict) or not {"format", "plan", "sha256"} <= content.keys():
        raise PlanError(f"{path} is no plan: it was not written by runner apply --save-plan")
    if content["format"] != FORMAT:
        raise PlanError(f"{path} is a plan of format {content['format']}, and this runner reads {FORMAT}: make it anew")
    said = content.pop("sha256")
    if said != _sha256(content):
        raise PlanError(f"{path} was changed since it was made: its content has another sha256 than it says")
    found = content["plan"]
    try:
        backfills = [
            Planned(**{**item, "rows": [Row(**{**row, "money": _money(row["money"])}) for row in item["rows"]]})
            for item in found["backfills"]
        ]
        return SavedPlan(**{**found, "backfills": backfills})
    except (TypeError, KeyError, AttributeError) as exc:
        raise PlanError(f"{path} is no plan: it lacks what one has. A plan is written by --save-plan") from exc


def require_database(conn: Connection, plan: SavedPlan) -> None:
    """Refuse (PlanError) a plan of another database, and one that is over. Its own transaction."""
    here = where(conn)
    other = [f"{key} {plan.database[key]}" for key in ("name", "system_identifier", "timeline")
             if plan.database[key] != here[key]]  # fmt: skip
    if other:
        raise PlanError(
            f"the plan is for another database: {', '.join(other)}; this is {here['name']}, system_identifier "
            f"{here['system_identifier']}, timeline {here['timeline']}. Rehearse here: --dry-run --save-plan"
        )
    if datetime.fromisoformat(plan.expires_at) < datetime.now(UTC):
        raise PlanError(f"the plan held until {plan.expires_at}: rehearse again, and have that signed")


def require(conn: Connection, settings: Settings, plan: SavedPlan, gates: Gates) -> None:
    """Refuse (PlanError) what `require_database` does, and a plan made with other migrations or gates."""
    require_database(conn, plan)
    now = _hashes(conn, settings)
    for name, sha256 in plan.migrations.items():
        if name not in now:
            raise PlanError(f"migration {name} was pending when the plan was made, and is not any more: rehearse again")
        if now[name] != sha256:
            raise PlanError(f"migration {name} is another file than the plan was made with: rehearse again")
    if more := [name for name in now if name not in plan.migrations]:
        raise PlanError(f"migrations are pending that the plan does not know: {', '.join(more)}. Rehearse again")
    if plan.gates != hash_of_gates(gates):
        raise PlanError("the gates are others than the plan was made with: rehearse again")


def differences(plan: SavedPlan, attempt: Attempt, signing: Signing) -> Iterator[str]:
    """What a rehearsal would write otherwise than the plan says: by backfill, then row by row."""
    found = {item.name: item for item in attempt.backfills}
    for name in dict.fromkeys([*(item.name for item in plan.backfills), *found]):
        planned = next((item for item in plan.backfills if item.name == name), None)
        there = found.get(name)
        if planned is None:
            yield f"{name}: not in the plan, and {counted(there.due_rows if there else 0, 'row')} due"
            continue
        if there is None:
            yield f"{name}: nothing is due any more; {counted(len(planned.rows), 'row')} in the plan"
        elif there.rejects != planned.rejects:
            yield f"{name}: {counted(there.rejects, 'reject')}, {planned.rejects:,} in the plan"
        if there is not None and (there.signature == planned.signature or there.taken):
            continue
        yield from _rows(name, planned.rows, signing.rows.get(name, []))


def left_to_others(conn: Connection, plan: SavedPlan, name: str, signing: Signing) -> tuple[Row, ...]:
    """The rows of a plan that the open rehearsal or apply did not insert since others have; empty where it differs in
    any other way."""
    planned = next((item for item in plan.backfills if item.name == name), None)
    before, after = _by_key(planned.rows if planned else ()), _by_key(signing.rows.get(name, []))
    went = [row for key, rows in before.items() if key not in after for row in rows]
    if any(key not in before or _hashes_of(rows) != _hashes_of(before[key]) for key, rows in after.items()):
        return ()
    if any(row.operation != "I" or not row.key for row in went):
        return ()
    for table in {row.table for row in went}:
        keys = [row.key for row in went if row.table == table]
        query = "select backfill.written_since(%s, %s, %s::pg_snapshot)"
        there = {key for (key,) in conn.execute(query, [table, keys, plan.snapshot]).fetchall()}
        if len(set(keys)) != len(keys) or there != set(keys):
            return ()
    return tuple(went)


def less_others(
    conn: Connection, bound: SavedPlan, signing: Signing, result: BackfillResult, accepted: bool
) -> BackfillResult:
    """A backfill of a plan with the rows that others wrote since the plan was made, where that is all it differs in."""
    rows = left_to_others(conn, bound, result.name, signing) if accepted else ()
    if not rows:
        return result
    left = [{"table_name": row.table, "business_key": row.key, "sha256": row.sha256} for row in rows]
    said = conn.execute("select backfill.leave_to_others(%s, %s)", [result.run_id, Jsonb(left)]).fetchone()
    found = {(item.table, item.key): item for item in result.taken}
    found |= {(row.table, row.key): Taken(row.table, row.key, row.money) for row in rows}
    approved = approvals.of(said[0]) if said and said[0] else result.approvals
    return replace(result, taken=tuple(found[key] for key in sorted(found)), approvals=approved)


def _rows(backfill: str, planned: Sequence[Row], there: Sequence[Row]) -> Iterator[str]:
    before, after = _by_key(planned), _by_key(there)
    came = [row for key, rows in after.items() if key not in before for row in rows]
    went = [row for key, rows in before.items() if key not in after for row in rows]
    changed = [
        (before[key], rows) for key, rows in after.items()
        if key in before and _hashes_of(rows) != _hashes_of(before[key])
    ]  # fmt: skip
    lines = [f"came: {_named(row)}, {_worth([row])}" for row in came]
    lines += [f"went: {_named(row)}, {_worth([row])}" for row in went]
    for old, new in changed:
        worth = _worth(old) if _worth(old) == _worth(new) else f"{_worth(old)} → {_worth(new)}"
        lines.append(f"changed: {_named(new[0])}, {worth}")
    yield (
        f"{backfill}: {counted(len(came), 'row')} came ({_worth(came)}), {len(went):,} went ({_worth(went)}), "
        f"{len(changed):,} changed since the plan was made"
    )
    yield from (f"{backfill}: {line}" for line in lines[:_SHOWN])
    if len(lines) > _SHOWN:
        yield f"{backfill}: … {counted(len(lines) - _SHOWN, 'more row')}"


def _by_key(rows: Iterable[Row]) -> dict[tuple[str, str, str], list[Row]]:
    found: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        found.setdefault((row.table, row.key, row.operation), []).append(row)
    return found


def _hashes_of(rows: Iterable[Row]) -> list[str]:
    return sorted(row.sha256 for row in rows)


def _named(row: Row) -> str:
    return f"{row.table} {row.key or '(its key is assigned by the database)'}"


def _worth(rows: Sequence[Row]) -> str:
    return money_text(add_money(*(row.money for row in rows))) or "no money"


def _money(value: dict[str, Any] | None) -> Money | None:
    """As it was: what had more decimals than its currency is a text in JSON."""
    return add_money({}, {name: load_json(str(part)) for name, part in value.items()}) if value is not None else None


def _hashes(conn: Connection, settings: Settings) -> dict[str, str]:
    found = {migration.id: migration.sha256 for migration in migrations.pending(conn, settings.sources)}
    conn.rollback()
    return found


def _sha256(content: dict[str, Any]) -> str:
    text = json.dumps(plain(content), ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
