"""One invoice of the past: its rules, its replay, its watermark, its lines."""

from __future__ import annotations

import datetime as dt
import uuid

import psycopg
import pytest
from psycopg.types.json import Jsonb

from tests.invoices.world import Line, World, line


def refusal(world: World, *args: object, **kwargs: object) -> psycopg.Error:
    """The error of world.backfill, with the transaction as it was before."""
    with pytest.raises(psycopg.Error) as caught, world.conn.transaction():
        world.backfill(*args, **kwargs)  # type: ignore[arg-type]
    return caught.value


def test_an_invoice_of_the_past_is_an_outstanding_receivable(world: World) -> None:
    made = world.backfill(world.facility(), "INV-0985", total=12_345, due="2023-02-10", sent="2023-01-09 00:00-05")
    assert made["invoice_number"] == "INV-0985"
    assert (made["status"], made["origin"], made["amount_paid_cents"]) == ("sent", "backfill", 0)
    assert made["sent_at"] == dt.datetime(2023, 1, 9, 5, tzinfo=dt.UTC)
    assert str(made["due_date"]) == "2023-02-10"
    assert made["pdf_storage_path"] is None
    shown = world.row("select * from billing.receivables where invoice_id = %s", made["id"])
    assert (shown["open_cents"], shown["label"], shown["days_overdue"] > 0) == (12_345, "Historical", True)


def test_the_run_is_attributed_to_the_actor_and_holds_invoice_and_lines(world: World) -> None:
    world.backfill(world.facility(), "INV-0985", lines=[line(6_000), line(4_000)], actor="ada")
    log = world.row("select * from backfill.backfill_log")
    assert log["actor"].startswith("ada (claimed) via ")
    assert (log["status"], log["subject"]["invoice"]) == ("succeeded", "INV-0985")
    assert log["metrics"]["watermarks"] == {str(world.company): {"before": 1, "after": 986}}
    changed = world.rows(
        "select table_name, operation, count(*) as n from backfill.change_log group by 1, 2 order by 1"
    )
    assert [(row["table_name"], row["operation"], row["n"]) for row in changed] == [
        ("billing.invoice_lines", "INSERT", 2),
        ("billing.invoices", "INSERT", 1),
        ("staging.invoice_lines", "INSERT", 2),
        ("staging.invoices", "INSERT", 1),
    ]


def test_the_same_payload_again_changes_nothing_and_leaves_no_run(world: World) -> None:
    facility = world.facility()
    first = world.backfill(facility, "INV-0985", lines=[line(10_000, hours=8)])
    runs = world.value("select count(*) from backfill.backfill_log")
    changes = world.value("select count(*) from backfill.change_log")
    assert world.backfill(facility, "INV-0985", lines=[line(10_000, hours=8)], actor="bob") == first
    assert world.value("select count(*) from backfill.backfill_log") == runs
    assert world.value("select count(*) from backfill.change_log") == changes


def test_another_payload_is_refused_and_names_the_fields(world: World) -> None:
    facility = world.facility()
    world.backfill(facility, "INV-0985", total=10_000, due="2023-02-10")
    other = world.facility("Lakeview")
    error = refusal(world, other, "INV-0985", total=11_000, due="2023-02-11", week=2)
    assert error.sqlstate == "BF301"
    said = str(error)
    for difference in (
        "facility was Hillside, now Lakeview",
        "period_start was 2023-01-02, now 2023-01-09",
        "due_date was 2023-02-10, now 2023-02-11",
        "total was 100.00, now 110.00",
        "lines was",
    ):
        assert difference in said
    assert world.invoice("INV-0985")["total_cents"] == 10_000


def test_a_replay_compares_with_what_was_given_not_with_a_later_correction(world: World) -> None:
    facility = world.facility()
    made = world.backfill(facility, "INV-0985", due="2023-02-10")
    world.conn.execute(
        "select billing.correct_invoice(%s, '{\"due_date\": \"2023-03-01\"}', 'typing error')", [made["id"]]
    )
    assert str(world.backfill(facility, "INV-0985", due="2023-02-10")["due_date"]) == "2023-03-01"


@pytest.mark.parametrize(
    ("kwargs", "said"),
    [
        ({"total": 10_001, "lines": [line(10_000)]}, "its total is 100.01, its lines make 100.00"),
        ({"lines": []}, "without lines"),
        ({"actor": ""}, "without actor"),
        ({"total": None, "lines": [line(1)]}, "without total_cents"),
    ],
)
def test_what_is_incomplete_or_does_not_add_up_is_refused(world: World, kwargs: dict[str, object], said: str) -> None:
    error = refusal(world, world.facility(), "INV-0985", **kwargs)
    assert error.sqlstate == "BF302"
    assert said in str(error)
    assert world.value("select count(*) from staging.invoices") == 0


@pytest.mark.parametrize("missing", ["sent_at", "due_date"])
def test_issue_date_and_due_date_are_both_required(world: World, missing: str) -> None:
    values = {"sent_at": "'2023-01-08 00:00+00'", "due_date": "'2023-02-07'"} | {missing: "null"}
    with pytest.raises(psycopg.Error, match=f"INV-1 cannot be backfilled without {missing}") as caught:
        world.conn.execute(
            "select backfill.backfill_invoice(%s, %s, 'INV-1', '2023-01-02', '2023-01-08', "
            f"{values['sent_at']}, {values['due_date']}, 100, "
            '\'[{"description": "x", "amount_cents": 100}]\')',
            [world.company, world.facility()],
        )
    assert caught.value.sqlstate == "BF302"


@pytest.mark.parametrize(
    ("number", "kwargs", "rule"),
    [
        ("INV", {}, "number_has_a_numeric_part"),
        (" INV-1", {}, "number_has_a_numeric_part"),
        ("INV-1234567890123456", {}, "number_has_a_numeric_part"),
        ("INV-1", {"total": 0}, "total_is_not_nothing"),
        ("INV-1", {"due": "2022-12-01"}, "not_due_before_it_was_issued"),
    ],
)
def test_rules_about_a_row_are_constraints(world: World, number: str, kwargs: dict[str, object], rule: str) -> None:
    error = refusal(world, world.facility(), number, **kwargs)
    assert (error.sqlstate, error.diag.constraint_name) == ("BF302", rule)
    assert f"invoice '{number}' cannot be backfilled, it breaks the rule: {rule.replace('_', ' ')}" in str(error)
    assert f"total {kwargs.get('total', 10_000)} cents" in str(error.diag.message_detail)


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ({"amount_cents": 10_000}, "its lines must be an array"),
        ([5], "line 1 is 5, no object"),
        ([line(9_000), {"amount_cents": 1_000}], "line 2 has no description"),
        ([{"description": "x"}], "line 1 has no amount_cents"),
    ],
)
def test_lines_that_are_none_are_named(world: World, lines: list[Line], said: str) -> None:
    error = refusal(world, world.facility(), "INV-0985", lines=lines)
    assert (error.sqlstate, said in str(error)) == ("BF302", True), error
    with pytest.raises(psycopg.Error, match=said) as caught, world.conn.transaction():
        world.row(
            "select * from billing.create_facility_invoice(%s, %s, '2024-01-01', '2024-01-07', %s)",
            world.company, world.value("select id from billing.facilities"), Jsonb(lines),
        )  # fmt: skip
    assert caught.value.sqlstate == "BF302"
    assert world.next_number == 1


def test_a_contractor_of_another_company_is_refused_everywhere(world: World) -> None:
    stranger = World.create(world.conn).contractor("S. Stranger")
    facility = world.facility()
    foreign = [line(10_000, contractor_id=str(stranger))]
    said = f"line 1 names contractor {stranger}, whom the company does not have"
    assert said in str(refusal(world, facility, "INV-0985", lines=foreign))
    made = world.backfill(facility, "INV-0985")
    for call in (
        "select billing.correct_invoice(%(invoice)s, jsonb_build_object('lines', %(lines)s::jsonb), 'why')",
        "select billing.create_facility_invoice(%(company)s, %(facility)s, '2024-01-01', '2024-01-07', %(lines)s)",
    ):
        with pytest.raises(psycopg.Error, match=said), world.conn.transaction():
            world.conn.execute(
                call.encode(),
                {"invoice": made["id"], "company": world.company, "facility": facility, "lines": Jsonb(foreign)},
            )


def test_an_unknown_company_or_facility_is_named(world: World) -> None:
    nowhere = uuid.uuid4()
    assert f"there is no facility {nowhere}" in str(refusal(world, nowhere, "INV-0985"))
    facility = world.facility()
    assert f"there is no company {nowhere}" in str(refusal(World(world.conn, nowhere), facility, "INV-0985"))


def test_a_number_that_a_correction_gave_is_said_to_be_a_backfilled_ones(world: World) -> None:
    facility = world.facility()
    made = world.backfill(facility, "INV-0985")
    world.conn.execute(
        "select billing.correct_invoice(%s, '{\"invoice_number\": \"INV-0986\"}', 'typing error')", [made["id"]]
    )
    said = str(refusal(world, facility, "INV-0986", week=2))
    assert "INV-0986 is taken by another backfilled invoice (sent): period_start is 2023-01-02, here 2023-01-09" in said


def test_a_second_active_invoice_for_facility_and_period_is_refused(world: World) -> None:
    facility = world.facility()
    first = world.backfill(facility, "INV-0033", week=5)
    error = refusal(world, facility, "INV-0034", week=5)
    assert "its facility already has INV-0033 (sent) for 2023-01-30 to 2023-02-05" in str(error)
    world.backfill(facility, "INV-0035", week=6)
    world.backfill(world.facility("Lakeview"), "INV-0036", week=5)
    world.conn.execute("select billing.void_invoice(%s, 'issued twice')", [first["id"]])
    assert world.backfill(facility, "INV-0034", week=5)["status"] == "sent"


def test_an_invoice_of_the_application_for_the_period_counts_too(world: World) -> None:
    facility = world.facility()
    world.forward(facility, week=5)
    assert "already has INV-0001 (draft)" in str(refusal(world, facility, "INV-0985", week=5))


def test_the_application_issues_none_where_a_backfilled_one_stands(world: World) -> None:
    facility = world.facility()
    world.backfill(facility, "INV-0985", week=5)
    with pytest.raises(psycopg.Error, match=r"already has INV-0985 \(sent\)"), world.conn.transaction():
        world.forward(facility, week=5)
    assert world.next_number == 986


def test_a_number_of_the_application_is_taken(world: World) -> None:
    facility = world.facility()
    world.forward(facility, week=60, total=500)
    error = refusal(world, facility, "INV-0001", week=5)
    assert "INV-0001 is taken by a draft of the application" in str(error)
    assert "total is 5.00, here 100.00" in str(error)


def test_a_facility_of_another_company_is_refused(world: World) -> None:
    foreign = World.create(world.conn).facility("Elsewhere")
    assert "facility Elsewhere belongs to another company" in str(refusal(world, foreign, "INV-0985"))


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        (["INV-0985", "INV-1005", "INV-002"], 1006),
        (["INV-1005", "INV-002", "INV-0985"], 1006),
        (["INV-002"], 993),
        (["INV-2023-1100B"], 1101),
    ],
)
def test_the_watermark_is_the_highest_ever_whatever_the_order(
    conn: psycopg.Connection, numbers: list[str], expected: int
) -> None:
    world = World.create(conn, next_number=993)
    facility = world.facility()
    for week, number in enumerate(numbers, 1):
        before = world.next_number
        world.backfill(facility, number, week=week)
        assert world.next_number >= before
    assert world.next_number == expected
    assert world.forward(facility)["invoice_number"] == f"INV-{expected:04}"


def test_a_refused_invoice_moves_no_watermark(world: World) -> None:
    refusal(world, world.facility(), "INV-5000", total=1, lines=[line(2)])
    assert world.next_number == 1


def test_undoing_a_backfill_leaves_the_watermark_up(world: World) -> None:
    world.backfill(world.facility(), "INV-0985")
    run = world.value("select run_id from backfill.backfill_log")
    world.conn.execute("select * from backfill.reverse_run(%s)", [run])
    assert world.value("select count(*) from billing.invoices") == 0
    assert world.value("select count(*) from staging.invoices") == 0
    assert world.next_number == 986
    assert world.backfill(world.value("select id from billing.facilities"), "INV-0985")["status"] == "sent"


def test_lines_link_contractor_and_the_assignment_of_their_week(world: World) -> None:
    facility, baker, cook = world.facility(), world.contractor(), world.contractor("C. Cook")
    old = world.assignment(baker, facility, "2022-01-01", "2023-01-04")
    new = world.assignment(baker, facility, "2023-01-05")
    world.assignment(baker, world.facility("Lakeview"), "2020-01-01")
    later = world.assignment(cook, facility, "2023-01-11")
    lines = [
        line(
            1_000, contractor_id=str(baker), week_start="2023-01-02", hours=2.5, rate_cents=400
        ),  # changed in it: the old
        line(1_000, contractor_id=str(baker), week_start="2023-01-09"),
        line(1_000, contractor_id=str(baker)),  # the invoice's own period
        line(1_000, contractor_id=str(baker), week_start="2021-12-20"),  # nothing was effective
        line(1_000, contractor_id=str(cook), week_start="2023-01-09"),  # began within it
        line(1_000, contractor_id=str(cook), week_start="2023-01-02"),
        line(1_000),
    ]
    made = world.backfill(facility, "INV-0985", total=7_000, lines=lines)
    written = world.rows("select * from billing.invoice_lines where invoice_id = %s order by line_no", made["id"])
    assert [row["assignment_id"] for row in written] == [old, new, old, None, later, None, None]
    assert [row["contractor_id"] for row in written] == [baker] * 4 + [cook] * 2 + [None]
    assert (written[0]["hours"], written[0]["rate_cents"]) == (2.5, 400)
    assert not any(row["variance_flagged"] for row in written)


def test_the_latest_version_wins_where_several_are_open(world: World) -> None:
    facility, baker = world.facility(), world.contractor()
    world.assignment(baker, facility, "2020-01-01")
    newer = world.assignment(baker, facility, "2022-01-01")
    world.backfill(facility, "INV-1", lines=[line(10_000, contractor_id=str(baker))])
    assert world.value("select assignment_id from billing.invoice_lines") == newer


def test_it_joins_a_run_that_is_open(world: World) -> None:
    facility = world.facility()
    world.conn.execute("select backfill.begin_run('two by hand')")
    world.backfill(facility, "INV-0001", week=1)
    world.backfill(facility, "INV-0002", week=2)
    world.conn.execute("select backfill.finish_run()")
    assert world.value("select count(*) from backfill.backfill_log") == 1


def test_a_staged_invoice_stays_while_the_invoice_made_of_it_stands(world: World) -> None:
    world.backfill(world.facility(), "INV-0985")
    with pytest.raises(psycopg.Error, match="staged invoice INV-0985 stays") as caught:
        world.conn.execute("delete from staging.invoice_lines")
        world.conn.execute("delete from staging.invoices")
    assert caught.value.sqlstate == "BF005"
