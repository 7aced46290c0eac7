"""Loading a catalogue: every row in one bucket, twice is a no-op, and what was loaded differently is refused."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest

from runner.errors import UsageError
from runner.invoices.load import load_invoices
from runner.settings import Settings
from tests.engine.words import refusal
from tests.invoices.world import World
from tests.story import run

HEADER = "Number,Client,From,To,Date,Due,Total,Notes\n"
LINES = "Number,Description,Contractor,Week,Hours,Rate,Amount\n"


@pytest.fixture
def office(database_url: str) -> Iterator[World]:
    """A company with the facilities Hillside and Lakeview, committed."""
    with psycopg.connect(database_url, autocommit=True) as conn:
        world = World.create(conn)
        world.facility("Hillside")
        world.facility("Lakeview")
        world.contractor("R. Baker")
        yield world


def row(number: str, client: str = "Hillside", *, week: int = 1, total: str = "100.00", due: str = "2023-03-31") -> str:
    return f"{number},{client},2023-01-{week:02},2023-01-{week + 6:02},2023-01-{week + 7:02},{due},{total},\n"


def write(folder: Path, name: str, *rows: str, header: str = HEADER) -> Path:
    path = folder / name
    path.write_text(header + "".join(rows), encoding="utf-8")
    return path


def staged(world: World) -> dict[str, int]:
    rows = world.rows("select invoice_number, total_cents from staging.invoices order by 1")
    return {row["invoice_number"]: row["total_cents"] for row in rows}


def reasons(world: World) -> list[str]:
    return [row["reason"] for row in world.rows("select reason from backfill.reject order by line")]


def test_every_row_ends_in_one_bucket_and_the_sums_are_the_files(
    office: World, settings: Settings, tmp_path: Path
) -> None:
    first = write(tmp_path, "a.csv", row("INV-1"), row("INV-2", week=8))
    load_invoices(settings, first)
    second = write(
        tmp_path, "b.csv", row("INV-1"), row("INV-3", week=15, total="7.00"), row("INV-4", "Nobody", total="3.00"),
        row("INV-5", total="oops"), row("INV-6", due="2022-01-01", total="2.50"), row("NONE", total="1.00"),
        row("INV-7", total="-4.00"),
    )  # fmt: skip
    result = load_invoices(settings, second, allow_rejects=5).load
    assert (result.rows, result.rejects) == (3, 4)
    log = office.row("select metrics from backfill.backfill_log where run_id = %s", result.run_id)
    assert log["metrics"]["buckets"]["invoices"] == {
        "matched": {"rows": 1, "money": {"USD": 10_000}},
        "created": {"rows": 2, "money": {"USD": 700 - 400}},
        "rejected": {"rows": 4, "money": {"USD": 300 + 250 + 100}},
    }
    assert staged(office) == {"INV-1": 10_000, "INV-2": 10_000, "INV-3": 700, "INV-7": -400}
    assert [reason.split(":")[0] for reason in reasons(office)] == [
        "client Nobody is no facility, or more than one",
        "total",
        "due on 2022-01-01, before it was issued on 2023-01-08",
        "number NONE has no numeric part",
    ]


def test_the_same_file_again_is_a_no_op(office: World, settings: Settings, tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", row("INV-1"))
    load_invoices(settings, path)
    runs = office.value("select count(*) from backfill.backfill_log")
    again = load_invoices(settings, path).load
    assert (again.files, len(again.skipped), again.run_id) == ((), 1, None)
    assert office.value("select count(*) from backfill.backfill_log") == runs


def test_what_was_left_out_then_comes_in_a_file_of_its_own(office: World, settings: Settings, tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", row("INV-1"), row("INV-2", "Seaside", week=8))
    run(settings.conninfo, "load", "invoices", str(path), "--allow-rejects", "1")
    office.facility("Seaside")
    said = run(settings.conninfo, "load", "invoices", str(path)).text
    assert "a.csv was loaded before 1 rejects were left out then: load what you have mended from a file" in said
    run(settings.conninfo, "load", "invoices", str(write(tmp_path, "b.csv", row("INV-2", "Seaside", week=8))))
    assert len(staged(office)) == 2


def test_a_number_loaded_before_with_another_payload_names_the_fields(
    office: World, settings: Settings, tmp_path: Path
) -> None:
    load_invoices(settings, write(tmp_path, "a.csv", row("INV-1")))
    other = write(tmp_path, "b.csv", row("INV-1", "Lakeview", total="90.00"))
    with refusal("BF004", match=r"facility was Hillside, now Lakeview, total was 100\.00, now 90\.00"):
        load_invoices(settings, other)
    assert staged(office) == {"INV-1": 10_000}


@pytest.mark.parametrize("first_wins", [False, True])
def test_a_number_given_twice(office: World, settings: Settings, tmp_path: Path, first_wins: bool) -> None:
    path = write(tmp_path, "a.csv", row("INV-1"), row("INV-2", week=8), row("INV-1", total="5.00"))
    load_invoices(settings, path, first_wins=first_wins, allow_rejects=2)
    assert staged(office) == ({"INV-1": 10_000, "INV-2": 10_000} if first_wins else {"INV-2": 10_000})
    said = "INV-1 is a duplicate of line 2, which was taken" if first_wins else "INV-1 is on lines 2 and 4"
    assert set(reasons(office)) == {said}


@pytest.mark.parametrize("first_wins", [False, True])
@pytest.mark.parametrize("order", [1, -1])
def test_a_row_that_cannot_be_read_gives_its_number_all_the_same(
    office: World, settings: Settings, tmp_path: Path, first_wins: bool, order: int
) -> None:
    """Which of the two is right? Nobody takes the readable one in the stead of the other."""
    rows = [row("INV-1", due=""), row("INV-1", total="5.00")][::order]
    path = write(tmp_path, "a.csv", *rows, row("INV-2", week=8))
    load_invoices(settings, path, first_wins=first_wins, allow_rejects=2)
    readable_goes_first = first_wins and order == -1
    assert staged(office) == ({"INV-1": 500, "INV-2": 10_000} if readable_goes_first else {"INV-2": 10_000})
    said = "INV-1 is a duplicate of line 2, which was taken" if first_wins else "INV-1 is on lines 2 and 3"
    expected = {"due_date is missing"} | (set() if readable_goes_first else {said})
    assert set(reasons(office)) == expected


def test_a_row_of_somebody_else_takes_no_number_away(office: World, settings: Settings, tmp_path: Path) -> None:
    theirs = row("INV-1", "The agency").replace(",\n", ",not ours\n")
    path = write(tmp_path, "a.csv", theirs, row("INV-1", total="5.00"))
    load_invoices(settings, path, allow_rejects=1)
    assert staged(office) == {"INV-1": 500}
    assert reasons(office) == ["it is marked as not the company's: 'not ours'"]
    assert office.value("select payload ->> 'number' from backfill.reject") == "INV-1"


def test_a_file_without_a_row_is_refused(office: World, settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"a\.csv has a header and no row: there is nothing to load"):
        load_invoices(settings, write(tmp_path, "a.csv", "\n"))
    assert office.value("select count(*) from staging.file") == 0


def test_a_byte_that_postgresql_cannot_hold_is_a_reject_with_its_line(
    office: World, settings: Settings, tmp_path: Path
) -> None:
    path = write(tmp_path, "a.csv", row("INV-1"), row("INV-\0002", week=8))
    load_invoices(settings, path, allow_rejects=1)
    assert staged(office) == {"INV-1": 10_000}
    assert office.rows("select line, reason from backfill.reject") == [
        {"line": 3, "reason": "it holds a NUL byte, which no text in PostgreSQL can"}
    ]


@pytest.mark.parametrize(
    ("alias", "said"),
    [
        (",Hillside\n", "its client is missing"),
        ("the hill,\n", "the facility of the hill is missing"),
        ("the hill,Nowhere\n", "there is no facility Nowhere: give its name in billing.facilities, or its id"),
        ("the hill\n", "1 cells where the header has 2"),
    ],
)
def test_an_alias_that_means_nothing_is_a_reject(
    office: World, settings: Settings, tmp_path: Path, alias: str, said: str
) -> None:
    aliases = write(tmp_path, "aliases.csv", alias, "the lake,Lakeview\n", header="Client,Facility\n")
    load_invoices(settings, write(tmp_path, "a.csv", row("INV-1", "the lake")), aliases=aliases, allow_rejects=1)
    assert office.rows("select source, line, reason from backfill.reject") == [
        {"source": "aliases.csv", "line": 2, "reason": said}
    ]
    assert office.rows("select alias from billing.facility_aliases") == [{"alias": "the lake"}]


def test_aliases_say_who_is_meant_and_are_kept(office: World, settings: Settings, tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", row("INV-1", "the hill"), row("INV-2", "LAKEVIEW", week=8))
    aliases = write(tmp_path, "aliases.csv", "The  Hill,Hillside\n", header="Client,Facility\n")
    load_invoices(settings, path, aliases=aliases)
    assert len(staged(office)) == 2
    load_invoices(settings, write(tmp_path, "b.csv", row("INV-3", "The Hill", week=15)))
    assert len(staged(office)) == 3
    wrong = write(tmp_path, "wrong.csv", "X,Nowhere\n", header="Client,Facility\n")
    with refusal("BF004", match=r"wrong\.csv line 2: there is no facility Nowhere"):
        load_invoices(settings, write(tmp_path, "c.csv", row("INV-4", week=22)), aliases=wrong)


def test_rows_left_out_are_taken_when_their_alias_comes(office: World, settings: Settings, tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", row("INV-1"), row("INV-2", "the lake"))
    first = load_invoices(settings, path, allow_rejects=1).load.run_id
    aliases = write(tmp_path, "aliases.csv", "the lake,Lakeview\n", header="Client,Facility\n")
    second = load_invoices(settings, path, aliases=aliases).load.run_id
    assert len(staged(office)) == 2
    # The file is the later load's, which is undone before the earlier one.
    with pytest.raises(psycopg.Error, match=r"changed since .run_id, loaded_at") as caught, office.conn.transaction():
        office.conn.execute("select backfill.reverse_run(%s)", [first])
    assert caught.value.sqlstate == "BF005"
    for undone, left in ((second, 1), (first, 0)):
        office.conn.execute("select backfill.reverse_run(%s)", [undone])
        assert len(staged(office)) == left
        assert office.rows("select * from backfill.broken_seals()") == []


def test_one_summary_line_or_the_lines_of_a_second_file(office: World, settings: Settings, tmp_path: Path) -> None:
    load_invoices(settings, write(tmp_path, "a.csv", row("INV-1")))
    lines = write(
        tmp_path, "lines.csv", "INV-2,Nights,R. Baker,2023-01-09,8,10.00,80.00\n", "INV-2,Credit,,,,,-5.00\n",
        "INV-9,Nothing,,,,,1.00\n", "INV-2,Travel,,,,,25.00\n", header=LINES,
    )  # fmt: skip
    result = load_invoices(settings, write(tmp_path, "b.csv", row("INV-2", week=8)), lines=lines, allow_rejects=1).load
    assert reasons(office) == ["there is no invoice INV-9 in the file"]
    office.conn.execute("select from backfill.run('invoices')")
    made = office.rows(
        "select i.invoice_number, l.line_no, l.description, l.amount_cents, l.contractor_id is not null as who"
        " from billing.invoice_lines as l join billing.invoices as i on i.id = l.invoice_id order by 1, 2"
    )
    assert [tuple(line.values()) for line in made] == [
        ("INV-1", 1, "Total of invoice INV-1 as issued", 10_000, False),
        ("INV-2", 1, "Nights", 8_000, True),
        ("INV-2", 2, "Credit", -500, False),
        ("INV-2", 3, "Travel", 2_500, False),
    ]
    buckets = office.row("select metrics from backfill.backfill_log where run_id = %s", result.run_id)["metrics"][
        "buckets"
    ]
    assert buckets["lines"] == {
        "created": {"rows": 3, "money": {"USD": 10_000}},
        "rejected": {"rows": 1, "money": {"amounts": 100}},
    }


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("INV-1,Nights,,,,,99.99\n", "its total is 100.00, its lines make 99.99"),
        ("INV-2,Nights,,,,,100.00\n", "its lines make nothing"),
        ("INV-1,Nights,A. Stranger,,,,100.00\n", "contractor A. Stranger (line 2 of the lines) is unknown"),
        ("INV-1,Nights,,,many,,100.00\n", "hours: 'many'"),
    ],
)
def test_lines_that_do_not_fit(office: World, settings: Settings, tmp_path: Path, line: str, said: str) -> None:
    with refusal("BF004") as caught:
        load_invoices(
            settings, write(tmp_path, "a.csv", row("INV-1")), lines=write(tmp_path, "lines.csv", line, header=LINES)
        )
    assert said in str(caught.value)
    assert staged(office) == {}


def test_a_dry_run_keeps_nothing(office: World, settings: Settings, tmp_path: Path) -> None:
    result = load_invoices(settings, write(tmp_path, "a.csv", row("INV-1")), dry_run=True).load
    assert (result.rows, result.run_id) == (1, None)
    assert (staged(office), office.value("select count(*) from staging.file")) == ({}, 0)


def test_undoing_a_load_takes_its_rows_out_unless_they_were_written(
    office: World, settings: Settings, tmp_path: Path
) -> None:
    run = load_invoices(settings, write(tmp_path, "a.csv", row("INV-1"))).load.run_id
    with office.conn.transaction(force_rollback=True):
        office.conn.execute("select * from backfill.reverse_run(%s)", [run])
        assert staged(office) == {}
    office.conn.execute("select from backfill.run('invoices')")
    with pytest.raises(psycopg.Error, match="the invoice made of it stands"):
        office.conn.execute("select * from backfill.reverse_run(%s)", [run])


def test_where_there_are_several_companies_one_is_named(office: World, settings: Settings, tmp_path: Path) -> None:
    other = World.create(office.conn)
    other.facility("Hillside")
    path = write(tmp_path, "a.csv", row("INV-1"))
    with pytest.raises(UsageError, match="there are 2 companies"):
        load_invoices(settings, path)
    with pytest.raises(
        UsageError, match=r"there is no company Nobody in billing\.companies; there are, for example, 'Exa"
    ):
        load_invoices(settings, path, company="Nobody")
    load_invoices(replace(settings, tables={"invoices": {"company": str(other.company)}}), path)
    assert office.value("select company_id from staging.invoices") == other.company


def test_the_issue_date_is_a_day_in_the_files_time_zone(office: World, settings: Settings, tmp_path: Path) -> None:
    local: dict[str, Any] = {"invoices": {"time_zone": "America/New_York"}}
    load_invoices(replace(settings, tables=local), write(tmp_path, "a.csv", row("INV-1")))
    assert office.value("select sent_at at time zone 'UTC' from staging.invoices").isoformat() == "2023-01-08T05:00:00"


KEPT = "Number,Client,Period_Start,Period_End,Issue_Date,Due_Date,Total,Currency,Status,Amount Paid\n"


def test_what_a_file_says_of_currency_credit_and_payment_is_kept(
    office: World, settings: Settings, tmp_path: Path
) -> None:
    def line(number: str, total: str, rest: str = ",,", week: int = 1) -> str:
        start = f"2023-01-{week:02},2023-01-{week + 6:02},2023-01-{week + 7:02},2023-03-31"
        return f'{number},Hillside,{start},"{total}",{rest}\n'

    path = write(
        tmp_path, "kept.csv", line("INV-001", "\u20ac1,200.00"), line("INV-002", "CAD 900.00", week=3),
        line("INV-003", "$1,000.00", ",Paid,", week=5), line("INV-004", "JPY 1,200", week=7),
        line("INV-005", "50.00", "usd,Partial,20.00", week=9), line("CN-006", "(200.00)"), header=KEPT,
    )  # fmt: skip
    load_invoices(settings, path, paid_as="paid")
    office.conn.execute("select from backfill.run('invoices')")
    kept = office.rows(
        "select invoice_number, currency, total_cents, status, amount_paid_cents from billing.invoices order by 1"
    )
    assert [tuple(row.values()) for row in kept] == [
        ("CN-006", "USD", -20_000, "sent", 0),
        ("INV-001", "EUR", 120_000, "sent", 0),
        ("INV-002", "CAD", 90_000, "sent", 0),
        ("INV-003", "USD", 100_000, "paid", 100_000),
        ("INV-004", "JPY", 1_200, "sent", 0),
        ("INV-005", "USD", 5_000, "partial", 2_000),
    ]
    assert office.faults() == []
    openings = office.rows("select amount_cents from billing.applications where source = 'opening' order by 1")
    assert [row["amount_cents"] for row in openings] == [2_000, 100_000]
    money = office.value("select metrics -> 'due' -> 'money' from backfill.backfill_log where backfill = 'invoices'")
    assert money == {"CAD": 90_000, "EUR": 120_000, "JPY": 1_200, "USD": 100_000 + 5_000 - 20_000}
    again = load_invoices(settings, path, paid_as="paid").load
    assert (again.rows, again.rejects) == (0, 0)


def test_numbers_that_differ_in_case_only_are_one(office: World, settings: Settings, tmp_path: Path) -> None:
    both = write(tmp_path, "both.csv", row("INV-0986"), row("inv-0986", week=8))
    with refusal("BF004", match="inv-0986 is on lines 2 and 3"):
        load_invoices(settings, both)
    load_invoices(settings, write(tmp_path, "one.csv", row("INV-0986")))
    other = write(tmp_path, "other.csv", row("inv-0986"))
    with refusal("BF004", match="number was INV-0986, now inv-0986"):
        load_invoices(settings, other)
    office.conn.execute("select from backfill.run('invoices')")
    office.conn.execute("update billing.invoices set invoice_number = 'Inv-0986'")
    facility = office.id("select facility_id from billing.invoices")
    with pytest.raises(psycopg.Error, match="was INV-0986, now inv-0986"):
        office.backfill(facility, "inv-0986", week=9)
