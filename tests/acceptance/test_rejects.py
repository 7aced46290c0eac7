"""`runner rejects`: what cannot be taken, and what a run was allowed to leave out."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from tests.story import adopt, last_run, run, sql

BAD = """
    insert into property.payments (tenant_user_id, unit_id, billing_period, amount_cents, payment_method, status)
    select '=zoe', id, 'Jan 2024', 77700, 'cash', 'succeeded' from property.units order by id limit 1
"""


@pytest.fixture
def url(database_url: str) -> str:
    return adopt(database_url)


def test_a_rejected_row_is_listed_until_it_is_mended(url: str, tmp_path: Path) -> None:
    run(url, "apply", "charges", "--yes")
    assert "No source row is rejected." in run(url, "rejects").out
    sql(url, BAD)
    sheet = tmp_path / "rejects.csv"
    shown = run(url, "rejects", "--csv", str(sheet))
    assert "charges: 1 source row that cannot be taken" in shown.out
    assert "777.00" in shown.out
    [row] = run(url, "rejects", "charges", "--json").json["rows"]
    assert (row["backfill"], row["money"], row["run"]) == ("charges", {"amounts": 77_700}, None)
    assert "Jan 2024" in row["reason"]
    with sheet.open(newline="") as file:
        [line] = csv.DictReader(file)
    assert (line["amount"], line["reason"], line["left_out_by"]) == ("777.00", row["reason"], "")

    run(url, "apply", "charges", "--yes", code=3)
    sql(
        url,
        """insert into property.payments
            (tenant_user_id, unit_id, billing_period, amount_cents, payment_method, status)
            select 'ann', id, '2019-07', 100, 'cash', 'succeeded' from property.units order by id limit 1""",
    )
    run(url, "apply", "charges", "--yes", "--allow-rejects", "1")
    [row] = run(url, "rejects", "--json").json["rows"]
    assert row["run"] == last_run(url)
    assert last_run(url)[:8] in run(url, "rejects").out
    sql(url, "delete from property.payments where tenant_user_id = '=zoe'")
    run(url, "rollback", last_run(url), "--yes")
    assert run(url, "rejects", "--json").json["rows"] == []


def test_before_the_first_apply_there_are_none(empty_database_url: str) -> None:
    url = adopt(empty_database_url)
    assert "No source row is rejected." in run(url, "rejects").out
    assert "there is no backfill charges" in run(url, "rejects", "charges", code=2).text


def test_a_wrong_name_is_refused(url: str) -> None:
    run(url, "apply", "charges", "--yes")
    assert "there is no backfill chagres" in run(url, "rejects", "chagres", code=2).text


def test_a_cell_is_no_formula(url: str, tmp_path: Path) -> None:
    run(url, "apply", "charges", "--yes")
    sql(url, BAD.replace("Jan 2024", "=1+1"))
    sheet = tmp_path / "rejects.csv"
    run(url, "rejects", "--csv", str(sheet))
    with sheet.open(newline="") as file:
        [line] = csv.DictReader(file)
    assert not any(value[:1] in "=+@" for value in line.values() if value)


def test_the_version_is_said(url: str) -> None:
    assert run(url, "--version").out.startswith("runner 0.")
