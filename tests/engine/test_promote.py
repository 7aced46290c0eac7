"""`runner snapshot`, `waive`, `promote`: each line turns red for its own reason, and green again."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest

from runner import embedded
from runner import snapshot as snapshot_module
from runner.errors import SnapshotError
from runner.promote import Line, promote, waive
from runner.settings import Settings
from runner.snapshot import snapshot
from runner.terminal.promote import sign_off_sheet
from tests.engine.words import Connection, do, value
from tests.reconciliation.test_corrections import ADA, billing, invoice, profile
from tests.reconciliation.test_story import cli

__all__ = ["billing"]


def lines(settings: Settings) -> dict[str, Line]:
    return {line.name: line for line in promote(settings).lines}


@pytest.fixture
def ready(billing: Connection, settings: Settings, tmp_path: Path) -> Connection:
    """A database in which nothing is in the way of a promotion."""
    do(billing, "select * from billing.validate_constraints()")
    billing.commit()
    snapshot(settings, directory=tmp_path)
    return billing


def test_every_line_is_green_where_nothing_is_in_the_way(ready: Connection, settings: Settings) -> None:
    found = promote(settings, stage="staging")
    states = {line.name: (line.state, line.details) for line in found.lines if line.name != "billing flows"}
    names = ("snapshot", "migrations", "gates", "backfills", "evidence", "constraints", "policies")
    assert states == dict.fromkeys(names, ("green", ()))
    [flows] = [line for line in found.lines if line.name == "billing flows"]
    assert (flows.state, flows.message) == ("green", "5 checks hold")
    assert found.green


def test_the_smoke_test_leaves_nothing(ready: Connection, settings: Settings, dump: Callable[..., str]) -> None:
    ready.commit()
    before = dump(settings.conninfo, "--inserts")
    promote(settings)
    assert dump(settings.conninfo, "--inserts") == before


def test_the_smoke_test_sees_a_broken_flow(ready: Connection, settings: Settings) -> None:
    do(ready, "alter table billing.check_payments add constraint broken check (amount_cents <> 10000)")
    ready.commit()
    flows = lines(settings)["billing flows"]
    assert flows.state == "red"
    assert any("broken" in detail for detail in flows.details)


def test_a_snapshot_must_be_there_fresh_whole_and_newer_than_the_last_run(
    billing: Connection, settings: Settings, tmp_path: Path
) -> None:
    assert lines(settings)["snapshot"].details == ("runner snapshot",)
    taken = snapshot(settings, directory=tmp_path)
    assert lines(settings)["snapshot"].state == "green"

    content = taken.file.read_bytes()
    taken.file.write_bytes(content + b"x")
    assert "its sha256 differs" in lines(settings)["snapshot"].details[0]
    taken.file.unlink()
    assert "is not there" in lines(settings)["snapshot"].details[0]
    taken.file.write_bytes(content)
    assert lines(settings)["snapshot"].state == "green"

    do(billing, "select backfill.begin_run('later')", "update billing.companies set name = name")
    do(billing, "select backfill.finish_run()")
    billing.commit()
    assert "runs have changed the database since" in lines(settings)["snapshot"].details[0]
    snapshot(settings, directory=tmp_path)
    assert lines(settings)["snapshot"].state == "green"


def test_an_old_snapshot_is_refused(billing: Connection, settings: Settings, tmp_path: Path) -> None:
    file = tmp_path / "old.dump"
    file.write_bytes(b"x")
    do(
        billing,
        f"select backfill.record_snapshot(now() - interval '25 hours', '{file}', encode(sha256('x'), 'hex'), 1)",
    )
    billing.commit()
    assert "older than 24 hours" in lines(settings)["snapshot"].details[0]
    assert promote(settings, snapshot_hours=26).lines[0].state == "green"


def test_a_snapshot_can_be_restored_and_only_its_owner_can_read_it(
    billing: Connection, settings: Settings, tmp_path: Path, server: embedded.Server
) -> None:
    taken = snapshot(settings, directory=tmp_path / "new")
    assert taken.file.stat().st_mode & 0o077 == 0
    assert [path.name for path in taken.file.parent.iterdir()] == [taken.file.name]
    restore = [str(server.programs / "pg_restore"), "--file=-", str(taken.file)]
    text = subprocess.run(restore, capture_output=True, text=True, check=True).stdout
    assert f"{ADA}\t" in text
    kept = billing.execute("select sha256, bytes, file from backfill.snapshot").fetchone()
    assert kept == (taken.sha256, taken.bytes, str(taken.file))


def test_a_dump_that_fails_leaves_no_file_and_no_record(
    billing: Connection, settings: Settings, tmp_path: Path
) -> None:
    do(billing, "create role no_rights_at_all login")
    billing.commit()
    try:
        powerless = replace(settings, conninfo=settings.conninfo.replace("user=postgres", "user=no_rights_at_all"))
        with pytest.raises(SnapshotError, match=r"pg_dump failed: .*permission denied"):
            snapshot(powerless, directory=tmp_path)
    finally:
        do(billing, "drop role no_rights_at_all")
        billing.commit()
    assert list(tmp_path.iterdir()) == []
    assert value(billing, "select count(*) from backfill.snapshot") == 0


def test_pending_and_edited_migrations_stop_it_before_anything_else(
    ready: Connection, settings: Settings, tmp_path: Path
) -> None:
    do(ready, "update backfill.migration_checksum set sha256 = repeat('0', 64) where migration_id ~ '^0001_'")
    ready.commit()
    (tmp_path / "1000_more_work.sql").write_text("-- more\n-- depends: 0001_backfill_schema\nselect 1;\n")
    (tmp_path / "1000_more_work.rollback.sql").write_text("select 1;\n")
    found = promote(replace(settings, migrations=tmp_path))
    assert not found.green
    [line] = found.lines
    assert (line.name, line.state, line.message) == ("migrations", "red", "1 pending, 1 edited")


def test_due_rows_and_failing_gates_are_red_until_mended_or_waived(ready: Connection, settings: Settings) -> None:
    profile(ready, "usd")
    invoice(ready, "A")
    do(
        ready,
        "update billing.invoices set billing_profile_id = null",
        "insert into billing.payments (company_id, customer_id, invoice_id, amount_cents, currency, status, paid_at)"
        " select company_id, customer_id, id, total_cents + 1, currency, 'succeeded', now() from billing.invoices",
    )
    ready.commit()
    found = lines(settings)
    assert found["backfills"].details == (
        (
            "billing_profiles: 1 row of 100.00 USD due, 0 rejects; runner apply billing_profiles, "
            "or runner waive billing_profiles"
        ),
    )
    exceeded = ("allocations_that_exceed", "invoices_paid_more_than_their_total")
    assert found["gates"].details == tuple(
        f"{gate}: 1 failing row; mend it, or runner waive {gate}" for gate in exceeded
    )
    today = str(value(ready, "select (now() at time zone 'UTC')::date"))
    for test in ("billing_profiles", *exceeded):
        waive(settings, test, until=today, reason="known, ticket 7", actor="finance")
    found = lines(settings)
    assert [found[name].state for name in ("backfills", "gates")] == ["waived", "waived"]
    assert found["gates"].details[0].endswith(f"waived until {today}: known, ticket 7")
    text = sign_off_sheet(promote(settings))
    assert (
        f"| invoices_paid_more_than_their_total | {today} | finance (claimed) via postgres | known, ticket 7 |" in text
    )


def test_a_gate_that_could_not_be_run_cannot_be_waived(ready: Connection, settings: Settings) -> None:
    do(ready, "alter view property.tenant_balance rename to gone")
    ready.commit()
    waive(settings, "balances_that_do_not_add_up", until=str(value(ready, "select current_date")), reason="x")
    ready.commit()
    found = lines(settings)["gates"]
    assert found.state == "red"
    assert "balances_that_do_not_add_up could not be run: relation" in found.details[0]
    assert all("could not be run" in detail for detail in found.details)


def test_an_expired_waiver_does_not_count_and_a_waiver_cannot_be_changed(ready: Connection, settings: Settings) -> None:
    profile(ready, "usd")
    invoice(ready, "A")
    do(
        ready,
        "insert into backfill.waiver (test, until, reason, actor)"
        " values ('billing_profiles', current_date - 2, 'x', 'y')",
    )
    ready.commit()
    assert lines(settings)["backfills"].state == "red"
    for statement in ("update backfill.waiver set until = current_date + 9", "delete from backfill.waiver",
                      "truncate backfill.waiver", "delete from backfill.snapshot"):  # fmt: skip
        with pytest.raises(psycopg.Error, match="append-only"), ready.transaction():
            do(ready, statement)


@pytest.mark.parametrize(("until", "reason"), [("2020-01-01", "x"), ("2999-01-01", "x"), ("", " ")])
def test_a_waiver_has_a_reason_and_an_end_within_a_year(conn: Connection, until: str, reason: str) -> None:
    day = until or str(value(conn, "select current_date"))
    with pytest.raises(psycopg.Error) as caught:
        conn.execute("select backfill.waive('charges', %s, %s)", [day, reason])
    assert caught.value.sqlstate == "BF036"


def test_constraints_and_policies_must_be_there(ready: Connection, settings: Settings) -> None:
    do(
        ready,
        "alter table billing.payments drop constraint payments_invoice_fk",
        "alter table billing.payments add constraint payments_invoice_fk foreign key (invoice_id)"
        " references billing.invoices (id) not valid",
        "drop policy if exists billing_tenant on billing.payments",
        "drop policy if exists billing_service on billing.payments",
        "drop policy if exists billing_readonly on billing.payments",
    )
    ready.commit()
    found = lines(settings)
    assert found["constraints"].details == (
        "payments_invoice_fk of billing.payments is not validated: select * from billing.validate_constraints();",
    )
    assert found["policies"].details == ("table billing.payments has no policy: select billing.prepare_rls();",)
    do(ready, "select * from billing.validate_constraints()", "select billing.prepare_rls()")
    ready.commit()
    found = lines(settings)
    assert {found["constraints"].state, found["policies"].state} == {"green"}


def test_the_commands(ready: Connection, settings: Settings, tmp_path: Path) -> None:
    url = settings.conninfo
    printed = cli(url, "promote", "--stage", "staging", "--sheet", str(tmp_path / "s.md"))
    assert "Ready for staging" in printed
    assert (tmp_path / "s.md").read_text().startswith("# Promotion to staging: ready\n")
    assert '"sha256"' in cli(url, "snapshot", "--directory", str(tmp_path), "--json")
    assert "no gate or backfill nonsense" in cli(
        url, "waive", "nonsense", "--until", "2026-01-01", "--reason", "x", code=2
    )
    assert "YYYY-MM-DD" in cli(url, "waive", "charges", "--until", "soon", "--reason", "x", code=2)
    today = str(value(ready, "select (now() at time zone 'UTC')::date"))
    assert "is waived until" in cli(url, "waive", "charges", "--until", today, "--reason", "[not markup]")


def test_a_snapshot_shows_nothing_of_the_connection_to_other_users(
    billing: Connection, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """pg_dump's command line is everybody's to read: what is on it when it starts, and what it is told elsewhere."""
    seen = tmp_path / "seen"
    real = snapshot_module._pg_dump(billing.info.server_version // 10000)
    program = tmp_path / "pg_dump"
    words = ('echo "$0 $@"', "env", 'cat "$PGSERVICEFILE"')
    program.write_text(f'#!/bin/sh\n({"; ".join(words)}) > {seen}\nexec {real} "$@"\n')
    program.chmod(0o755)
    monkeypatch.setattr(snapshot_module, "_pg_dump", lambda _: str(program))
    odd = replace(settings, conninfo=f"{settings.conninfo} password=hunter2 keepalives_idle=77 options='-c jit=off'")
    assert snapshot(odd, directory=tmp_path).bytes > 0
    command, *rest = seen.read_text().splitlines()
    assert command.split()[1:] == ["--format=custom"]
    assert "PGPASSWORD=hunter2" in rest
    assert "PGOPTIONS=-c jit=off" in rest
    assert "keepalives_idle=77" in rest
