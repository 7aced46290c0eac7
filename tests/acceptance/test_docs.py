"""What the documents show is what happens: their commands and their SQL are run, in order."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from runner.systems import sample
from tests.place import ROOT

SAMPLE = sample("charges") / "application.sql"


@pytest.fixture
def application_url(empty_database_url: str) -> str:
    """The sample application's database before any migration."""
    with psycopg.connect(empty_database_url, autocommit=True) as conn:
        conn.execute(SAMPLE.read_bytes())
    return empty_database_url


def blocks(document: Path, language: str) -> list[str]:
    """The fenced blocks of one language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```$", document.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def run_cli(url: str, words: list[str], directory: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "runner.cli", *words],
        env=os.environ | {"DATABASE_URL": url, "PYTHONPATH": str(ROOT), "COLUMNS": "100"},
        cwd=directory,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        check=False,
    )


def in_order(wanted: str, printed: str) -> Iterator[str]:
    """Lines of a document that do not follow one another in what was printed; `…` stands for anything."""
    lines = iter([line.rstrip() for line in printed.splitlines()])
    for line in wanted.splitlines():
        if line.strip() in ("", "…"):
            continue
        pattern = re.compile(r"\s+".join(map(_word, line.split())))
        if not any(pattern.fullmatch(candidate.strip()) for candidate in lines):
            yield line


def _word(word: str) -> str:
    return ".*".join(re.escape(piece) for piece in word.split("…"))


def test_the_readme_tells_what_happens(application_url: str, tmp_path: Path) -> None:
    """Every command of the README's story is run; each line that it shows is printed, in that order."""
    consoles = blocks(ROOT / "README.md", "console")
    assert len(consoles) == 5
    for block in consoles:
        command, _, shown = block.partition("\n")
        words = command.removeprefix("$ runner ").split()
        with psycopg.connect(application_url) as conn:
            if "RUN" in words:
                found = conn.execute("select run_id::text from backfill.backfill_log").fetchone()
                assert found is not None
                words[words.index("RUN")] = found[0][:8]
        done = run_cli(application_url, words, tmp_path)
        assert done.returncode == 0, done.stderr
        assert list(in_order(shown, done.stdout)) == [], done.stdout
    assert (tmp_path / "report.html").stat().st_size > 5_000


def test_the_recipes_for_the_sql_editor_run_as_written(application_url: str, tmp_path: Path) -> None:
    """Every SQL block of docs/sql-editor.md, in its order, in one session; each query finds something."""
    assert run_cli(application_url, ["apply", "charges", "--yes"], tmp_path).returncode == 0
    with psycopg.connect(application_url, autocommit=True) as conn:
        # The document begins before anything was done.
        conn.execute("select count(*) from backfill.reverse_run((select run_id from backfill.backfill_log))")
        recipes = blocks(ROOT / "docs" / "sql-editor.md", "sql")
        assert len(recipes) >= 15
        for recipe in recipes:
            for statement in filter(str.strip, recipe.split(";")):
                cursor = conn.execute(statement.encode())
                if cursor.description and "new_rejects" not in statement:
                    assert cursor.fetchall(), statement
        status = conn.execute(
            "select status from backfill.backfill_log where backfill like 'hotfix%' and mode = 'manual'"
        )
        assert status.fetchone() == ("reversed",)


@pytest.fixture
def open_directory() -> Iterator[Path]:
    """A directory that other users may pass: started by root, the server runs as one of them."""
    with tempfile.TemporaryDirectory(prefix="runner-demo-") as name:
        Path(name).chmod(0o711)
        yield Path(name)


@pytest.mark.parametrize(("story", "lines"), [("charges", 140), ("all", 600)])
def test_the_demo_tells_its_story(open_directory: Path, story: str, lines: int) -> None:
    """`runner demo` on its embedded server: each command ends as told, and nobody has to scroll for long."""
    done = subprocess.run(
        [sys.executable, "-m", "runner.cli", "demo", story, "--directory", str(open_directory)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told = done.stdout.splitlines()
    assert "That was all." in told[-1]
    assert len(told) <= lines
    assert max(len(line) for line in told if "--expect" not in line) <= 100  # that one is copied
    assert (open_directory / "report.html").exists()


def test_no_link_between_the_pages_is_broken() -> None:
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("*.md")]
    broken = [
        f"{page.relative_to(ROOT)}: {target}"
        for page in pages
        for target in re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8"))
        if not target.startswith("http") and not (page.parent / target).exists()
    ]
    assert broken == []
