"""Every migration file: its name and number, its rollback, and that yoyo splits it where PostgreSQL would."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from yoyo.migrations import read_sql_migration

from runner.migration_files import NAME
from runner.sql_text import refused, statements
from runner.systems import ENGINE, REQUIRES, SYSTEMS
from tests.place import MIGRATIONS

FILES = sorted(MIGRATIONS.rglob("*.sql"))
FORWARD = [path for path in FILES if not path.name.endswith(".rollback.sql")]
FIRST = min(FORWARD, key=lambda path: path.name)
FOLDER = {path.stem: path.parent.name for path in FORWARD}

BANDS = {name: range(100 * place, 100 * (place + 1)) for place, name in enumerate((ENGINE, *SYSTEMS))}
"""A hundred numbers for the engine and for each system, in their order."""

LONGEST = 300
"""Lines that a person reads in one go."""

# What may hold a semicolon that ends nothing: quoted texts and names, dollar quotes, comments.
_OPAQUE = re.compile(
    r"""(?P<tag>\$(?:[A-Za-z_]\w*)?\$).*?(?P=tag)
      | [eE]'(?:[^'\\]|\\.|'')*' | '(?:[^']|'')*' | "(?:[^"]|"")*"
      | --[^\n]* | /\*.*?\*/""",
    re.DOTALL | re.VERBOSE,
)


def split(sql: str) -> list[str]:
    """Statements by PostgreSQL's own rule for migrations: the semicolons outside of _OPAQUE."""
    ends = [found.start() for found in re.finditer(";", _OPAQUE.sub(lambda m: "x" * len(m[0]), sql))]
    starts = [0, *(end + 1 for end in ends)]
    return [
        piece
        for piece in (sql[a:b] for a, b in zip(starts, [*(e + 1 for e in ends), None], strict=True))
        if bare(piece)
    ]


def bare(sql: str) -> str:
    """Without comments outside of quotes and without outer or repeated blanks there."""
    text = _OPAQUE.sub(lambda m: "" if m[0].startswith(("--", "/*")) else m[0], sql)
    return " ".join(text.split())


@pytest.mark.parametrize("path", FORWARD, ids=lambda path: path.stem)
def test_name_says_number_schema_and_entity(path: Path) -> None:
    assert NAME.match(path.stem), "expected NNNN_<schema>_<entity>.sql"


def test_every_file_lies_in_the_folder_of_its_system() -> None:
    assert FILES
    assert {path.parent for path in FILES} == {MIGRATIONS / name for name in BANDS}


@pytest.mark.parametrize("path", FORWARD, ids=lambda path: path.stem)
def test_a_number_lies_in_the_band_of_its_folder(path: Path) -> None:
    assert int(path.name[:4]) in BANDS[path.parent.name]


def test_no_number_is_used_twice() -> None:
    numbers = sorted(path.name[:4] for path in FORWARD)
    assert numbers == sorted(set(numbers))


@pytest.mark.parametrize("path", FORWARD, ids=lambda path: path.stem)
def test_has_a_rollback_and_a_header(path: Path) -> None:
    assert path.with_suffix(".rollback.sql").is_file()
    lines = path.read_text(encoding="utf-8").splitlines()
    assert lines[0].startswith("-- "), "a migration opens with what it does and why it is safe"
    assert any(line.startswith("-- Safe: ") for line in lines[:10])


@pytest.mark.parametrize("path", [path for path in FILES if path not in FORWARD], ids=lambda path: path.name)
def test_a_rollback_is_of_a_migration(path: Path) -> None:
    assert path.name.replace(".rollback.sql", "") in FOLDER


@pytest.mark.parametrize("path", FORWARD, ids=lambda path: path.stem)
def test_depends_on_what_is_there_without_another_system(path: Path) -> None:
    # yoyo reads `depends` only from -- lines before the first statement.
    depends = read_sql_migration(str(path))[0].get("depends", "").split()
    assert depends or path == FIRST, "expected a line `-- depends: …` before the first statement"
    folder = path.parent.name
    allowed = {folder, ENGINE, *REQUIRES.get(folder, ())}
    assert {name: FOLDER.get(name) for name in depends if FOLDER.get(name) not in allowed} == {}
    assert all(name < path.stem for name in depends), "numbers are in the order of dependence"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_is_short_enough_to_be_read(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").count("\n")
    assert lines <= LONGEST


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_yoyo_splits_where_postgresql_does(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert [bare(statement) for statement in read_sql_migration(str(path))[2]] == [bare(s) for s in split(text)]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_statement_ends_with_a_semicolon(path: Path) -> None:
    assert all(bare(statement).endswith(";") for statement in read_sql_migration(str(path))[2])


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_transactions_are_the_runners(path: Path) -> None:
    """The runner reads a project's own files for it each time, and relies on this for those that are bundled."""
    assert refused(path.read_text(encoding="utf-8")) is None


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_the_runner_splits_as_yoyo_does(path: Path) -> None:
    found = statements(path.read_text(encoding="utf-8"))
    assert [bare(f"{statement};") for statement in found] == [bare(s) for s in read_sql_migration(str(path))[2]]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_database_of_any_encoding_can_hold_it(path: Path) -> None:
    """Comments and messages are kept in the database: LATIN1 has no ellipsis."""
    assert path.read_bytes().isascii()
