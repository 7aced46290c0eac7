"""The whole story of the invoice catalogue, told with the commands that a person types."""

from __future__ import annotations

import csv
import json
import os
import random
import subprocess
import sys
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.invoices.world import World
from tests.place import ROOT

SAMPLE = ROOT / "runner" / "invoices" / "sample"
CATALOGUE, ALIASES = SAMPLE / "catalogue.csv", SAMPLE / "aliases.csv"
FACILITIES = ("Hillside Care Home", "Lakeview Clinic", "Northgate Hospital", "Riverside Rehab", "St. Mary's Hospice")

Command = Callable[..., "subprocess.CompletedProcess[str]"]


def runner(url: str, directory: Path) -> Command:
    """`command(*words, code=0)` runs the command line in `directory` and expects that exit code."""

    def command(*words: str | Path, code: int = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "runner.cli", *map(str, words)],
            cwd=directory,
            env=os.environ | {"DATABASE_URL": url, "COLUMNS": "200", "RUNNER_CONFIG": str(directory / "runner.toml")},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done

    return command


@pytest.fixture
def office(tmp_path: Path) -> Path:
    """A folder with the sample's runner.toml and an original for every invoice."""
    own = (SAMPLE / "runner.toml").read_text()
    (tmp_path / "runner.toml").write_text('systems = ["invoices"]\n' + own)
    originals = tmp_path / "originals"
    originals.mkdir()
    for number in numbers():
        (originals / f"{number}.pdf").write_bytes(b"%PDF-1.4\n% " + number.encode())
    return tmp_path


def numbers() -> list[str]:
    with CATALOGUE.open(encoding="utf-8", newline="") as file:
        return sorted({row["Invoice #"] for row in csv.DictReader(file)} - {"INV-0418"})


def application(url: str) -> World:
    """The application before the load: five facilities, one draft, and 993 as its next number."""
    conn = psycopg.connect(url, autocommit=True)
    world = World.create(conn, next_number=992)
    for name in FACILITIES:
        world.facility(name)
    draft = world.forward(world.value("select id from billing.facilities where name = %s", FACILITIES[0]))
    assert (draft["invoice_number"], world.next_number) == ("INV-0992", 993)
    return world


def books(world: World) -> list[dict[str, Any]]:
    """All invoices and lines but for when they were written."""
    return [
        *world.rows("select to_jsonb(i) - 'created_at' as row from billing.invoices as i order by invoice_number"),
        *world.rows("select to_jsonb(l) as row from billing.invoice_lines as l order by id"),
    ]


def test_the_catalogue_from_file_to_receivables_and_back(
    database_url: str, office: Path, dump: Callable[..., str]
) -> None:
    world = application(database_url)
    command = runner(database_url, office)
    options: list[str | Path] = ["--aliases", ALIASES, "--documents", "originals", "--first-wins"]

    # Clients under old names, a number given twice, a row of somebody else: nothing is taken by itself.
    before = dump(database_url, "--inserts")
    said = command("load", "invoices", CATALOGUE, code=3).stderr
    assert "client HILLSIDE is no facility" in said
    said = command("load", "invoices", CATALOGUE, "--aliases", ALIASES, code=3).stderr
    lines = [number for number, row in enumerate(CATALOGUE.read_text().splitlines(), 1) if row.startswith("INV-0985,")]
    assert f"line {lines[0]}: INV-0985 is on lines {lines[0]} and {lines[1]}" in said
    assert f"line {lines[1]}: INV-0985 is on lines {lines[0]} and {lines[1]}" in said
    assert "marked as not the company's: 'not ours - billed by the agency'" in said
    assert "3 of 79 source rows cannot be taken, 0 allowed" in said
    done = command("load", "invoices", CATALOGUE, *options, "--allow-rejects", "2", "--dry-run")
    assert "77 rows taken, 2 rejected" in done.stdout
    assert dump(database_url, "--inserts") == before
    assert not (office / "documents").exists()

    done = command("load", "invoices", CATALOGUE, *options, "--allow-rejects", "2")
    assert "Originals: 77 stored, 0 found in the store, 0 failed" in done.stdout
    staged = world.row("select count(*) as n, sum(total_cents) as cents from staging.invoices")
    assert staged == {"n": 77, "cents": 7_989_406}

    # A draft of the application holds INV-0992.
    said = command("apply", "invoices", "--dry-run", code=3).stderr
    assert "INV-0992 is taken by a draft of the application" in said
    draft = world.invoice("INV-0992")["id"]
    world.conn.execute("select billing.delete_invoice(%s, 'holds a number of the past', 'Grace, by mail')", [draft])

    before = dump(database_url, "--inserts")
    done = command("apply", "invoices", "--dry-run")
    assert "due 77 rows, 79,894.06" in done.stdout
    assert dump(database_url, "--inserts") == before
    assert world.next_number == 993

    command("apply", "invoices", "--yes")
    made = world.rows("select * from billing.receivables")
    assert (len(made), sum(row["open_cents"] for row in made)) == (77, 7_989_406)
    assert {row["label"] for row in made} == {"Historical"}
    assert len({row["facility_id"] for row in made}) == 5
    assert world.value("select count(*) from billing.invoices where pdf_storage_path is null") == 0
    assert min(numbers()) == "INV-002"
    assert world.next_number == 1006
    first = books(world)
    run = str(world.value("select run_id from backfill.backfill_log where backfill = 'invoices'"))

    # Again: nothing.
    before = dump(database_url, "--inserts")
    assert "Nothing is due" in command("apply", "invoices", "--yes").stdout
    assert "catalogue.csv was loaded before" in command("load", "invoices", CATALOGUE, *options).stdout
    assert dump(database_url, "--inserts") == before

    # A check names INV-0985 and overpays it: the rest goes to the oldest of the facility.
    paid = world.invoice("INV-0985")
    check = world.check(paid["facility_id"], paid["total_cents"] + 10_000, "inv 985")
    allocated = world.allocate(check)
    assert allocated.pop("INV-0985") == paid["total_cents"]
    assert allocated == {oldest(world, paid["facility_id"]): 10_000}
    assert world.invoice("INV-0985")["status"] == "paid"

    said = command("rollback", run, "--yes", code=6).stderr
    assert "billing.invoices INV-0985: changed since (status, amount_paid_cents)" in said
    assert world.value("select count(*) from billing.invoices") == 77
    world.unapply(check)
    assert books(world) == first
    command("rollback", run, "--yes")
    assert world.value("select count(*) from billing.invoices") == 0
    assert world.next_number == 1006  # never down
    command("apply", "invoices", "--yes")
    assert books(world) == first
    world.conn.close()


def oldest(world: World, facility: uuid.UUID) -> str:
    number: str = world.value(
        "select invoice_number from billing.invoices where facility_id = %s and invoice_number <> 'INV-0985'"
        " order by due_date limit 1", facility,
    )  # fmt: skip
    return number


def test_shuffled_rows_make_the_same_invoices(database_url: str, office: Path, tmp_path: Path) -> None:
    world = application(database_url)
    world.conn.execute("delete from billing.invoice_lines")
    world.conn.execute("delete from billing.invoices")
    command = runner(database_url, office)

    def load(path: Path) -> tuple[list[dict[str, Any]], int]:
        command("load", "invoices", path, "--aliases", ALIASES, "--first-wins", "--allow-rejects", "2")
        command("apply", "invoices", "--yes")
        made = books(world), world.next_number
        standing = "select run_id from backfill.backfill_log where mode <> 'reversal' and status <> 'reversed'"
        for run in world.rows(standing + " order by started_at desc"):
            world.conn.execute("select * from backfill.reverse_run(%s)", [run["run_id"]])
        return made

    in_order = load(CATALOGUE)
    header, *rows = CATALOGUE.read_text(encoding="utf-8").splitlines()
    twice = [row for row in rows if row.startswith("INV-0985,")]
    rest = [row for row in rows if row not in twice]
    random.Random(5).shuffle(rest)
    shuffled = tmp_path / "shuffled.csv"
    shuffled.write_text("\n".join([header, *rest[:30], twice[0], *rest[30:], twice[1]]) + "\n", encoding="utf-8")
    assert load(shuffled) == in_order
    assert in_order[1] == 1006
    world.conn.close()


def test_the_json_says_the_same(database_url: str, office: Path) -> None:
    application(database_url).conn.close()
    options = ("--aliases", ALIASES, "--first-wins", "--allow-rejects", "2", "--dry-run", "--json")
    done = runner(database_url, office)("load", "invoices", CATALOGUE, *options)
    said = json.loads(done.stdout)
    assert (said["load"]["rows"], said["load"]["rejects"], said["documents"]) == (77, 2, None)
    assert any("marked as not the company's" in reject["reason"] for reject in said["load"]["sample"])
