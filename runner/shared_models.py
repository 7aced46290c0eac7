"""Models that several gates read are computed once, as temporary tables of the open transaction.

dbt puts the models of a gate into its one SELECT as common table expressions, so that each gate would compute them
anew. A model is shared where that saves work: several gates need it, it joins or groups, and the server's own estimate
says that they do not each ask for a small part of it. A gate's verdict is the same in both ways; where a table cannot
be made (no right to it, a standby, an error in the model's SQL) the gate is run as it was compiled.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import psycopg
from psycopg import sql
from psycopg.rows import tuple_row

from runner.database import RETRIED
from runner.planning import planned_for_many

WORTH: Final = 2_000.0
"""What a model must cost by the planner's estimate, in its units: below it a gate is quick enough as it is."""

# With a parameter a query is one statement by protocol: text that closes the parenthesis and goes on with
# `; commit; …` is an error of that text.
ONE_STATEMENT: Final = sql.SQL("with one_statement as (select $1::integer)")

_PREFIX: Final = "__dbt__cte__"  # dbt's own, of a model that is part of another SELECT
# Reading alone is not worth a copy.
_READS: Final = {
    "Seq Scan", "Sample Scan", "Index Scan", "Index Only Scan", "Bitmap Heap Scan", "Bitmap Index Scan", "BitmapAnd",
    "BitmapOr", "Tid Scan", "Subquery Scan", "Append", "Result", "Gather", "CTE Scan", "Values Scan",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Model:
    """A model as part of a gate: `sql` is its common table expression, name included; `uses` names other models."""

    name: str
    sql: str
    uses: tuple[str, ...]


class Reader(Protocol):
    """A gate, as far as it matters here: `sql` holds `models`, each after those it uses, and `uses` some itself."""

    @property
    def name(self) -> str: ...
    @property
    def sql(self) -> str: ...
    @property
    def models(self) -> tuple[Model, ...]: ...
    @property
    def uses(self) -> tuple[str, ...]: ...


def models_of(node: dict[str, Any], nodes: dict[str, Any]) -> tuple[tuple[Model, ...], tuple[str, ...]]:
    """The models that dbt put into a node of its manifest, and those of them that the node refers to itself."""
    parts = {part["id"]: part["sql"].strip() for part in node["extra_ctes"]}
    names = {key: text.partition(" as (")[0].removeprefix(_PREFIX) for key, text in parts.items()}

    def uses(other: dict[str, Any]) -> tuple[str, ...]:
        return tuple(names[key] for key in other["depends_on"]["nodes"] if key in names)

    return tuple(Model(names[key], text, uses(nodes[key])) for key, text in parts.items()), uses(node)


def share(conn: psycopg.Connection[Any], gates: Sequence[Reader]) -> list[str]:
    """The gates' SQL, reading a temporary table where they share a model; it goes with the transaction.

    Called before the transaction is read-only. Raises psycopg.OperationalError, and what is retried.
    """
    sharing = _Sharing(conn, gates)
    for model in sharing.candidates():
        if sharing.saves(model):
            sharing.compute(model)
    return [sharing.rewritten(gate) for gate in gates]


class _Sharing:
    def __init__(self, conn: psycopg.Connection[Any], gates: Sequence[Reader]) -> None:
        self.conn, self.gates = conn, gates
        self.computed: dict[str, str] = {}
        """The common table expression that takes the place of a model's own, by name."""

    def candidates(self) -> Iterator[Model]:
        """Models that several gates need, and not all by way of one other; each after those that it uses itself."""
        models: dict[str, Model] = {}
        users: dict[str, set[str]] = defaultdict(set)
        referrers: dict[str, set[str]] = defaultdict(set)
        for gate in self.gates:
            for model in gate.models:
                models.setdefault(model.name, model)
                users[model.name].add(gate.name)
                for name in model.uses:
                    referrers[name].add(f"model {model.name}")
            for name in gate.uses:
                referrers[name].add(f"gate {gate.name}")
        for name, model in models.items():
            if len(users[name]) > 1 and len(referrers[name]) > 1:
                yield model

    def saves(self, model: Model) -> bool:
        """Whether a table of it takes the work of about the whole model from at least two gates, and that is much."""
        using = [gate for gate in self.gates if model in gate.models]
        try:
            with self.conn.transaction(force_rollback=True):
                cost, nodes = self._explained(self._select(model))
                if cost < WORTH or nodes <= _READS:
                    return False
                before = [self._explained(self.rewritten(gate))[0] for gate in using]
                self._create(model)
                # Of an empty table; what is left is what the gate costs apart from the model.
                after = [self._explained(self.rewritten(gate))[0] for gate in using]
        except psycopg.Error as exc:
            _raise_if_not_its_own(self.conn, exc)
            return False
        finally:
            self.computed.pop(model.name, None)
        # A gate that asks for one run, or one customer, has the server compute that part alone.
        return sorted(one - two for one, two in zip(before, after, strict=True))[-2] >= cost / 2

    def compute(self, model: Model) -> None:
        """Fill a table of it; where the model's SQL fails, the gates that use it will say so."""
        try:
            with self.conn.transaction():
                table, query = self._create(model)
                # Read-only as the gates are: what a model's functions would write must not be committed either.
                with planned_for_many(self.conn), self.conn.transaction(), psycopg.RawCursor(self.conn) as cursor:
                    cursor.execute("set transaction read only")
                    cursor.execute(sql.SQL("insert into {} {}").format(table, query), [1])
                self.conn.execute(sql.SQL("analyze {}").format(table))
        except psycopg.Error as exc:
            self.computed.pop(model.name, None)
            _raise_if_not_its_own(self.conn, exc)

    def _create(self, model: Model) -> tuple[sql.Identifier, sql.Composed]:
        """The table, still empty, and what belongs in it."""
        query = sql.SQL("{one} select * from (\n{model}\n) as model").format(
            one=ONE_STATEMENT, model=sql.SQL(self._select(model))
        )
        name = f"shared_{len(self.computed)}_{model.name}"[:63]
        table = sql.Identifier("pg_temp", name)
        with psycopg.RawCursor(self.conn) as cursor:
            create = sql.SQL("create temporary table {} on commit drop as {} with no data")
            cursor.execute(create.format(sql.Identifier(name), query), [1])
        self.computed[model.name] = f"{_PREFIX}{model.name} as not materialized (select * from {table.as_string()})"  # noqa: S608 - quoted
        return table, query

    def rewritten(self, gate: Reader) -> str:
        """The gate's SQL, reading what is computed already."""
        text = gate.sql
        for model in gate.models:
            if model.name in self.computed:
                text = text.replace(model.sql, self.computed[model.name])
        return text

    def _select(self, model: Model) -> str:
        """One SELECT of the whole model: a gate's common table expressions as far as the model's own."""
        parts = []
        for other in next(gate.models for gate in self.gates if model in gate.models):
            parts.append(self.computed.get(other.name, other.sql))
            if other == model:
                break
        return f"with {', '.join(parts)} select * from {_PREFIX}{model.name}"  # noqa: S608 - the gates' own text

    def _explained(self, text: str) -> tuple[float, set[str]]:
        """The planner's estimate of the cost, and the kinds of nodes."""
        query = sql.SQL("explain (format json) {one} select * from (\n{text}\n) as shared").format(
            one=ONE_STATEMENT, text=sql.SQL(text)
        )
        with psycopg.RawCursor(self.conn, row_factory=tuple_row) as cursor:
            row = cursor.execute(query, [1]).fetchone()
        assert row is not None  # noqa: S101 - explain returns a row
        plan = row[0][0]["Plan"]
        return plan["Total Cost"], set(_kinds(plan))


def _kinds(plan: dict[str, Any]) -> Iterator[str]:
    yield plan["Node Type"]
    for part in plan.get("Plans", ()):
        yield from _kinds(part)


def _raise_if_not_its_own(conn: psycopg.Connection[Any], exc: psycopg.Error) -> None:
    """Raise what would meet the gates as well: a server that is gone, a lock, a cancel. Room that is short need not."""
    short_of_room = (exc.sqlstate or "").startswith("53")
    if conn.closed or exc.sqlstate in RETRIED or (isinstance(exc, psycopg.OperationalError) and not short_of_room):
        raise exc
