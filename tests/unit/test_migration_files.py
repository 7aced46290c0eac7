"""Every migration file: its name, its rollback, and that yoyo splits it where PostgreSQL would."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from yoyo.migrations import read_sql_migration

from runner import migrations
from runner.settings import ROOT

FILES = sorted((ROOT / "migrations").glob("*.sql"))
FORWARD = [path for path in FILES if not path.name.endswith(".rollback.sql")]

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
    assert migrations.NAME.match(path.stem), "expected NNNN_<schema>_<entity>.sql"


def test_no_number_is_used_twice() -> None:
    numbers = [path.name[:4] for path in FORWARD]
    assert numbers == sorted(set(numbers))


@pytest.mark.parametrize("path", FORWARD, ids=lambda path: path.stem)
def test_has_a_rollback_and_a_header(path: Path) -> None:
    assert path.with_suffix(".rollback.sql").is_file()
    lines = path.read_text(encoding="utf-8").splitlines()
    assert lines[0].startswith("-- "), "a migration opens with what it does and why it is safe"
    if path != FORWARD[0]:
        # yoyo reads `depends` only from -- lines before the first statement.
        directives = read_sql_migration(str(path))[0]
        assert directives.get("depends"), "expected a line `-- depends: …` before the first statement"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_yoyo_splits_where_postgresql_does(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert [bare(statement) for statement in read_sql_migration(str(path))[2]] == [bare(s) for s in split(text)]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_statement_ends_with_a_semicolon(path: Path) -> None:
    assert all(bare(statement).endswith(";") for statement in read_sql_migration(str(path))[2])


@pytest.mark.parametrize("path", FORWARD, ids=lambda path: path.stem)
def test_transactions_are_the_runners(path: Path) -> None:
    for statement in read_sql_migration(str(path))[2]:
        assert not re.match(r"(begin|start transaction|commit|rollback|savepoint)\b", bare(statement), re.IGNORECASE)
