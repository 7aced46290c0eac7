"""Runs and their changes, as the log and the change log hold them."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from runner import approvals
from runner.approvals import Approvals
from runner.database import Connection
from runner.errors import SqlError
from runner.money import Amount, Money, add_money, negative, of_row
from runner.result import Change, Dimension, DimensionLine, LeftOut, TableChanges


@dataclass(frozen=True, slots=True)
class Run:
    """A row of backfill.backfill_log."""

    run_id: uuid.UUID
    backfill: str
    mode: str
    status: str
    actor: str
    started_at: datetime
    completed_at: datetime | None
    subject: dict[str, Any]
    parameters: dict[str, Any]
    metrics: dict[str, Any]
    errors: list[Any]
    digest: str | None
    reverses: uuid.UUID | None
    reversed_by: uuid.UUID | None
    link: str | None
    """Its link of the chain, number:hash; None while it runs."""
    exported: str | None
    """The file that its images were exported to; None where they are here."""
    used: list[dict[str, Any]] | None
    """The approvals that it was committed with; None where it needed none."""
    due: dict[str, Any] | None
    """What was due when a backfill began, {"rows", "money" by currency}; of an undo that of what it undoes."""

    @property
    def tables(self) -> tuple[TableChanges, ...]:
        """Rows and money by table."""
        return table_changes(self.metrics)

    @property
    def approvals(self) -> Approvals | None:
        """What a policy asked for, and what there was; None where none did."""
        found = approvals.of(self.metrics)
        # Those of rows that were left to others are found only after the run has ended.
        return found if found is None or not self.used else approvals.with_words(found, self.used)

    @property
    def money(self) -> Money | None:
        """A backfill and its undo count by what was due, anything else by the change in the tables it wrote."""
        if self.due is None:
            return add_money(*(table.money for table in self.tables))
        due: Money | None = self.due["money"]
        return negative(due) if self.reverses else due

    @property
    def rows(self) -> int:
        """Rows that were due; of anything that is no backfill, rows written."""
        if self.due is None:
            return sum(t.inserted + t.updated + t.deleted for t in self.tables)
        return int(self.due["rows"])


MOST: Final = 50_000
"""Rows of a run among which a sample looks for the last and the largest; of more it sees the first ones."""

_COLUMNS: Final = """run_id, backfill, mode, status, actor, started_at, completed_at, subject, parameters, metrics,
    errors, digest, reverses, reversed_by,
    (select c.link || ':' || c.hash from backfill.chain as c where c.run_id = l.run_id and c.kind = 'run') as link,
    (select case c.kind when 'export' then c.detail ->> 'file' end from backfill.chain as c where c.run_id = l.run_id
        order by c.link desc limit 1) as exported,
    (select jsonb_agg(jsonb_build_object('login', a.login, 'at', a.decided_at, 'approved', a.approved,
        'remark', a.remark) order by a.decided_at) from backfill.approval_use as u
        join backfill.approval as a using (signature, login, decided_at) where u.run_id = l.run_id) as used,
    case when l.reverses is null then metrics
        else (select r.metrics from backfill.backfill_log as r where r.run_id = l.reverses) end -> 'due' as due"""

_CHANGES: Final = """
    select table_name, operation, business_key, amount_before, currency_before, amount_after, currency_after,
        coalesce(after, before) as image
    from backfill.change_log where run_id = %s
"""

_OWN: Final = """
    select coalesce(
        (select c.tables[1] from backfill.catalog as c where c.backfill = l.backfill and c.tables[1] = any (t.names)),
        t.names[1])
    from backfill.backfill_log as l
    cross join lateral (
        select array_agg(r.table_name order by r.inserted + r.updated + r.deleted desc, r.table_name) as names
        from backfill.run_totals(l.run_id) as r) as t
    where l.run_id = %s
"""
# Half of them the first by key, a quarter the last, a quarter those that move most; only keys and money are unpacked.
_PICKED: Final = f"""
    select statement, pack, row_no
    from (
        select *, row_number() over (order by key) as first, row_number() over (order by key desc) as last,
            row_number() over (order by moved desc, key) as largest
        from (
            select statement, pack, row_no, business_key collate "C" as key,
                abs(coalesce(amount_after, 0) - coalesce(amount_before, 0)) as moved
            from backfill.change_log where run_id = %(run)s and table_name = %(table)s limit {MOST}
        ) as own
    ) as placed
    order by (first <= %(limit)s - 2 * (%(limit)s / 4) or last <= %(limit)s / 4 or largest <= %(limit)s / 4) desc, first
    limit %(limit)s
"""  # noqa: S608 - constant text
_REFERS: Final = """
    select exists (
        select from backfill.tracked as t cross join unnest(t.business_key) as k
        cross join lateral backfill.known_as(t.relation::regclass, k) as a
        where t.table_name = %s and a.parent is not null)
"""
_SHOWN: Final = "select backfill.shown_key(%s, %s)"
_DIMENSIONS: Final = """
    select c.dimensions from backfill.catalog as c join backfill.backfill_log as l on l.backfill = c.backfill
    where l.run_id = %s
"""
_THOSE: Final = f"""
    {_CHANGES} and table_name = %s and statement = any (%s) and pack = any (%s)
        and (statement, pack, row_no) in (select * from unnest(%s::bigint[], %s::integer[], %s::bigint[]))
    order by business_key collate "C", statement
"""  # noqa: S608 - constant text
_OTHERS: Final = f"""
    select * from ({_CHANGES} and table_name <> %s limit greatest(%s, 1000)) as first
    order by table_name, business_key limit %s
"""  # noqa: S608 - constant text


def list_runs(conn: Connection, limit: int) -> list[Run]:
    """The latest runs, newest first."""
    with conn.cursor(row_factory=class_row(Run)) as cursor:
        query = f"select {_COLUMNS} from backfill.backfill_log as l order by started_at desc, run_id limit %s"  # noqa: S608 - constant columns
        return cursor.execute(query, [limit]).fetchall()


def chain_head(conn: Connection) -> str:
    """Number and hash of the chain's newest link, as this transaction sees it: the anchor to keep elsewhere."""
    row = conn.execute("select backfill.chain_head()").fetchone()
    return str(row[0] or "") if row else ""


def committed_head(conn: Connection) -> str:
    """The chain's head as it is committed; empty where there is no chain. Its own transaction."""
    there = conn.execute("select to_regprocedure('backfill.chain_head()') is not null").fetchone()
    head = chain_head(conn) if there == (True,) else ""
    conn.rollback()
    return head


def find_run(conn: Connection, given: str) -> Run:
    """The run whose id begins with `given`. Raises SqlError BF009 for none, several, or no beginning."""
    if not given.strip():  # a variable of a script that was never set must not name the only run there is
        raise SqlError("BF009", "no run is named: `runner log` lists them")
    with conn.cursor(row_factory=class_row(Run)) as cursor:
        query = f"select {_COLUMNS} from backfill.backfill_log as l where starts_with(run_id::text, %s) limit 3"  # noqa: S608
        found = cursor.execute(query, [given.lower()]).fetchall()
    if not found:
        raise SqlError("BF009", f"there is no run {given} in database {conn.info.dbname}: `runner log` lists them")
    if len(found) > 1:
        raise SqlError(
            "BF009", f"{given} is the beginning of several runs: {', '.join(str(run.run_id) for run in found)}"
        )
    return found[0]


def table_changes(metrics: dict[str, Any]) -> tuple[TableChanges, ...]:
    """The rows and money by table that a run's log row holds."""
    return tuple(TableChanges(table, **counts) for table, counts in sorted(metrics.get("tables", {}).items()))


def _change(
    table: str, operation: str, key: str, before: Amount | None, currency_before: str | None, after: Amount | None,
    currency_after: str | None, row: dict[str, Any],
) -> Change:  # fmt: skip
    return Change(table, operation, key, of_row(before, currency_before), of_row(after, currency_after), row)


def sample_changes(conn: Connection, run_id: uuid.UUID, limit: int) -> list[Change]:
    """`limit` changes of a run: of the backfill's own table the first, the last and the largest, then others."""
    own = conn.execute(_OWN, [run_id]).fetchone()
    if own is None or own[0] is None:
        return []
    picked = conn.execute(_PICKED, {"run": run_id, "table": own[0], "limit": limit}).fetchall()
    statements, packs, places = ([*values] for values in zip(*picked, strict=True)) if picked else ([], [], [])
    those = [run_id, own[0], statements, packs, statements, packs, places]
    rows = conn.execute(_THOSE, those).fetchall() if picked else []
    if len(rows) < limit:
        rows += conn.execute(_OTHERS, [run_id, own[0], limit, limit - len(rows)]).fetchall()
    changes = [_change(*row) for row in rows]
    return [replace(change, business_key=shown_key(conn, change)) for change in changes]


def shown_key(conn: Connection, change: Change) -> str:
    """The business key of a row, with what it refers to as people know that: never a uuid where there is a name."""
    image = Jsonb(change.row, dumps=lambda row: json.dumps(row, default=str))  # a numeric as its digits
    row = conn.execute(_SHOWN, [change.table, image]).fetchone() if change.row else None
    return str(row[0]) if row and row[0] is not None else change.business_key


def by_dimension(conn: Connection, run_id: uuid.UUID, *, now: bool) -> tuple[Dimension, ...]:
    """What a run wrote by each dimension that its backfill names; `now`: with what the table held before and holds."""
    names = conn.execute(_DIMENSIONS, [run_id]).fetchone()
    found = []
    for name in names[0] if names else ():
        rows = conn.execute("select * from backfill.by_dimension(%s, %s, %s)", [run_id, name, now]).fetchall()
        lines = [
            DimensionLine(value, rows_, *(of_row(minor, currency) for minor in (before, change, after)))
            for value, currency, rows_, before, change, after in rows
        ]
        if lines:
            found.append(Dimension(name, tuple(lines)))
    return tuple(found)


def count_left_out(conn: Connection, run_id: uuid.UUID) -> int:
    """How many source rows a run left out."""
    row = conn.execute("select count(*) from backfill.reject where run_id = %s", [run_id]).fetchone()
    return int(row[0]) if row else 0


def left_out(conn: Connection, run_id: uuid.UUID, limit: int | None) -> list[LeftOut]:
    """The source rows that a run left out, in the order of their source; None: all of them."""
    rows = conn.execute(
        "select source, source_key, line, reason, amount, currency from backfill.reject where run_id = %s"
        " order by source, line, source_key limit %s",
        [run_id, limit],
    ).fetchall()
    return [_left_out(*row) for row in rows]


def _left_out(
    source: str, key: str, line: int | None, reason: str, minor: Amount | None, currency: str | None
) -> LeftOut:
    return LeftOut(source, key, line, reason, of_row(minor, currency))


def new_rejects(conn: Connection, backfill: str) -> tuple[LeftOut, ...]:
    """The first thousand source rows that a backfill cannot take, as the transaction sees them."""
    rows = conn.execute(
        "select source, source_key, line, reason, amount, currency from backfill.new_rejects(%s)"
        " order by source, line, source_key limit 1000",
        [backfill],
    ).fetchall()
    return tuple(_left_out(*row) for row in rows)


def stream_changes(conn: Connection, run_id: uuid.UUID) -> Iterator[Change]:
    """All changes of a run through a server-side cursor: memory stays flat whatever the number of rows."""
    with conn.cursor(name="changes") as cursor:
        cursor.itersize = 2000
        cursor.execute(_CHANGES, [run_id])
        known: dict[str, bool] = {}
        for row in cursor:
            change = _change(*row)
            if change.table not in known:
                known[change.table] = conn.execute(_REFERS, [change.table]).fetchone() == (True,)
            yield replace(change, business_key=shown_key(conn, change)) if known[change.table] else change
