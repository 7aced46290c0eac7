"""A server with a standby and prepared transactions: who may be asked for what, and who is in the way."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import sql as names

from runner import embedded
from runner.database import connect, transaction
from runner.errors import SqlError
from runner.settings import Settings
from tests.place import ROOT
from tests.story import LOCK, SAMPLE_CHARGES, adopt, charges, config, last_run, lock_holders, run, sql, until

OPTIONS = {**embedded.UNSAFE_BUT_FAST, "max_prepared_transactions": "4", "wal_level": "replica"}


@pytest.fixture(scope="module")
def primary(_environment: None) -> Iterator[embedded.Server]:
    with embedded.running(version=int(os.environ.get("PG", embedded.DEFAULT_VERSION)), options=OPTIONS) as server:
        yield server


@pytest.fixture
def url(primary: embedded.Server, request: pytest.FixtureRequest) -> str:
    """A database of the sample, with the engine and charges."""
    name = request.node.name[:40]
    sql(primary.url(), names.SQL("create database {}").format(names.Identifier(name)).as_string())
    return adopt(primary.url(f'"{name}"').replace('"', ""))


@pytest.fixture
def standby(primary: embedded.Server) -> Iterator[embedded.Server]:
    """A hot standby that streams from the primary."""
    directory = Path(tempfile.mkdtemp(prefix="standby-"))
    directory.chmod(0o711)
    data = directory / "data"
    owner = embedded._owner()
    embedded._prepare(data, owner)
    programs = embedded._reachable_copy(primary.programs) if owner else primary.programs
    try:
        embedded._run(
            [str(programs / "pg_basebackup"), "-D", str(data), "-h", str(primary.socket), "-p", str(embedded.PORT),
             "-U", embedded.SUPERUSER, "-R", "-X", "stream", "-c", "fast", "--no-sync"],
            data,
        )  # fmt: skip
        for left in ("postmaster.pid", f".s.PGSQL.{embedded.PORT}.lock"):
            (data / left).unlink(missing_ok=True)
        server = embedded.start(data, version=primary.version, options={**OPTIONS, "hot_standby": "on"})
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def test_a_standby_is_looked_at_and_never_written_to(url: str, standby: embedded.Server, tmp_path: Path) -> None:
    options = config(tmp_path, systems=["charges"])
    run(url, "apply", "--yes", *options)
    copy = standby.url(str(psycopg.conninfo.conninfo_to_dict(url)["dbname"]))
    until(lambda: sql(copy, "select to_regclass('backfill.backfill_log') is not null") == [(True,)], "the standby")
    until(lambda: sql(copy, "select count(*) from backfill.backfill_log") == [(1,)], "the run on the standby")
    assert "No migration is pending" in run(copy, "status", *options).out
    assert last_run(url)[:8] in run(copy, "log", *options).out
    assert "Every gate passes" in run(copy, "gates", *options).out
    findings = run(copy, "doctor", "--json", *options, code=1).json["findings"]
    assert [item["subject"] for item in findings if item["state"] == "fail"] == ["primary"]
    assert "this server is a standby: connect to the primary" in str(findings)
    for words in (("apply", "--yes"), ("apply", "--dry-run"), ("rollback", last_run(url), "--yes"), ("promote",)):
        done = run(copy, *words, *options, code=1)
        assert "primary" in done.err, done
        assert "Traceback" not in done.err
    run(url, "promote", *options, code=3)


def test_a_prepared_transaction_that_holds_the_lock_is_named_with_its_end(url: str, tmp_path: Path) -> None:
    options = config(tmp_path, systems=["charges"], lock_wait="200ms")
    run(url, "apply", "--dry-run", *options)
    with psycopg.connect(url) as conn:
        conn.execute(LOCK.encode())
        conn.execute("prepare transaction 'it''s mine'")
    try:
        done = run(url, "apply", "--yes", *options, code=5)
        assert 'prepared transaction "it\'s mine" (role postgres) since' in done.err
        assert "rollback prepared 'it''s mine'" in done.err
        assert "None" not in done.err
        findings = run(url, "doctor", "--json", *options, code=None).json["findings"]
        said = {item["subject"]: item["message"] for item in findings}
        assert 'prepared transaction "it\'s mine"' in said["lock"]
        assert "rollback prepared 'it''s mine'" in said["prepared transaction"]
        assert charges(url) == []
    finally:
        sql(url, "rollback prepared 'it''s mine'")
    run(url, "apply", "--yes", *options)
    assert len(charges(url)) == SAMPLE_CHARGES
    assert lock_holders(url) == []


def test_a_slot_and_a_publication_are_nothing_to_a_run(url: str, primary: embedded.Server, tmp_path: Path) -> None:
    options = config(tmp_path, systems=["charges"])
    sql(url, "create publication everything for all tables", "select pg_create_physical_replication_slot('odd', true)")
    try:
        run(url, "apply", "--yes", *options)
        run(url, "rollback", last_run(url), "--yes", *options)
        findings = run(url, "doctor", "--json", *options, code=None).json["findings"]
        assert "inactive replication slots" in str([item for item in findings if item["subject"] == "replication"])
    finally:
        sql(url, "select pg_drop_replication_slot('odd')")


@pytest.fixture(scope="module")
def german(_environment: None) -> Iterator[embedded.Server]:
    """A server that speaks German: one with translations, as Debian's, and a locale made for it."""
    program, words = shutil.which("localedef"), Path("/usr/share/locale/de/LC_MESSAGES/postgres-15.mo")
    if program is None or not words.exists():
        pytest.skip("no server with German messages is installed")
    locales = Path(tempfile.mkdtemp(prefix="locale-"))
    locales.chmod(0o755)
    made = subprocess.run([program, "-i", "de_DE", "-f", "UTF-8", str(locales / "de_DE.UTF-8")], check=False)
    try:
        if made.returncode:
            pytest.skip("no German locale can be made")
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("LOCPATH", str(locales))
            options = {**embedded.UNSAFE_BUT_FAST, "lc_messages": "de_DE.UTF-8"}
            with embedded.running(version=15, options=options) as server:
                yield server
    finally:
        shutil.rmtree(locales, ignore_errors=True)


def test_a_server_that_speaks_german_is_understood(german: embedded.Server, tmp_path: Path) -> None:
    """What decides is the SQLSTATE, never the words."""
    url = adopt(german.url())
    with pytest.raises(psycopg.errors.DivisionByZero, match="Division durch Null"):
        sql(url, "select 1/0")
    options = config(tmp_path, lock_timeout="200ms", retries=0)
    run(url, "apply", "--yes", *options)
    assert len(charges(url)) == SAMPLE_CHARGES
    # A ledger whose records are broken in two ways: one is named by its line, one is never closed.
    header = (ROOT / "docs" / "sample_ledger_template.csv").read_text().splitlines()[0]
    for text, code, said in (
        (f"{header}\nL1,2026-01-01\n", 3, "line 2"), (f'{header}\nL1,"2026\n', 2, "a quote is opened and never closed"),
    ):  # fmt: skip
        (tmp_path / "ledger.csv").write_text(text)
        assert said in run(url, "reconcile", "--ledger", str(tmp_path / "ledger.csv"), *options, code=code).err
    (tmp_path / "ledger.csv").write_bytes(header.encode() + b"\nL1,2026-01-01,\xff\n")
    done = run(url, "reconcile", "--ledger", str(tmp_path / "ledger.csv"), *options, code=2)
    assert "ledger.csv line 2 is not UTF-8" in done.err
    # A lock, a row that was changed since, rows that a policy would hide.
    with psycopg.connect(url) as other:
        other.execute("lock table property.charges")
        assert "lock_timeout" in run(url, "rollback", last_run(url), "--yes", *options, code=5).err
        other.rollback()
    sql(url, "update property.charges set amount_cents = amount_cents + 1 where created_by is null")
    run(url, "rollback", last_run(url), "--yes", *options, code=6)
    sql(
        url, "create role hidden login", "grant backfill_operator, backfill_auditor to hidden",
        "grant select on all tables in schema property to hidden", "grant usage on schema property to hidden",
        "alter table property.payments enable row level security",
    )  # fmt: skip
    hidden = Settings(conninfo=f"{url} user=hidden")
    with pytest.raises(SqlError, match="BYPASSRLS"), connect(hidden) as conn, transaction(conn, hidden):
        conn.execute("select from property.payments")
