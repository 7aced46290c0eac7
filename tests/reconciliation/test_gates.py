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
    kept = conn.execute(
        "select count(*), count(payload), min(payload ->> 'class') from backfill.stored_failure"
        " group by invocation_id order by min(stored_at)"
    ).fetchall()
    assert kept == [(1, 0, None), (FOUND, FOUND, "amount differs"), (FOUND, FOUND, "amount differs")]


def test_dbt_refuses_to_pass_on_an_empty_side(settings: Settings, conn: psycopg.Connection, tmp_path: Path) -> None:
    import_finance_ledger(settings, FOLDER / "ledger.csv")
    verdicts = dbt_verdicts("build", PROJECT, tmp_path, conn)
    assert verdicts["finance_ledger_reconciled_on_nothing"] == ("fail", 1)
