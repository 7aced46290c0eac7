"""The gates of invoices: silent on a sound catalogue, and each finds its planted defect before the commit."""

from __future__ import annotations

from pathlib import Path

import pytest

from runner import gates
from runner.settings import Settings
from runner.systems import SYSTEMS
from tests.engine.gating import dbt_verdicts
from tests.invoices.test_actions import stage
from tests.invoices.world import World
from tests.place import ROOT


@pytest.fixture(scope="module")
def compiled() -> gates.Gates:
    return gates.compile(Settings(systems=SYSTEMS))


@pytest.fixture
def sound(world: World) -> World:
    """Two invoices of the catalogue written by a run, one of them partly paid, and one of the application."""
    hillside, lakeview = world.facility(), world.facility("Lakeview")
    stage(world, hillside, "INV-0033")
    stage(world, lakeview, "INV-0985", total=20_000)
    world.conn.execute("select from backfill.run('invoices')")
    world.send(world.forward(hillside))
    world.allocate(world.check(lakeview, 5_000))
    return world


def judge(world: World, compiled: gates.Gates) -> dict[str, gates.GateResult]:
    return {result.name: result for result in gates.run(world.conn, compiled, ["invoices"])}


def test_a_sound_catalogue_passes_but_for_its_missing_originals(sound: World, compiled: gates.Gates) -> None:
    results = judge(sound, compiled)
    assert {name: result.status for name, result in results.items() if result.status != "pass"} == {
        "originals_missing": "warn"
    }
    assert [row["invoice_number"] for row in results["originals_missing"].rows] == ["INV-0033", "INV-0985"]
    sound.conn.execute("update billing.invoices set pdf_storage_path = 'x.pdf'")
    assert judge(sound, compiled)["originals_missing"].status == "pass"


DEFECTS: dict[str, tuple[str, dict[str, object]]] = {
    "invoices_whose_lines_do_not_add_up": (
        (
            "update billing.invoice_lines set amount_cents = 1 where invoice_id in"
            " (select id from billing.invoices where invoice_number = 'INV-0033')"
        ),
        {"invoice_number": "INV-0033", "cents": 10_000, "line_cents": 1},
    ),
    "allocations_that_exceed": (
        "update billing.check_payment_applications set amount_cents = 20001",
        {"paid": "check 1", "cents": 5_000, "applied_cents": 20_001},
    ),
    "open_amounts_that_do_not_add_up": (
        "update billing.invoices set amount_paid_cents = 4999 where invoice_number = 'INV-0985'",
        {"invoice_number": "INV-0985", "amount_paid_cents": 4_999, "applied_cents": 5_000},
    ),
    "numbers_above_the_watermark": (
        "update billing.settings set next_invoice_number = 985",
        {"invoice_number": "INV-0985", "number_ordinal": 985, "next_invoice_number": 985},
    ),
    "interest_on_backfilled_invoices": (
        (
            "insert into billing.interest_accruals (company_id, invoice_id, accrued_from, accrued_through,"
            " base_cents, annual_bps, amount_cents) select company_id, id, '2024-01-01', '2024-02-01', 1, 1, 7"
            " from billing.invoices where invoice_number = 'INV-0033'"
        ),
        {"invoice_number": "INV-0033", "cents": 7},
    ),
    "backfilled_without_dates": (
        (
            "alter table billing.invoices drop constraint invoices_backfilled_is_receivable;"
            " update billing.invoices set due_date = null where invoice_number = 'INV-0033'"
        ),
        {"invoice_number": "INV-0033", "due_date": None},
    ),
    "second_active_invoice_for_a_period": (
        (
            "update billing.invoices as i set period_start = o.period_start, period_end = o.period_end"
            " from billing.invoices as o where i.origin = 'app' and o.invoice_number = 'INV-0033'"
        ),
        {"facility": "Hillside", "invoice_numbers": "INV-0033, INV-0986"},
    ),
    "catalogue_rows_unaccounted_for": (
        (
            "delete from billing.invoice_lines where invoice_id in (select id from billing.invoices where"
            " invoice_number = 'INV-0033'); delete from billing.invoices where invoice_number = 'INV-0033'"
        ),
        {"invoice_number": "INV-0033", "bucket": "not written", "cents": 10_000},
    ),
    "applications_across_currencies": (
        "update billing.check_payments set currency = 'EUR'",
        {"invoice_number": "INV-0985", "applied": "check 1", "currency": "EUR", "invoice_currency": "USD"},
    ),
    "applications_of_money_that_is_gone": (
        "update billing.check_payments set returned_on = received_on",
        {"invoice_number": "INV-0985", "applied": "check 1", "cents": 5_000},
    ),
    "invoices_reconciled_on_nothing": (
        "truncate billing.invoices cascade",
        {"source": "billing.invoices", "wanted": 2, "rows_seen": 0},
    ),
}


@pytest.mark.parametrize("name", DEFECTS)
def test_each_gate_finds_its_defect(sound: World, compiled: gates.Gates, name: str) -> None:
    sound.conn.execute("set constraints all immediate")
    defect, expected = DEFECTS[name]
    sound.conn.execute(defect.encode())
    found = judge(sound, compiled)[name]
    assert found.status == "fail", found.message
    assert any(expected.items() <= row.items() for row in found.rows), found.rows


def test_every_gate_of_invoices_has_a_planted_defect(compiled: gates.Gates) -> None:
    assert {gate.name for gate in compiled if "invoices" in gate.backfills} == {*DEFECTS, *WARNINGS}


WARNINGS: dict[str, tuple[str, dict[str, object]]] = {
    "originals_missing": ("select", {"invoice_number": "INV-0033"}),
    "checks_received_twice": (
        (
            "insert into billing.check_payments (company_id, facility_id, check_number, received_on, amount_cents)"
            " select company_id, facility_id, check_number, received_on, amount_cents from billing.check_payments"
        ),
        {"facility": "Lakeview", "check_number": "1", "cents": 5_000, "finding": "it pays nothing by itself"},
    ),
    "periods_that_overlap": (
        "update billing.invoices set period_start = '2022-12-30', period_end = '2023-01-02' where origin = 'app'",
        {"facility": "Hillside", "invoice_number": "INV-0033", "before_number": "INV-0986"},
    ),
}


@pytest.mark.parametrize("name", WARNINGS)
def test_each_warning_names_its_rows_and_stops_nothing(sound: World, compiled: gates.Gates, name: str) -> None:
    change, expected = WARNINGS[name]
    sound.conn.execute(change.encode())
    found = judge(sound, compiled)[name]
    assert found.status == "warn", found.message
    assert any(expected.items() <= row.items() for row in found.rows), found.rows


def test_a_check_may_not_pay_more_than_it_is(sound: World, compiled: gates.Gates) -> None:
    sound.conn.execute("update billing.check_payments set amount_cents = 4999")
    assert judge(sound, compiled)["allocations_that_exceed"].status == "fail"


def test_dbt_itself_says_the_same_and_its_models_say_what_is_owed(sound: World, tmp_path: Path) -> None:
    sound.conn.commit()
    verdicts = dbt_verdicts("build", ROOT / "dbt_project", tmp_path, sound.conn)
    assert {name: verdict for name, verdict in verdicts.items() if verdict[0] in ("fail", "warn")} == {
        "originals_missing": ("warn", 2)
    }
    receivables = sound.rows("select * from reconciliation.receivables_by_facility order by facility")
    assert [(row["facility"], row["open_cents"], row["historical_cents"]) for row in receivables] == [
        ("Hillside", 20_000, 10_000),
        ("Lakeview", 15_000, 15_000),
    ]
    ages = ("not_due_cents", "days_1_to_30_cents", "days_31_to_60_cents", "days_61_to_90_cents", "days_over_90_cents")
    assert all(sum(row[age] for age in ages) == row["open_cents"] for row in receivables)
    assert receivables[1]["days_over_90_cents"] == 15_000
    labels = sound.rows("select invoice_number, label from reconciliation.invoice_list order by 1")
    assert [row["label"] for row in labels] == ["Historical", "Historical", None]


def test_aging_counts_from_the_due_date(sound: World, compiled: gates.Gates, tmp_path: Path) -> None:
    facility = sound.facility("Seaside")
    for week, days in enumerate((-1, 0, 1, 30, 31, 60, 61, 90, 91), 100):
        invoice = sound.forward(facility, week=week, total=2 ** (week - 100))
        sound.send(invoice, due=str(sound.value("select (now() at time zone 'UTC')::date - %s", days)))
    sound.conn.commit()
    dbt_verdicts("build", ROOT / "dbt_project", tmp_path, sound.conn)
    row = sound.row("select * from reconciliation.receivables_by_facility where facility = 'Seaside'")
    assert (row["not_due_cents"], row["days_1_to_30_cents"], row["days_31_to_60_cents"]) == (3, 4 + 8, 16 + 32)
    assert (row["days_61_to_90_cents"], row["days_over_90_cents"], row["open_cents"]) == (64 + 128, 256, 511)
