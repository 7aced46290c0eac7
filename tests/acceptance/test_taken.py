"""Rows of the past that the application writes itself while a run is rehearsed and applied: left to it, and named."""

from __future__ import annotations

import io
import json

import pytest
from rich.console import Console

from runner import apply as apply_
from runner.result import Report
from runner.settings import Settings
from runner.systems import SYSTEMS
from runner.terminal.page import apply_page
from runner.terminal.report import draw_report
from runner.text import to_json
from tests.engine.test_apply import validate
from tests.story import SAMPLE_CHARGES, UNIT, adopt, run, sql

OURS = "select count(*) from property.charges where created_by is null and description like 'Rent for %'"
CHARGED = f"""
    insert into property.charges (tenant_user_id, unit_id, type, description, amount_cents, billing_period)
    values ('ada', '{UNIT}', 'rent', 'by the application', 120000, '2023-01'),
        ('ada', '{UNIT}', 'rent', 'by the application', 120000, '2023-02')
"""


@pytest.fixture
def url(database_url: str) -> str:
    return adopt(database_url)


def apply(url: str, *between: str, accept_taken: bool = True) -> Report:
    """Rehearse, let others write, and apply."""

    def confirm(_: Report) -> bool:
        sql(url, *between)
        return True

    plan = apply_.Plan(backfills=("charges",), accept_taken=accept_taken)
    settings = Settings(conninfo=url, systems=SYSTEMS)
    return apply_.apply(settings, plan, confirm=confirm, progress=lambda _: None)


def test_what_others_wrote_meanwhile_is_left_to_them_and_named(url: str) -> None:
    report = apply(url, CHARGED)
    assert report.verdict == "applied"
    [backfill] = [item for item in report.attempt.backfills if item.name == "charges"]
    assert [(row.table, row.key, row.money) for row in backfill.taken] == [
        ("property.charges", f"ada / {UNIT} / 2023-01", {"amounts": 120_000}),
        ("property.charges", f"ada / {UNIT} / 2023-02", {"amounts": 120_000}),
    ]
    assert backfill.rows == SAMPLE_CHARGES - 2
    assert sql(url, OURS) == [(SAMPLE_CHARGES - 2,)]
    # The undo takes back what the run wrote, and nothing of the application's.
    run(url, "rollback", str(backfill.run_id), "--yes")
    assert sql(url, OURS) == [(0,)]
    assert sql(url, "select count(*) from property.charges where description = 'by the application'") == [(2,)]
    assert run(url, "verify", "audit").code == 0


def test_without_the_flag_it_differs_as_before_and_names_the_flag(url: str) -> None:
    report = apply(url, CHARGED, accept_taken=False)
    assert (report.verdict, report.exit_code) == ("apply differed", 4)
    assert sql(url, OURS) == [(0,)]


@pytest.mark.parametrize(
    "between",
    [
        "update property.units set rent_amount_cents = rent_amount_cents + 1",
        f"""insert into property.payments
                (tenant_user_id, unit_id, amount_cents, payment_method, status, billing_period)
            values ('ada', '{UNIT}', 120000, 'ach', 'succeeded', '2029-01')""",
        "delete from property.payments where tenant_user_id = 'ada' and billing_period = '2023-03'",
        f"""{CHARGED}; delete from property.payments where tenant_user_id = 'ada' and billing_period = '2023-03'""",
    ],
    ids=["a row is another", "a row more", "a row less that nobody wrote", "both"],
)
def test_any_other_difference_is_one(url: str, between: str) -> None:
    report = apply(url, between)
    assert (report.verdict, report.exit_code) == ("apply differed", 4)
    assert sql(url, OURS) == [(0,)]


def test_a_row_that_was_there_before_is_not_taken_for_one_that_was_written_meanwhile(url: str) -> None:
    """A credit with the same key, and the payment gone: nobody charged that rent."""
    sql(
        url,
        f"""insert into property.charges (tenant_user_id, unit_id, type, description, amount_cents, billing_period)
            values ('ada', '{UNIT}', 'credit', 'before', 1, '2023-03')""",
    )
    report = apply(url, "delete from property.payments where tenant_user_id = 'ada' and billing_period = '2023-03'")
    assert report.verdict == "apply differed"


def test_people_programs_and_finance_are_told(url: str) -> None:
    report = apply(url, CHARGED)
    console = Console(width=100, file=io.StringIO(), highlight=False)
    draw_report(report, console)
    said = console.file.getvalue()  # type: ignore[attr-defined]
    assert "left to others, who wrote them since the rehearsal: 2 rows" in said
    assert f"ada / {UNIT} / 2023-01  1,200.00" in said
    assert "The application wrote these itself since the rehearsal: 2" in apply_page(report).decode()
    validate(json.loads(to_json(report)))
