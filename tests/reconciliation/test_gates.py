"""dbt says the same of the ledger as `runner reconcile`, and its stored failures keep their history."""

from __future__ import annotations

from pathlib import Path

import psycopg

from runner.reconciliation.finance_ledger import import_finance_ledger
from runner.settings import Settings
from tests.engine.gating import dbt_verdicts
from tests.place import ROOT
from tests.reconciliation.sample_ledger import FOLDER, PASSES, PLANTED

PROJECT = ROOT / "dbt_project"
FOUND = sum(count for name, count in PLANTED.items() if name not in PASSES)


def test_dbt_build_finds_what_was_planted_and_keeps_every_runs_failures(
    settings: Settings, conn: psycopg.Connection, tmp_path: Path
) -> None:
    conn.execute((FOLDER / "billing.sql").read_bytes())
    conn.commit()
    first = dbt_verdicts("build", PROJECT, tmp_path, conn)
    # No ledger was imported: nothing to reconcile with.
    assert first["finance_ledger_reconciled_on_nothing"] == ("pass", 0)
    import_finance_ledger(settings, FOLDER / "ledger.csv")
    for _ in range(2):
        verdicts = dbt_verdicts("build", PROJECT, tmp_path, conn)
        assert verdicts["finance_ledger_lines_and_invoices_that_differ"] == ("fail", FOUND)
        assert verdicts["finance_ledger_matched_by_number_only"] == ("warn", PLANTED["matched by number only"])
        assert verdicts["finance_ledger_classes_that_do_not_make_the_totals"] == ("pass", 0)
        assert verdicts["finance_ledger_reconciled_on_nothing"] == ("pass", 0)
        for name in ("apart_beyond_the_tolerance", "compared_nothing", "lines_not_taken"):
            assert verdicts[f"finance_ledger_{name}"] == ("pass", 0)
    kept = conn.execute(
        "select count(*), count(payload), min(payload ->> 'class') from backfill.stored_failure"
        " group by invocation_id order by min(stored_at)"
    ).fetchall()
    assert kept == [(1, 0, None), (FOUND, FOUND, "amount differs"), (FOUND, FOUND, "amount differs")]


def test_dbt_refuses_to_pass_on_an_empty_side(settings: Settings, conn: psycopg.Connection, tmp_path: Path) -> None:
    import_finance_ledger(settings, FOLDER / "ledger.csv")
    verdicts = dbt_verdicts("build", PROJECT, tmp_path, conn)
    assert verdicts["finance_ledger_reconciled_on_nothing"] == ("fail", 1)


def test_dbt_judges_a_scope_a_sum_and_what_was_not_taken_as_the_runner_does(
    settings: Settings, conn: psycopg.Connection, tmp_path: Path
) -> None:
    conn.execute((FOLDER / "billing.sql").read_bytes())
    conn.commit()
    ledger = tmp_path / "ledger.csv"
    ledger.write_text((FOLDER / "ledger.csv").read_text(encoding="utf-8").replace(",80.00,", ",80.001,", 1))
    import_finance_ledger(settings, ledger, allow_rejects=1)
    chosen = ("--select", "reconciliation.reconciliation")
    asked = "{finance_ledger_tolerance: 0.07, finance_ledger_tolerance_total: 0.05}"
    verdicts = dbt_verdicts("build", PROJECT, tmp_path, conn, *chosen, "--vars", asked)
    # 0.07 CAD and 0.01 USD of the planted differences are within the tolerance; the sum of CAD is not.
    assert verdicts["finance_ledger_apart_beyond_the_tolerance"] == ("fail", 1)
    assert verdicts["finance_ledger_lines_not_taken"] == ("fail", 1)
    assert verdicts["finance_ledger_compared_nothing"] == ("pass", 0)
    verdicts = dbt_verdicts("build", PROJECT, tmp_path, conn, *chosen, "--vars", "{finance_ledger_from: 2062-01-01}")
    assert verdicts["finance_ledger_compared_nothing"] == ("fail", 1)
