"""The two backfills: what they write, what they leave alone, what they cannot take, and that twice is nothing."""

from __future__ import annotations

import json
import shutil
from decimal import Decimal
from pathlib import Path

import psycopg
import pytest

from runner.errors import translate
from runner.rent.load import load_electricity, load_rent_history
from runner.settings import Settings
from tests.engine.words import Connection, refused
from tests.rent.flat import BILLS, HISTORY, ask, backfill, everything, furnish, runner


@pytest.fixture
def loaded(settings: Settings, conn: Connection) -> Settings:
    """All samples in staging, nothing billed."""
    furnish(conn)
    load_rent_history(settings, HISTORY)
    load_electricity(settings, BILLS)
    return settings


def test_only_the_highest_version_is_billed_and_all_are_kept(loaded: Settings) -> None:
    _, metrics, _ = backfill(loaded, "rent_history")
    assert (metrics["calculations"], metrics["ledger_rows_created"], metrics["ledger_rows_explained"]) == (7, 18, 0)
    assert ask(
        loaded,
        "select tenant, amount_due, days_stayed, room_adjustment, base_monthly_rent, calculation_title,"
        " calculation_date at time zone 'UTC' || '', calculation_version, amount_paid, currency"
        " from rent.rent_ledger where period = '2023-02' order by tenant collate \"C\"",
    ) == [
        (name, 637200 if name != "Dag" else 318600, Decimal(days), 0, 500000, "March 2023 - With Dag",
         "2023-03-05 08:00:00", 10, None, "SEK")
        for name, days in (("Alma", "31"), ("Bo", "31"), ("Dag", "15.5"), ("Åsa", "31"))
    ]  # fmt: skip
    assert ask(loaded, "select array_agg(version order by version) from rent.calculation where period = '2023-02'") == [
        ([1, 2, 10],)
    ]


def test_missing_days_stay_null_and_old_files_are_taken(loaded: Settings) -> None:
    backfill(loaded, "rent_history")
    assert ask(
        loaded,
        "select tenant, amount_due, days_stayed, room_adjustment, base_monthly_rent, calculation_title"
        " from rent.rent_ledger where period in ('2022-11', '2023-03') and tenant in ('Bo', 'Dag') order by period, 1",
    ) == [
        ("Bo", 693400, Decimal(31), -90000, 666667, None),
        ("Bo", 557600, None, 0, 500000, "April 2023"),
        ("Dag", 557600, None, 0, 500000, "April 2023"),
    ]


def test_rows_that_exist_are_explained_and_never_changed(loaded: Settings, conn: Connection) -> None:
    conn.execute(
        "insert into rent.rent_ledger (tenant, period, amount_due, amount_paid, payment_date) values"
        " ('Dag', '2023-02', 318700, 318700, '2023-02-27')"
    )
    conn.commit()
    _, metrics, _ = backfill(loaded, "rent_history")
    assert (metrics["ledger_rows_created"], metrics["ledger_rows_explained"]) == (17, 1)
    assert ask(
        loaded,
        "select amount_due, amount_paid, payment_date::text, days_stayed, calculation_version"
        " from rent.rent_ledger where tenant = 'Dag' and period = '2023-02'",
    ) == [(318700, 318700, "2023-02-27", Decimal("15.5"), 10)]
    ((explained,),) = ask(loaded, "select explanation from rent.explain('Dag', '2023-02')")
    assert "the calculation says 3186 kr" in explained


@pytest.mark.parametrize("name", ["rent_history", "electricity_bills"])
def test_second_run_changes_nothing(loaded: Settings, name: str) -> None:
    backfill(loaded, name)
    before = everything(loaded)
    run_id, _, _ = backfill(loaded, name)
    assert everything(loaded) == before
    assert ask(loaded, "select 1 from backfill.change_log where run_id = %s", [run_id]) == []
    assert ask(loaded, "select due_rows, due_money, rejects from backfill.due(%s)", [[name]]) == [(0, {}, 0)]


@pytest.mark.parametrize("name", ["rent_history", "electricity_bills"])
def test_undone_and_done_again_brings_the_same_rows(loaded: Settings, name: str) -> None:
    empty = everything(loaded)
    run_id, _, digest = backfill(loaded, name)
    full = everything(loaded)
    with psycopg.connect(loaded.conninfo) as conn:
        conn.execute("select backfill.reverse_run(%s)", [run_id])
    assert everything(loaded) == empty
    assert backfill(loaded, name)[2] == digest
    assert everything(loaded) == full


def test_due_says_what_will_be_written(loaded: Settings) -> None:
    assert ask(loaded, "select backfill, due_rows, due_money, rejects from backfill.due() where system = 'rent'") == [
        ("electricity_bills", 8 + 4, {"SEK": 540298}, 0),
        (
            "rent_history",
            7 + 18,
            {"SEK": int(ask(loaded, "select sum(cents) from backfill.rent_history_due")[0][0])},
            0,
        ),
    ]
    backfill(loaded, "rent_history")
    assert ask(loaded, "select sum(amount_due) from rent.rent_ledger") == ask(
        loaded, "select (metrics -> 'tables' -> 'rent.rent_ledger' -> 'money' ->> 'SEK')::numeric"
        " from backfill.backfill_log where backfill = 'rent_history'"
    )  # fmt: skip


def test_bills_go_to_their_month_and_el_is_their_sum_where_it_is_missing(loaded: Settings, conn: Connection) -> None:
    conn.execute("insert into rent.rent_config (key, period, value) values ('el', '2023-01', 150050)")
    conn.commit()
    backfill(loaded, "electricity_bills")
    assert ask(
        loaded, "select bill_period, sum(amount), count(*) from rent.electricity_bills group by 1 order by 1"
    ) == [("2022-12", 150000, 2), ("2023-01", 150000, 2), ("2023-02", 120100, 2), ("2023-03", 120198, 2)]
    assert ask(loaded, "select period, value from rent.rent_config where key = 'el' order by 1") == [
        ("2022-12", 150000), ("2023-01", 150050), ("2023-02", 120100), ("2023-03", 120198),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("day", "month"),
    [("2025-02-25", "2025-02"), ("2025-02-24", "2025-01"), ("2025-01-24", "2024-12"), ("2024-12-31", "2024-12"),
     ("2025-03-01", "2025-02"), ("2024-03-31", "2024-03"), ("2025-01-01", "2024-12")],
)  # fmt: skip
def test_month_of_a_bill(conn: Connection, day: str, month: str) -> None:
    assert conn.execute("select rent.bill_period(%s)", [day]).fetchone() == (month,)


def test_a_bill_is_never_there_twice_however_many_files_hold_it(loaded: Settings, tmp_path: Path) -> None:
    more = tmp_path / "more.txt"
    more.write_text(BILLS.read_text(encoding="utf-8") + "2023-05-02\t300 kr\n", encoding="utf-8")
    load_electricity(loaded, more)
    backfill(loaded, "electricity_bills")
    assert ask(loaded, "select count(*), sum(amount) from rent.electricity_bills") == [(9, 570298)]


def test_files_that_disagree_and_a_bill_of_another_amount_are_rejected(loaded: Settings, tmp_path: Path) -> None:
    other = tmp_path / "other.txt"
    other.write_text("# Fortum\n2023-03-01\t501 kr\n", encoding="utf-8")
    load_electricity(loaded, other)
    with pytest.raises(psycopg.Error) as caught:
        backfill(loaded, "electricity_bills")
    assert translate(caught.value).exit_code == 3
    assert "files disagree on Fortum of 2023-03-01: 500 and 501 kr" in refused(caught)
    backfill(loaded, "electricity_bills", allow_rejects=2)
    assert ask(loaded, "select count(*) from rent.electricity_bills") == [(7,)]
    late = tmp_path / "late.txt"
    late.write_text("# Fortum\n2022-12-30\t701 kr\n", encoding="utf-8")
    load_electricity(loaded, late)
    with pytest.raises(psycopg.Error) as caught:
        backfill(loaded, "electricity_bills")
    assert "Fortum of 2022-12-30 is already there with 700 kr" in refused(caught)


def test_a_closed_month_is_a_reject_and_stays_as_it_is(loaded: Settings, conn: Connection) -> None:
    conn.execute("select rent.close_period('2023-02', 'year end')")
    conn.commit()
    with pytest.raises(psycopg.Error) as caught:
        backfill(loaded, "rent_history")
    assert "2023_02_v10.json: 2023-02 was closed on" in refused(caught)
    backfill(loaded, "rent_history", allow_rejects=3)
    backfill(loaded, "electricity_bills", allow_rejects=2)
    assert ask(loaded, "select 1 from rent.rent_ledger where period = '2023-02'") == []
    assert ask(loaded, "select 1 from rent.electricity_bills where bill_period = '2023-02'") == []
    assert ask(loaded, "select 1 from rent.rent_config where period = '2023-02'") == []


def test_a_rejected_higher_version_holds_its_month_back(settings: Settings, conn: Connection, tmp_path: Path) -> None:
    furnish(conn)
    shutil.copytree(HISTORY, tmp_path / "history")
    whole = (tmp_path / "history" / "2023_02_v10.json").read_bytes()
    (tmp_path / "history" / "2023_02_v10.json").write_bytes(whole[:-9])
    load_rent_history(settings, tmp_path / "history", allow_rejects=1)
    with pytest.raises(psycopg.Error) as caught:
        backfill(settings, "rent_history")
    assert "version 10 of 2023-02 was rejected when it was loaded" in refused(caught)
    backfill(settings, "rent_history", allow_rejects=2)
    assert ask(settings, "select 1 from rent.rent_ledger where period = '2023-02'") == []
    # mended, it comes again, and the month goes on
    (tmp_path / "history" / "2023_02_v10.json").write_bytes(whole)
    load_rent_history(settings, tmp_path / "history")
    backfill(settings, "rent_history")
    assert ask(settings, "select max(calculation_version) from rent.rent_ledger where period = '2023-02'") == [(10,)]


def test_a_version_that_was_computed_here_is_not_overwritten(loaded: Settings, conn: Connection) -> None:
    conn.execute(
        "select rent.record_calculation('2023-03', '{\"Alma\": {}}', %s, 'here')",
        [json.dumps({"kallhyra": 1, "el": 2, "bredband": 3})],
    )
    conn.commit()
    with pytest.raises(psycopg.Error) as caught:
        backfill(loaded, "rent_history")
    assert "version 1 of 2023-03 is already there from rent.record_calculation" in refused(caught)
    backfill(loaded, "rent_history", allow_rejects=1)
    assert ask(loaded, "select tenant, calculation_title from rent.rent_ledger where period = '2023-03'") == [
        ("Alma", "here")
    ]


def test_the_whole_way_on_the_command_line(loaded: Settings) -> None:
    rehearsed = runner(loaded, "apply", "electricity_bills", "rent_history", "--dry-run")
    assert rehearsed.returncode == 0, rehearsed.stdout + rehearsed.stderr
    assert ask(loaded, "select 1 from rent.rent_ledger union all select 1 from rent.electricity_bills") == []
    applied = runner(loaded, "apply", "--yes")
    assert applied.returncode == 0, applied.stdout + applied.stderr
    assert ask(loaded, "select count(*), sum(amount_due) from rent.rent_ledger") == [
        (18, (22602 + 22602 + 22302 + 22304 + 23904) * 100)
    ]
    again = runner(loaded, "apply", "--yes")
    assert again.returncode == 0
    assert "Nothing is due." in again.stdout
