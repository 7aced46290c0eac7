"""Corrections after the load: each an audited run, each refusing what would break an invariant."""

from __future__ import annotations

import uuid
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

from tests.invoices.world import World, line


@pytest.fixture
def hillside(world: World) -> uuid.UUID:
    return world.facility()


@pytest.fixture
def past(world: World, hillside: uuid.UUID) -> dict[str, Any]:
    """INV-0985 of 100.00, issued 2023-01-08, due 2023-02-07."""
    return world.backfill(hillside, "INV-0985")


def correct(world: World, invoice: dict[str, Any], reason: str = "typing error", **changes: object) -> dict[str, Any]:
    return world.row("select * from billing.correct_invoice(%s, %s, %s)", invoice["id"], Jsonb(changes), reason)


def refusal(world: World, call: str, *parameters: object) -> str:
    """Message of the refusal (BF302); nothing of the call may stay, not even a run."""
    before = world.value("select count(*) from backfill.backfill_log")
    with pytest.raises(psycopg.Error) as caught, world.conn.transaction():
        world.conn.execute(f"select billing.{call}".encode(), parameters)
    assert caught.value.sqlstate == "BF302", caught.value
    assert world.value("select count(*) from backfill.backfill_log") == before
    return str(caught.value)


def last_run(world: World) -> dict[str, Any]:
    return world.rows("select * from backfill.backfill_log order by completed_at desc limit 1")[0]


def undo(world: World) -> None:
    world.conn.execute("select * from backfill.reverse_run(%s)", [last_run(world)["run_id"]])


def test_a_correction_is_a_run_with_its_reason_and_can_be_undone(world: World, past: dict[str, Any]) -> None:
    fixed = correct(world, past, invoice_number="INV-0985B", due_date="2023-03-01", sent_at="2023-01-09T00:00:00+00")
    assert (fixed["id"], fixed["invoice_number"], str(fixed["due_date"])) == (past["id"], "INV-0985B", "2023-03-01")
    run = last_run(world)
    assert (run["backfill"], run["mode"], run["status"]) == ("correct INV-0985", "manual", "succeeded")
    assert run["parameters"]["reason"] == "typing error"
    change = world.row("select * from backfill.change_log where run_id = %s", run["run_id"])
    assert (change["before"]["invoice_number"], change["after"]["invoice_number"]) == ("INV-0985", "INV-0985B")
    undo(world)
    assert world.invoice("INV-0985") == past


def test_lines_are_corrected_with_the_total(world: World, past: dict[str, Any]) -> None:
    fixed = correct(world, past, total_cents=9_000, lines=[line(4_000), line(5_000)])
    assert (fixed["total_cents"], fixed["status"]) == (9_000, "sent")
    lines = world.rows("select line_no, amount_cents from billing.invoice_lines order by line_no")
    assert [(row["line_no"], row["amount_cents"]) for row in lines] == [(1, 4_000), (2, 5_000)]
    undo(world)
    assert world.invoice("INV-0985") == past
    assert world.value("select sum(amount_cents) from billing.invoice_lines") == 10_000


def test_a_higher_number_moves_the_watermark(world: World, past: dict[str, Any]) -> None:
    correct(world, past, invoice_number="INV-2000")
    assert world.next_number == 2001


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"total_cents": 9_000}, "not the sum of its lines"),
        ({"lines": [line(9_000)]}, "not the sum of its lines"),
        ({"lines": []}, "not the sum of its lines"),
        (
            {"invoice_number": "INV-0033"},
            "INV-0985 cannot become INV-0033: that number is taken (sent, for 2023-01-30 to 2023-02-05)",
        ),
        ({"invoice_number": "INV"}, "INV-0985 cannot become 'INV': a number has a numeric part"),
        ({"invoice_number": None}, "cannot become NULL"),
        ({"invoice_number": " INV-0986 "}, "cannot become ' INV-0986 '"),
        (
            {"due_date": "02/03/2023"},
            "dates as 2023-02-28 and sent_at as 2023-02-28T00:00:00Z, with its time zone, not due_date 02/03/2023",
        ),
        ({"period_start": "soon"}, "not period_start soon"),
        ({"sent_at": "2023-01-09T00:00:00"}, "not sent_at 2023-01-09T00:00:00"),
        ({"lines": None}, "lines must be an array"),
        ({"lines": [{"amount_cents": 10_000}]}, "INV-0985 is refused: line 1 has no description"),
        ({"lines": [line(10_000), {"description": "x"}]}, "line 2 has no amount_cents"),
        ({"lines": [line(10_000, contractor_id=str(uuid.uuid4()))]}, "whom the company does not have"),
        ({"due_date": None}, "needs an issue date, a due date"),
        ({"sent_at": None}, "needs an issue date"),
        ({"due_date": "2022-01-01"}, "due before it was issued"),
        ({"period_end": "2022-01-01"}, "a period that ends after it begins"),
        ({"period_start": "2023-01-30", "period_end": "2023-02-05"}, "its facility also has INV-0033"),
        ({"total_cents": 0, "lines": [line(0)]}, "a total of the same sign"),
        ({"total_cents": -1, "lines": [line(-1)]}, "a total of the same sign"),
        ({"status": "paid"}, "not status"),
        ({"origin": "app"}, "not origin"),
        ({}, "not nothing"),
        (None, "not null"),
        ([1], "not [1]"),
    ],
)
def test_a_correction_that_breaks_a_rule_is_refused(
    world: World, hillside: uuid.UUID, past: dict[str, Any], changes: object, said: str
) -> None:
    world.backfill(hillside, "INV-0033", week=5)
    before = world.rows("select * from billing.invoices order by id")
    assert said in refusal(world, "correct_invoice(%s, %s, 'why')", past["id"], Jsonb(changes))
    assert world.rows("select * from billing.invoices order by id") == before


def test_a_total_below_what_is_paid_is_refused(world: World, hillside: uuid.UUID, past: dict[str, Any]) -> None:
    world.allocate(world.check(hillside, 6_000))
    said = refusal(
        world, "correct_invoice(%s, %s, 'why')", past["id"], Jsonb({"total_cents": 5_000, "lines": [line(5_000)]})
    )
    assert "has 6000 cents paid" in said
    assert correct(world, past, total_cents=6_000, lines=[line(6_000)])["status"] == "paid"


@pytest.mark.parametrize(
    "action",
    [
        "correct_invoice(%s, '{\"due_date\": \"2023-05-01\"}', ' ')",
        "void_invoice(%s, '')",
        "delete_invoice(%s, null)",
        "resend_invoice(%s, now(), '')",
    ],
)
def test_each_action_needs_a_reason(world: World, past: dict[str, Any], action: str) -> None:
    assert "needs a reason" in refusal(world, action, past["id"])


def test_the_applications_own_are_not_corrected_here(world: World, hillside: uuid.UUID) -> None:
    draft = world.forward(hillside)
    said = refusal(world, "correct_invoice(%s, '{\"due_date\": \"2025-01-01\"}', 'why')", draft["id"])
    assert "INV-0001 is draft and of origin app" in said


def test_sending_again_makes_no_debt_younger(world: World, past: dict[str, Any]) -> None:
    again = world.row("select * from billing.resend_invoice(%s, '2024-01-10 09:00+00', 'never arrived')", past["id"])
    assert (again["sent_at"], again["due_date"], again["status"]) == (past["sent_at"], past["due_date"], "sent")
    assert str(again["last_sent_at"]).startswith("2024-01-10 09:00")
    assert "cannot be sent again before that" in refusal(world, "resend_invoice(%s, '2024-01-09', 'why')", past["id"])
    world.conn.execute("select billing.resend_invoice(%s, '2024-02-01 09:00+00', 'again')", [past["id"]])
    before = world.row("select * from backfill.change_log where run_id = %s", last_run(world)["run_id"])["before"]
    assert before["last_sent_at"].startswith("2024-01-10")


def test_only_what_is_outstanding_is_sent_again(world: World, hillside: uuid.UUID, past: dict[str, Any]) -> None:
    world.allocate(world.check(hillside, 10_000))
    assert "is paid" in refusal(world, "resend_invoice(%s, now(), 'why')", past["id"])


def test_voiding_keeps_the_number_and_frees_the_period(world: World, hillside: uuid.UUID, past: dict[str, Any]) -> None:
    assert world.row("select * from billing.void_invoice(%s, 'issued twice')", past["id"])["status"] == "void"
    runs = world.value("select count(*) from backfill.backfill_log")
    assert world.row("select * from billing.void_invoice(%s, 'issued twice')", past["id"])["status"] == "void"
    assert world.value("select count(*) from backfill.backfill_log") == runs
    assert world.backfill(hillside, "INV-0986")["status"] == "sent"
    assert world.value("select count(*) from billing.receivables") == 1
    # The void one can only come back when its period is free again.
    run = world.value("select run_id from backfill.backfill_log where backfill = 'void INV-0985'")
    with pytest.raises(psycopg.Error), world.conn.transaction():
        world.conn.execute("select * from backfill.reverse_run(%s)", [run])
    assert world.faults() == []


def undoing(world: World, title: str) -> str:
    """How the reversal of the run with this title is refused (BF005)."""
    run = world.value("select run_id from backfill.backfill_log where backfill = %s and mode <> 'reversal'", title)
    before = world.rows("select * from billing.invoices order by id")
    with pytest.raises(psycopg.Error) as caught, world.conn.transaction():
        world.conn.execute("select * from backfill.reverse_run(%s)", [run])
    assert caught.value.sqlstate == "BF005", caught.value
    assert world.rows("select * from billing.invoices order by id") == before
    return f"{caught.value} {caught.value.diag.message_detail}"


@pytest.mark.parametrize(
    ("taken_away", "title"),
    [
        ("select billing.void_invoice(%s, 'issued twice')", "void INV-0985"),
        ("select billing.delete_invoice(%s, 'never issued')", "delete INV-0985"),
        (
            "select billing.correct_invoice(%s, '{\"period_end\": \"2023-01-09\"}', 'why')",
            "correct INV-0985",
        ),
    ],
)
def test_no_undo_brings_back_a_second_invoice_for_a_period(
    world: World, hillside: uuid.UUID, past: dict[str, Any], taken_away: str, title: str
) -> None:
    """The application issued one for the period of the backfilled one that was void, gone, or elsewhere meanwhile."""
    world.conn.execute(taken_away.encode(), [past["id"]])
    issued = world.forward(hillside, week=1)
    assert "INV-0985 beside INV-0986 (draft, origin app) for 2023-01-02 to 2023-01-08" in undoing(world, title)
    world.conn.execute("select billing.void_invoice(%s, 'the past stands')", [issued["id"]])
    run = world.value("select run_id from backfill.backfill_log where backfill = %s", title)
    world.conn.execute("select * from backfill.reverse_run(%s)", [run])
    assert world.invoice("INV-0985") == past
    assert world.faults() == []


def test_nor_does_it_bring_back_one_of_the_application(world: World, hillside: uuid.UUID) -> None:
    issued = world.forward(hillside, week=1)
    world.conn.execute("select billing.void_invoice(%s, 'it was issued by hand')", [issued["id"]])
    world.backfill(hillside, "INV-0985", week=1)
    assert "INV-0001 beside INV-0985 (sent, origin backfill)" in undoing(world, "void INV-0001")


@pytest.mark.parametrize("action", ["void_invoice(%s, 'why')", "delete_invoice(%s, 'why')"])
def test_what_a_check_has_paid_stays(world: World, hillside: uuid.UUID, past: dict[str, Any], action: str) -> None:
    check = world.check(hillside, 1)
    world.allocate(check)
    assert "has 1 cents paid" in refusal(world, action, past["id"])
    world.unapply(check)
    world.conn.execute(f"select billing.{action}".encode(), [past["id"]])


def test_what_a_linked_payment_has_paid_stays_too(world: World, past: dict[str, Any]) -> None:
    payment = world.value(
        "insert into billing.payments (company_id, amount_cents, currency, status, paid_at)"
        " values (%s, 6000, 'USD', 'succeeded', '2023-02-01 00:00Z') returning id", world.company,
    )  # fmt: skip
    world.conn.execute("select billing.link_payment(%s, %s, 'the bank says so')", [payment, past["id"]])
    assert "has 6000 cents paid: it cannot be void" in refusal(world, "void_invoice(%s, 'why')", past["id"])
    assert "has 6000 cents paid: it cannot be deleted" in refusal(world, "delete_invoice(%s, 'why')", past["id"])
    less = Jsonb({"total_cents": 5_999, "lines": [line(5_999)]})
    assert "more than the new total of 5999" in refusal(world, "correct_invoice(%s, %s, 'why')", past["id"], less)
    undo(world)
    assert world.row("select * from billing.void_invoice(%s, 'why')", past["id"])["status"] == "void"


def test_a_payment_linked_in_an_open_run_keeps_its_reason(world: World, past: dict[str, Any]) -> None:
    payment = world.value(
        "insert into billing.payments (company_id, amount_cents, currency, status, paid_at)"
        " values (%s, 6000, 'USD', 'succeeded', '2023-02-01 00:00Z') returning id", world.company,
    )  # fmt: skip
    world.conn.execute("select backfill.begin_run('an afternoon with the bank')")
    world.conn.execute("select billing.link_payment(%s, %s, 'the bank says so')", [payment, past["id"]])
    world.conn.execute("select billing.resend_invoice(%s, '2023-05-01 00:00Z', 'for the rest')", [past["id"]])
    world.conn.execute("select backfill.finish_run()")
    linked, resent = last_run(world)["parameters"]["actions"]
    assert (linked["reason"], linked["invoice"], linked["source"]) == (
        "the bank says so",
        str(past["id"]),
        str(payment),
    )
    assert resent["reason"] == "for the rest"


def test_what_was_deleted_does_not_come_back_by_itself(world: World, hillside: uuid.UUID, past: dict[str, Any]) -> None:
    world.conn.execute("select billing.delete_invoice(%s, 'never issued')", [past["id"]])
    assert world.value("select count(*) from billing.invoices") == 0
    assert world.value("select count(*) from billing.invoice_lines") == 0
    assert world.row("select * from backfill.due('{invoices}')")["due_rows"] == 0
    assert world.next_number == 986
    # … but it can be given again, with another payload too.
    with world.conn.transaction(force_rollback=True):
        assert world.backfill(hillside, "INV-0985", total=5_000)["total_cents"] == 5_000
    undo(world)
    assert world.invoice("INV-0985") == past
    assert world.value("select withdrawn from staging.invoices") is None


def test_a_draft_that_holds_a_number_of_the_catalogue_goes_with_the_owners_word(
    world: World, hillside: uuid.UUID
) -> None:
    draft = world.forward(hillside, week=1)
    stage(world, hillside, "INV-0001", week=2)
    reject = world.row("select * from backfill.invoices_rejects")
    assert reject["reason"].startswith("INV-0001 is taken by a draft of the application")
    assert "needs its owner's confirmation" in refusal(world, "delete_invoice(%s, 'holds a number')", draft["id"])
    world.conn.execute(
        "select billing.delete_invoice(%s, 'holds a number', 'Grace, by mail of 2024-05-02')", [draft["id"]]
    )
    assert last_run(world)["parameters"]["owner_confirmation"] == "Grace, by mail of 2024-05-02"
    assert world.row("select * from backfill.due('{invoices}')")["due_rows"] == 1


def test_other_drafts_stay(world: World, hillside: uuid.UUID) -> None:
    draft = world.forward(hillside)
    said = refusal(world, "delete_invoice(%s, 'why', 'Grace')", draft["id"])
    assert "holds no number of the catalogue" in said
    stage(world, hillside, "INV-0001", week=2)
    world.send(draft)
    assert "holds no number" in refusal(world, "delete_invoice(%s, 'why', 'Grace')", draft["id"])


def test_actions_join_a_run_that_is_open(world: World, past: dict[str, Any]) -> None:
    runs = world.value("select count(*) from backfill.backfill_log")
    world.conn.execute("select backfill.begin_run('hotfix')")
    correct(world, past, due_date="2023-04-01")
    world.conn.execute("select billing.void_invoice(%s, 'and void')", [past["id"]])
    world.conn.execute("select backfill.finish_run()")
    assert world.value("select count(*) from backfill.backfill_log") == runs + 1


def test_a_run_keeps_the_reason_of_every_action_that_joined_it(
    world: World, hillside: uuid.UUID, past: dict[str, Any]
) -> None:
    other = world.backfill(hillside, "INV-0033", week=5)
    world.conn.execute("select backfill.begin_run('audit of 2023', '{\"ticket\": 4711}')")
    correct(world, past, "the owner's copy says April", due_date="2023-04-01")
    world.conn.execute("select billing.resend_invoice(%s, '2023-05-01 00:00Z', 'it came back')", [past["id"]])
    world.conn.execute("select billing.void_invoice(%s, 'issued twice', 'Grace')", [other["id"]])
    assert "needs a reason" in refusal(world, "delete_invoice(%s, ' ')", past["id"])
    world.conn.execute("select billing.delete_invoice(%s, 'not owed', p_actor => 'Grace')", [past["id"]])
    world.conn.execute("select backfill.finish_run('{\"looked_at\": 2}')")
    run = last_run(world)
    assert (run["backfill"], run["parameters"]["ticket"]) == ("audit of 2023", 4711)
    kept = [
        (action["action"], action["invoice"], action["reason"], action["actor"])
        for action in run["parameters"]["actions"]
    ]
    me = world.value("select session_user")
    assert kept == [
        ("correct", "INV-0985", "the owner's copy says April", me),
        ("resend", "INV-0985", "it came back", me),
        ("void", "INV-0033", "issued twice", "Grace"),
        ("delete", "INV-0985", "not owed", "Grace"),
    ]
    assert run["parameters"]["actions"][0]["changes"] == {"due_date": "2023-04-01"}
    undo(world)
    assert (world.invoice("INV-0985"), world.invoice("INV-0033")) == (past, other)


def stage(world: World, facility: uuid.UUID, number: str, *, week: int = 1, total: int = 10_000) -> None:
    """A row of the catalogue as the loader leaves it, not yet written."""
    began = world.value("select backfill.ensure_run('staged by hand')")
    world.conn.execute(
        "insert into staging.invoices (invoice_id, company_id, invoice_number, facility_id, period_start, period_end,"
        " sent_at, due_date, total_cents, actor, currency)"
        " select backfill.business_id('invoice', %(company)s::text, %(number)s), %(company)s, %(number)s, %(facility)s,"
        " d, d + 6, d + 6, d + 36, %(total)s, 'ada', 'USD'"
        " from (select date '2023-01-02' + 7 * (%(week)s - 1) as d) as x",
        {"company": world.company, "number": number, "facility": facility, "week": week, "total": total},
    )
    world.conn.execute(
        "insert into staging.invoice_lines (company_id, invoice_number, line_no, description, amount_cents, currency)"
        " values (%s, %s, 1, 'Services', %s, 'USD')",
        [world.company, number, total],
    )
    if began:
        world.conn.execute("select backfill.finish_run()")
