"""A real flat's files (names changed), where they are beside the project: what is taken, billed, explained, proved."""

from __future__ import annotations

import json
import re
from decimal import Decimal
from pathlib import Path

import psycopg
import pytest

from runner.rent.load import load_electricity, load_rent_history
from runner.settings import Settings
from tests.engine.words import Connection, do, rows
from tests.place import ROOT
from tests.rent.flat import ask, backfill, everything, runner

# Beside the project itself, or one further up from a worktree of it.
FILES = next(
    (found for parent in list(ROOT.parents)[:2] if (found := parent / "shared" / "data" / "rent_history").is_dir()),
    None,
)
pytestmark = pytest.mark.skipif(FILES is None, reason="the real files are not beside the project")

HELD_BACK = "2023_11_v1.json"
# Kronor that the flat billed more than the rule says, by person: its rounding was the ceiling of each share at times.
DIFFERENCES = {
    "2025_01_v1.json": {"Nils": 1, "Oskar": 1},
    "2025_02_v1.json": {"Nils": 1, "Oskar": 1},
    "2025_02_v2.json": {},
    "2025_02_v4.json": {"Nils": 1, "Oskar": 1},
    "2025_02_v9.json": {},
    "2025_02_v10.json": {"Nils": 1, "Oskar": 1},
    "2025_03_v1.json": {"Oskar": 1},
    "2025_04_v1.json": {"Nils": 1, "Oskar": 1},
    "2025_05_v1.json": {"Oskar": 1},
}


@pytest.fixture
def files() -> Path:
    assert FILES is not None
    return FILES


@pytest.fixture
def flat(settings: Settings, conn: Connection) -> Settings:
    do(
        conn,
        """insert into rent.tenants (name, start_date, departure_date) values
            ('Nils', '2023-02-01', null), ('Oskar', '2023-02-01', null), ('Karl-Johan', '2023-02-01', '2025-02-28'),
            ('Signe', '2024-06-01', '2024-11-15'), ('Tove', '2024-06-01', '2024-12-31'), ('Ebba', '2024-12-01', null),
            ('Adam', '2025-03-16', null)""",
        """insert into rent.rent_config (key, period, value) values
            ('vattenavgift', '2023-01', 37500), ('va', '2023-01', 30000), ('larm', '2023-01', 15000)""",
    )
    conn.commit()
    return settings


@pytest.mark.parametrize("name", DIFFERENCES)
def test_record_calculation_reproduces_each_file_within_a_krona(
    flat: Settings, conn: Connection, files: Path, name: str
) -> None:
    document = json.loads((files / name).read_text(encoding="utf-8"), parse_float=str)
    # As the file writes them: no number passes through a float.
    constants, roommates = (
        re.sub(r'"(\d+\.\d+)"', r"\1", json.dumps(document[key])) for key in ("constants", "roommates")
    )
    found = rows(
        conn,
        "select tenant, amount / 100 from rent.record_calculation(%s, %s, %s, %s)",
        [name[:7].replace("_", "-"), roommates, constants, document["metadata"]["title"]],
    )
    billed = {tenant: int(Decimal(kronor)) for tenant, kronor in document["final_results"].items()}
    difference = {tenant: billed[tenant] - kronor for tenant, kronor in found}
    assert {tenant: kronor for tenant, kronor in difference.items() if kronor} == DIFFERENCES[name]
    ((cost,),) = rows(conn, "select total from rent.calculation")
    assert sum(kronor for _, kronor in found) == -(-cost // 100)
    assert sum(billed.values()) * 100 >= cost


def test_every_file_but_the_exempt_one_is_stated(files: Path) -> None:
    assert {path.name for path in files.glob("*.json")} == {*DIFFERENCES, HELD_BACK}


def test_the_whole_way(flat: Settings, files: Path) -> None:
    held = runner(flat, "load", "rent-history", files)
    assert held.returncode == 3
    assert f"{HELD_BACK} " in held.stderr
    assert "1 of 10 source rows cannot be taken" in held.stderr
    assert "13 months after 2023-11" in held.stderr
    assert "Signe did not live there in 2023-11" in held.stderr

    loaded = load_rent_history(flat, files, allow_rejects=1)
    assert (loaded.result.rows, loaded.result.rejects) == (9, 1)
    assert load_electricity(flat, files / "electricity_bills_history.txt").rows == 62
    applied = runner(flat, "apply", "--yes")
    assert applied.returncode == 0, applied.stdout + applied.stderr

    assert ask(flat, "select provider, count(*) from rent.electricity_bills group by 1 order by 1") == [
        ("Fortum", 31), ("Vattenfall", 31),
    ]  # fmt: skip
    assert ask(flat, "select sum(amount) from rent.electricity_bills") == [(92_941_00,)]
    assert ask(
        flat, "select period, value from rent.rent_config where key = 'el' and period >= '2025-07' order by 1"
    ) == [("2025-07", 1972_00), ("2025-08", 1738_00), ("2025-09", 2424_00)]

    assert ask(flat, "select count(distinct calculation_version), max(calculation_version) from rent.rent_ledger"
                     " where period = '2025-02'") == [(1, 10)]  # fmt: skip
    assert ask(flat, "select days_stayed, amount_due, calculation_title from rent.explain('Adam', '2025-02')") == [
        (Decimal("15.5"), 4526_00, "March 2025 - With Adam (Exact Half Rent)")
    ]
    ((why,),) = ask(flat, "select explanation from rent.explain('Adam', '2025-02')")
    assert "Adam was billed 4,526 kr for 2025-02, lived in 2025-03; 15.5 of 31 days" in why

    before = everything(flat)
    again = runner(flat, "apply", "--yes")
    assert (again.returncode, "Nothing is due." in again.stdout) == (0, True)
    load_rent_history(flat, files, allow_rejects=1)
    load_electricity(flat, files / "electricity_bills_history.txt")
    assert everything(flat) == before


def test_what_is_held_back_keeps_the_files_until_it_is_accepted(flat: Settings, files: Path) -> None:
    load_rent_history(flat, files, allow_rejects=1)
    load_electricity(flat, files / "electricity_bills_history.txt")
    for name in ("rent_history", "electricity_bills"):
        backfill(flat, name)
    assert runner(flat, "verify", "electricity", files / "electricity_bills_history.txt").returncode == 0
    missing = runner(flat, "verify", "rent-history", files)
    assert missing.returncode == 3
    assert HELD_BACK in missing.stdout
    load_rent_history(flat, files, accept=[HELD_BACK])
    applied = runner(flat, "apply", "rent_history", "--yes")
    assert applied.returncode == 0, applied.stdout + applied.stderr
    proved = runner(flat, "verify", "rent-history", files)
    assert proved.returncode == 0, proved.stdout


def test_the_fields_of_a_ledger_that_was_billed_by_hand_are_filled(flat: Settings, files: Path) -> None:
    with psycopg.connect(flat.conninfo) as conn:
        conn.execute("insert into rent.rent_ledger (tenant, period, amount_due) values ('Adam', '2025-02', 452600)")
    load_rent_history(flat, files, allow_rejects=1)
    backfill(flat, "rent_history")
    assert ask(flat, "select days_stayed, base_monthly_rent, calculation_version from rent.rent_ledger"
                     " where tenant = 'Adam' and period = '2025-02'") == [(Decimal("15.5"), 613250, 10)]  # fmt: skip
