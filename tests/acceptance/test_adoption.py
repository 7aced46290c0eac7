"""The whole way on a database that an application already uses: rehearse, apply, look, undo, do it again."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from tests.story import (
    HOUSEHOLD,
    HOUSEHOLD_CHARGES,
    HOUSEHOLD_TOTAL,
    SAMPLE_CHARGES,
    SAMPLE_TOTAL,
    UNIT,
    Done,
    adopt,
    charges,
    duplicates,
    last_run,
    lock_holders,
    run,
    shell,
    sql,
)


@dataclass(frozen=True, slots=True)
class Application:
    """An application's database, what the backfill must write there, and how its commands are run."""

    url: str
    rows: int
    total: str
    runner: Callable[..., Done]


@pytest.fixture(params=["sample", "household"])
def application(request: pytest.FixtureRequest, empty_database_url: str) -> Application:
    if request.param == "sample":
        return Application(adopt(empty_database_url), SAMPLE_CHARGES, SAMPLE_TOTAL, run)
    if not HOUSEHOLD.exists():
        pytest.skip("the household data is not beside this project (../shared/tools/load-household)")
    subprocess.run([sys.executable, str(HOUSEHOLD), empty_database_url], check=True, capture_output=True)
    return Application(empty_database_url, HOUSEHOLD_CHARGES, HOUSEHOLD_TOTAL, shell)


def test_rehearse_apply_undo_and_apply_again(application: Application, dump: Callable[..., str]) -> None:
    """Invariants 6, 7 and 16: a dry run leaves nothing, a second run finds nothing, an undo takes all away,
    twice is once, and the same rows come back with the same ids."""
    url, runner = application.url, application.runner

    def state() -> str:
        return dump(url, "--inserts")

    empty = state()
    rehearsed = runner(url, "apply", "--dry-run")
    assert f"due {application.rows:,} rows, {application.total}; rejects 0" in rehearsed.out
    assert re.search(rf"property\.charges +{application.rows:,} +0 +0 +{application.total}\n", rehearsed.out)
    assert "Rehearsed and rolled back: nothing was changed." in rehearsed.out
    assert state() == empty

    applied = runner(url, "apply", "--yes")
    assert "Applied and committed." in applied.out
    written = charges(url)
    assert len(written) == application.rows
    assert f"{sum(row[5] for row in written) / 100:,.2f}" == application.total
    assert duplicates(url) == []

    once = state()
    assert "Nothing is due." in runner(url, "apply", "--yes").out
    assert state() == once

    first = last_run(url)
    assert f"runner rollback {first}" in applied.out
    tried = runner(url, "rollback", first[:8], "--dry-run")
    assert f"{application.rows:,}" in tried.out
    assert state() == once
    undone = runner(url, "rollback", first, "--yes")
    assert re.search(rf"property\.charges +0 +0 +{application.rows:,} +-{application.total}\n", undone.out)
    assert charges(url) == []
    gone = state()
    assert "already undone" in runner(url, "rollback", first, "--yes").out
    assert state() == gone

    runner(url, "apply", "--yes")
    assert charges(url) == written
    assert lock_holders(url) == []


def test_a_charge_edited_by_hand_makes_the_undo_refuse_naming_it(
    application: Application, dump: Callable[..., str]
) -> None:
    """Invariant 16: a reversal is all or nothing; exit 6."""
    url, runner = application.url, application.runner
    runner(url, "apply", "--yes")
    [(edited, tenant, unit, period)] = sql(
        url,
        "update property.charges set amount_cents = amount_cents + 1 where id = (select id from property.charges"
        " where created_by is null order by id limit 1) returning id, tenant_user_id, unit_id, billing_period",
    )
    before = dump(url, "--inserts")
    for way in ("--dry-run", "--yes"):
        refused = runner(url, "rollback", last_run(url), way, code=6)
        assert refused.out == ""
        assert f"{tenant} / {unit} / {period}" in refused.err
        assert "changed since" in refused.err
        assert "Traceback" not in refused.err
    assert dump(url, "--inserts") == before
    # Mended by hand, the row is again what the run left.
    sql(url, f"update property.charges set amount_cents = amount_cents - 1 where id = '{edited}'")
    runner(url, "rollback", last_run(url), "--yes")
    assert charges(url) == []


def test_a_tenant_who_only_tried_to_pay_stops_nothing(database_url: str) -> None:
    """He has no balance, and no gate misses one."""
    url = adopt(database_url)
    sql(url, "insert into property.payments (tenant_user_id, unit_id, amount_cents, payment_method, status,"
             f" billing_period) values ('grace', '{UNIT}', 120000, 'card', 'failed', '2024-01')")  # fmt: skip
    run(url, "apply", "--yes")
    run(url, "gates")
    assert sql(url, "select from property.tenant_balance where tenant_user_id = 'grace'") == []
