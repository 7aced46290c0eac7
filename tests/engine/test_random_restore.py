"""Random renames before a dump, and undos after its restore: the right columns of the right table, or a refusal."""

from __future__ import annotations

import json
import random
import subprocess
from dataclasses import dataclass, field
from uuid import UUID

import psycopg
import pytest

from runner import embedded
from tests.engine.words import do, done, rows, value

TABLES = 16


@dataclass
class Table:
    """A table as its owner knows it: which column is which, whatever it is called."""

    name: str
    columns: dict[int, str] = field(default_factory=lambda: {0: "id", 1: "a", 2: "b", 3: "c"})
    seen: dict[int, str] = field(default_factory=dict)
    """As a run saw them last."""
    fresh: int = 4
    run_id: UUID | None = None
    before: dict[int, int | None] = field(default_factory=dict)
    told: list[str] = field(default_factory=list)

    def row(self, conn: psycopg.Connection) -> dict[int, int | None]:
        """The only row, by column."""
        found = value(conn, f"select to_jsonb(t) from {self.name} as t where {self.columns[0]} = 1")
        return {column: found[name] for column, name in self.columns.items()}


def alter(conn: psycopg.Connection, dice: random.Random, table: Table, others: list[Table]) -> None:
    """Something that an application's migration does, once."""

    def tell(*statements: str) -> None:
        table.told += statements
        do(conn, *statements)

    def rename(column: int, name: str) -> None:
        tell(f"alter table {table.name} rename {table.columns[column]} to {name}")
        table.columns[column] = name

    column = dice.choice([key for key in table.columns if key])
    what = dice.choice(["rename", "exchange", "drop", "take over", "add", "replace", "table", "in its place", "tables"])
    if what == "rename":
        table.fresh += 1
        rename(dice.choice([0, column]), f"x{table.fresh}")
    elif what == "exchange" and len(table.columns) > 2:
        other = dice.choice([key for key in table.columns if key not in (0, column)])
        mine, theirs = table.columns[column], table.columns[other]
        rename(column, "between")
        rename(other, mine)
        rename(column, theirs)
    elif what in ("drop", "take over") and len(table.columns) > 2:
        freed = table.columns.pop(column)
        tell(f"alter table {table.name} drop {freed}")
        if what == "take over":
            rename(dice.choice([key for key in table.columns if key]), freed)
    elif what in ("add", "replace"):
        table.fresh += 1
        name = f"y{table.fresh}"
        tell(f"alter table {table.name} add {name} integer")
        if what == "add":
            table.columns[table.fresh] = name
        elif table.seen.get(column) == table.columns[column]:
            # Made anew under the same name it is the same column, for a person and for the engine.
            old = table.columns[column]
            tell(f"update {table.name} set {name} = {old}", f"alter table {table.name} drop {old}")
            tell(f"alter table {table.name} rename {name} to {old}")
        else:
            tell(f"alter table {table.name} drop {name}")
    elif what == "table":
        table.fresh += 1
        tell(f"alter table {table.name} rename to {table.name}_{table.fresh}")
        table.name += f"_{table.fresh}"
    elif what == "in its place":
        table.fresh += 1
        old, table.name = table.name, f"{table.name}_{table.fresh}"
        tell(f"alter table {old} rename to {table.name}", f"create table {old} (like {table.name} including all)")
        tell(f"insert into {old} select * from {table.name}")
    elif what == "tables":
        its = dice.choice(others)
        tell(f"alter table {table.name} rename to between", f"alter table {its.name} rename to {table.name}")
        tell(f"alter table between rename to {its.name}")
        table.name, its.name = its.name, table.name


@pytest.mark.parametrize("seed", range(2))
def test_after_any_renames_and_a_restore_an_undo_is_right_or_refused_until_it_is_settled(
    conn: psycopg.Connection, database_url: str, empty_database_url: str, server: embedded.Server, seed: int
) -> None:
    dice = random.Random(seed)
    tables = [Table(f"t{i}") for i in range(TABLES)]
    for table in tables:
        do(conn, f"create table {table.name} (id integer primary key, a integer, b integer, c integer)")
        do(conn, f"insert into {table.name} values (1, 1, 2, 3)", f"select backfill.track('{table.name}')")
    conn.commit()
    for table in tables:
        for _ in range(dice.choice([0, 0, 1, 2])):  # what a run saw
            alter(conn, dice, table, [other for other in tables if other is not table])
    for table in tables:
        # All are the same after the run, so that a wrong column would not be noticed by its value.
        names = [name for key, name in table.columns.items() if key]
        some = dice.sample(names, dice.randint(1, len(names)))
        do(conn, *(f"update {table.name} set {name} = 0" for name in names if name not in some))
        table.before = table.row(conn)
        table.run_id = done(conn, f"update {table.name} set {', '.join(f'{name} = 0' for name in some)}")
    for table in tables:
        table.seen = dict(table.columns)
        table.told.append("-- seen")
    for table in tables:
        for _ in range(dice.choice([0, 1, 1, 2, 3])):
            alter(conn, dice, table, [other for other in tables if other is not table])
    conn.commit()
    programs = server.programs
    dumped = subprocess.run(
        [str(programs / "pg_dump"), "--format=custom", f"--dbname={database_url}"], capture_output=True, check=True
    ).stdout
    restore = [str(programs / "pg_restore"), "--exit-on-error", f"--dbname={empty_database_url}"]
    subprocess.run(restore, input=dumped, check=True)
    with psycopg.connect(empty_database_url) as copy:
        if seed % 2:  # as a run does that has nothing to write: new columns have places of their own then
            done(copy, "select 1")
        for table in tables:
            settle(copy, table)


def settle(copy: psycopg.Connection, table: Table) -> None:
    """Undone at once where nothing was in doubt, and where something was, after the owner said what is what."""
    lost = not set(table.seen) <= set(table.columns)
    renamed = {old: table.columns.get(key) for key, old in table.seen.items() if old != table.columns.get(key)}
    found = table.row(copy)
    refused = refusal(copy, table)
    assert refused is None or "not certain which of its columns" in refused, table.told
    assert refused or not renamed, table.told
    assert table.row(copy) == found
    copy.execute("select backfill.rebind(%s, %s)", [table.name, json.dumps(renamed)] if renamed else [table.name, "{}"])
    if lost:
        with pytest.raises(psycopg.Error, match="no longer has column") as caught:
            undo(copy, table)
        assert caught.value.sqlstate == "BF005"
        copy.rollback()
    else:
        undo(copy, table)
    copy.commit()


def refusal(copy: psycopg.Connection, table: Table) -> str | None:
    """Why its run is not undone (BF005); None where it was, rightly. It is taken back."""
    try:
        undo(copy, table)
    except psycopg.Error as error:
        if error.sqlstate != "BF005":
            raise
        return str(error)
    finally:
        copy.rollback()
    return None


def undo(copy: psycopg.Connection, table: Table) -> None:
    """Reverse its run; all is by column what it was before it, or this fails."""
    found = table.row(copy)
    assert rows(copy, "select result from backfill.reverse_run(%s)", [table.run_id]) == [("restored",)]
    now = table.row(copy)
    assert now == found | {key: was for key, was in table.before.items() if key in found}, table.told
