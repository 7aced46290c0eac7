"""Images leave: to files that bring them back, or value by value for good. The chain holds before and after."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from uuid import UUID

import psycopg
import pytest

from tests.engine.evidence import head, history, make_entry, unguarded, wrong
from tests.engine.words import changes, do, done, images, refused, reverse, rows, value
from tests.story import Done, run, sql

AFTER = "2999-01-01"


@pytest.fixture
def entry(conn: psycopg.Connection) -> psycopg.Connection:
    """A tracked table with rows in it."""
    make_entry(conn)
    return conn


@pytest.fixture
def runs(entry: psycopg.Connection) -> list[UUID]:
    """Three runs of it."""
    return history(entry)


def export(url: str, folder: Path) -> dict[str, Path]:
    """Every run's images into files; the file of each run."""
    done_ = run(url, "audit", "export", "--before", AFTER, "--directory", str(folder), "--yes", "--json").json
    return {one["run_id"]: Path(one["file"]) for one in done_["runs"]}


def test_an_exported_run_is_restored_to_the_byte(
    entry: psycopg.Connection, runs: list[UUID], database_url: str, tmp_path: Path
) -> None:
    before = {run_id: changes(entry, run_id, "*") for run_id in runs}
    at_first = images(entry, "entry")
    entry.commit()
    files = export(database_url, tmp_path / "audit")
    assert set(files) == {str(run_id) for run_id in runs}
    assert {file.stat().st_mode & 0o777 for file in files.values()} == {0o600}
    assert sorted(file.name for file in (tmp_path / "audit").iterdir()) == sorted(file.name for file in files.values())
    assert value(entry, "select count(*) from backfill.change_log") == 0
    assert wrong(entry) == []
    for run_id in runs:
        for ask in ("reverse_run", "reversal_preview"):
            with pytest.raises(psycopg.Error, match="exported, not reversible here") as caught, entry.transaction():
                do(entry, f"select * from backfill.{ask}('{run_id}')")
            assert caught.value.sqlstate == "BF017"
            assert f"runner audit restore {files[str(run_id)].name}" in refused(caught)
    entry.commit()
    assert "succeeded, exported" in run(database_url, "log").out
    assert "exported, not reversible here" in run(database_url, "log", str(runs[0])).out
    assert "exported, not reversible here" in run(database_url, "rollback", str(runs[0]), "--yes", code=6).err
    for run_id in runs:
        assert "is back, to the byte" in run(database_url, "audit", "restore", str(files[str(run_id)])).text
    assert {run_id: changes(entry, run_id, "*") for run_id in runs} == before
    assert wrong(entry) == []
    for run_id in reversed(runs):
        reverse(entry, run_id)
    assert images(entry, "entry") != at_first
    assert rows(entry, "select count(*) from entry where name = 'n' || id and cents = 100 and rate = id / 7.0") == [
        (2500,)
    ]
    assert wrong(entry) == []


def test_what_the_table_became_meanwhile_does_not_matter(
    entry: psycopg.Connection, runs: list[UUID], database_url: str, tmp_path: Path
) -> None:
    """Columns were added and retyped, single rows are kept anew, the table was untracked and its rows vacuumed away."""
    files = export(database_url, tmp_path)
    do(
        entry,
        "select backfill.untrack('entry')",
        "alter table entry alter column id type bigint",
        "alter table entry add column more text default 'm'",
        "alter table entry rename column name to title",
    )
    entry.commit()
    sql(database_url, "vacuum backfill_audit.public_entry_row", "vacuum backfill_audit.public_entry")
    do(entry, "select backfill.track('entry')")
    entry.commit()
    newest = done(entry, "update entry set more = 'n' where id = 3")
    for file in files.values():
        run(database_url, "audit", "restore", str(file))
    assert wrong(entry) == []
    for run_id in (newest, *reversed(runs)):
        reverse(entry, run_id)
    assert rows(entry, "select count(*) from entry where title = 'n' || id and cents = 100 and more = 'm'") == [(2500,)]
    assert wrong(entry) == []


def test_a_file_that_is_not_the_one_is_refused_and_nothing_comes_back(
    entry: psycopg.Connection, runs: list[UUID], database_url: str, tmp_path: Path
) -> None:
    files = export(database_url, tmp_path)
    file = files[str(runs[0])]
    lines = gzip.decompress(file.read_bytes()).splitlines(keepends=True)
    other = tmp_path / "other.jsonl.gz"
    # Not in the first line: the run's id and the hashes there may hold these digits by chance.
    forged_lines = lines[0] + b"".join(lines[1:]).replace(b"101", b"102")
    other.write_bytes(gzip.compress(forged_lines, mtime=0))
    refusal = run(database_url, "audit", "restore", str(other), code=1)
    assert "no run of this database was exported to" in refusal.err
    # An owner who enters the other file's hash into the export's link breaks the chain, and the images tell it anyway.
    forged = run(database_url, "verify", "audit", "--json").json["head"]
    sha256 = refusal.err.rpartition("sha256 is ")[2].strip().rstrip(".")
    with unguarded(entry, "backfill.chain"):
        do(
            entry,
            f"""update backfill.chain set detail = detail || '{{"sha256": "{sha256}"}}'"""
            f" where kind = 'export' and run_id = '{runs[0]}'",
        )
    assert "does not hold the images of run" in run(database_url, "audit", "restore", str(other), code=1).err
    assert run(database_url, "verify", "audit", "--anchor", forged, code=3).out.count("the link was altered") == 1
    assert value(entry, "select count(*) from backfill.change_log where run_id = %s", [runs[0]]) == 0


def test_a_file_that_was_cut_or_is_none_is_refused(
    entry: psycopg.Connection, runs: list[UUID], database_url: str, tmp_path: Path
) -> None:
    file = export(database_url, tmp_path)[str(runs[0])]
    file.write_bytes(file.read_bytes()[:-30])
    assert "its sha256 is" in run(database_url, "audit", "restore", str(file), code=1).err
    assert "cannot be read" in run(database_url, "audit", "restore", str(tmp_path / "none"), code=1).err
    assert wrong(entry) == []


def test_images_stay_where_the_file_cannot_be_written_or_does_not_hold_them(
    entry: psycopg.Connection, runs: list[UUID], database_url: str, tmp_path: Path
) -> None:
    before = changes(entry, runs[0], "*")
    entry.commit()
    (tmp_path / "file").write_text("")
    export_to = ("audit", "export", "--before", AFTER, "--yes", "--directory")
    assert "Nothing was removed" in run(database_url, *export_to, str(tmp_path / "file"), code=1).err
    ended = value(entry, "select to_char(completed_at at time zone 'UTC', 'YYYYMMDD') from backfill.backfill_log"
                  " where run_id = %s", [runs[0]])  # fmt: skip
    entry.commit()
    there = tmp_path / f"{ended}-{runs[0]}.jsonl.gz"
    there.write_text("somebody's")
    assert "is there and holds something else" in run(database_url, *export_to, str(tmp_path), code=1).err
    assert there.read_text() == "somebody's"
    for lines, words in (
        ("array(select line from backfill.export_lines('{run}') as line limit 2)", "4 packs of public.entry were"),
        ("array(select replace(line, '101', '102') from backfill.export_lines('{run}') as line)", "were altered"),
        ("array(select line from backfill.export_lines('{other}') as line)", "the file is not of run"),
    ):  # fmt: skip
        with pytest.raises(psycopg.Error, match=words) as caught, entry.transaction():
            do(
                entry,
                f"select backfill.take_export({lines.format(run=runs[0], other=runs[1])})",
                f"select backfill.export_run('{runs[0]}', 'f', repeat('0', 64))",
            )
        assert caught.value.sqlstate == "BF018"
    with pytest.raises(psycopg.Error, match="was not read again: its images stay"), entry.transaction():
        do(entry, f"select backfill.export_run('{runs[0]}', 'f', repeat('0', 64))")
    assert changes(entry, runs[0], "*") == before
    assert wrong(entry) == []


def test_a_list_first_and_a_question_before_anything_is_removed(
    entry: psycopg.Connection, runs: list[UUID], database_url: str, tmp_path: Path
) -> None:
    def asked(*options: str, code: int) -> Done:
        return run(database_url, "audit", "export", "--directory", str(tmp_path / "audit"), *options, code=code)

    listed = asked("--before", AFTER, "--dry-run", "--json", code=0).json
    assert (listed["verdict"], [one["run_id"] for one in listed["runs"]]) == (
        "listed",
        [str(run_id) for run_id in runs],
    )
    assert asked("--before", AFTER, "--json", code=2).json["verdict"] == "not asked"
    assert asked("--before", "2001-01-01", "--yes", "--json", code=0).json["verdict"] == "nothing to export"
    assert not (tmp_path / "audit").exists()
    assert value(entry, "select count(*) from backfill.chain where kind = 'export'") == 0


def test_erased_values_are_gone_from_every_image_and_the_chain_says_why(
    entry: psycopg.Connection, runs: list[UUID], database_url: str, tmp_path: Path
) -> None:
    anchor = head(entry)
    [link] = rows(
        entry, "select link, kind, actor, detail from backfill.erase('public.entry', '8', '{name}', 'request of 3 May')"
    )
    entry.commit()
    assert link[1:3] == ("erase", entry.info.user)
    detail = link[3]
    assert (detail["reason"], detail["columns"], detail["images"]) == ("request of 3 May", ["name"], 2)
    assert "n8" not in json.dumps(detail)
    shown = rows(
        entry, "select distinct before ->> 'name', after ->> 'name' from backfill.change_log where primary_key = '8'"
    )
    assert shown == [(None, None)]
    assert (
        value(entry, "select count(*) from backfill.change_log where primary_key = '9' and after ->> 'name' = 'n9'")
        == 1
    )
    assert wrong(entry, anchor) == []
    # What a reversal needs is named; what it does not, it does not miss.
    for run_id in runs[:2]:
        with pytest.raises(psycopg.Error, match=r"values of public.entry.name that it needs were erased") as caught:
            do(entry, f"select * from backfill.reverse_run('{run_id}')")
        entry.rollback()
        assert caught.value.sqlstate == "BF017"
        assert f"link {link[0]} of the chain: request of 3 May" in refused(caught)
    assert reverse(entry, runs[2]) == {"restored": 100}
    assert value(entry, "select link from backfill.erase('public.entry', '8', '{name}', 'again')") is None
    entry.commit()
    # Altered after it, also by bringing the value back, is altered.
    with unguarded(entry, "backfill_audit.public_entry"):
        do(entry, f"update backfill_audit.public_entry set a2[8] = 'n8' where run_id = '{runs[0]}' and pack = 0")
    assert [found.partition(": ")[2] for found in wrong(entry)] == ["packs of public.entry were altered"]


def test_an_erasure_and_an_export_get_on(
    entry: psycopg.Connection, runs: list[UUID], database_url: str, tmp_path: Path
) -> None:
    do(entry, "select backfill.erase('public.entry', '8', '{name}', 'first')")
    entry.commit()
    files = export(database_url, tmp_path)
    assert wrong(entry) == []
    with pytest.raises(psycopg.Error, match=r"no image of public\.entry is of key 9"):
        do(entry, "select backfill.erase('public.entry', '9', '{name}', 'late')")
    entry.rollback()
    run(database_url, "audit", "restore", str(files[str(runs[0])]))
    assert wrong(entry) == []
    do(entry, "select backfill.erase('public.entry', '9', '{name}', 'then')")
    entry.commit()
    told = run(database_url, "audit", "restore", str(files[str(runs[1])]))
    assert "were erased by link" in told.text
    assert "erase them again" in told.text
    assert wrong(entry) == []


def test_an_erasure_that_cannot_be_is_refused_by_name(entry: psycopg.Connection, runs: list[UUID]) -> None:
    assert runs
    for call, words in (
        ("'public.nothing', '8', '{name}', 'x'", "no images of public.nothing are kept"),
        ("'public.entry', '8', '{name}', ' '", "names its columns and a reason"),
        ("'public.entry', '8', '{}', 'x'", "names its columns and a reason"),
        ("'public.entry', '8', '{id}', 'x'", "column id is of the primary key"),
        ("'public.entry', '8', '{mail}', 'x'", "no image of public.entry has a column mail"),
        ("'public.entry', '99999', '{name}', 'x'", "no image of public.entry is of key 99999"),
    ):
        with pytest.raises(psycopg.Error, match=words) as caught, entry.transaction():
            do(entry, f"select backfill.erase({call})")
        assert caught.value.sqlstate == "BF018"
    run_id = value(entry, "select backfill.begin_run('long', p_spans_transactions => true)")
    with (
        pytest.raises(psycopg.Error, match=r"backfill.erase\(\) is refused|a run is open") as caught,
        entry.transaction(),
    ):
        do(entry, "select backfill.erase('public.entry', '8', '{name}', 'x')")
    do(entry, "update entry set name = 'x' where id = 8")
    entry.commit()
    with pytest.raises(psycopg.Error, match=f"run {run_id} has no link of the chain yet"):
        do(entry, "select backfill.erase('public.entry', '8', '{name}', 'x')")
    entry.rollback()
    assert wrong(entry) == []


def test_verify_says_whole_or_names_what_is_not(entry: psycopg.Connection, runs: list[UUID], database_url: str) -> None:
    whole = run(database_url, "verify", "audit")
    assert "Whole" in whole.out
    assert "No anchor was given" in whole.out
    assert head(entry) in whole.out
    entry.commit()
    anchor = run(database_url, "log", "--json").json["head"]
    found = run(database_url, "verify", "audit", "--anchor", anchor, "--json").json
    assert (found["findings"], found["anchored"], found["runs"]) == ([], True, 3)
    with unguarded(entry, "backfill_audit.public_entry"):
        do(entry, f"update backfill_audit.public_entry set a3[1] = 0 where run_id = '{runs[0]}' and pack = 0")
    broken = run(database_url, "verify", "audit", code=3)
    assert f"run {runs[0]}: packs of public.entry were altered" in broken.text
    assert "n7" not in broken.out
    # A seal made anew hides a function from the chain, and not from the migrations of whoever verifies.
    sql(
        database_url,
        "create or replace function backfill.guard_log() returns trigger language plpgsql security invoker"
        " set search_path = pg_catalog, pg_temp as 'begin return new; end'",
        "select backfill.seal_engine('nothing to see')",
    )
    broken = run(database_url, "verify", "audit", code=3)
    assert "function backfill.guard_log() has a body that is in no migration of this runner" in broken.text
    assert "of the chain, 64" in run(database_url, "verify", "audit", "--anchor", "9f", code=2).err
