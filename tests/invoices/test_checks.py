"""What a check pays: the invoices it names, then the oldest; what is left; what nobody could read."""

from __future__ import annotations

import uuid

import psycopg
import pytest

from tests.invoices.world import World


@pytest.fixture
def hillside(world: World) -> uuid.UUID:
    """A facility with three invoices of 100.00 each, due in the order INV-0814, INV-0815, INV-1814."""
    facility = world.facility()
    for week, number in enumerate(["INV-0814", "INV-0815", "INV-1814"], 1):
        world.backfill(facility, number, week=week)
    return facility


def states(world: World) -> dict[str, tuple[str, int]]:
    rows = world.rows("select invoice_number, status, amount_paid_cents from billing.invoices")
    return {row["invoice_number"]: (row["status"], row["amount_paid_cents"]) for row in rows}


def test_oldest_due_date_first(world: World, hillside: uuid.UUID) -> None:
    check = world.check(hillside, 15_000)
    assert world.allocate(check) == {"INV-0814": 10_000, "INV-0815": 5_000}
    assert states(world) == {"INV-0814": ("paid", 10_000), "INV-0815": ("partial", 5_000), "INV-1814": ("sent", 0)}
    assert world.unapplied(check) == 0


def test_no_due_date_comes_last(world: World) -> None:
    facility = world.facility()
    undated, dated = world.forward(facility, week=60), world.forward(facility, week=61)
    world.send(undated, due=None)
    world.send(dated, due="2030-01-01")
    assert world.allocate(world.check(facility, 10_000)) == {"INV-0002": 10_000}


@pytest.mark.parametrize(
    "reference", ["INV-1814", "1814", "inv 1814", "Invoice #1814", "INV1814", "01814", " inv-1814 "]
)
def test_a_number_on_the_check_goes_to_the_front(world: World, hillside: uuid.UUID, reference: str) -> None:
    check = world.check(hillside, 12_000, reference)
    assert world.allocate(check) == {"INV-1814": 10_000, "INV-0814": 2_000}
    assert world.reviews(check) == {}


@pytest.mark.parametrize("reference", ["INV-0814", "814", "inv 814", "0814", "No. 814", "#814"])
def test_leading_zeros_case_and_signs_do_not_matter(world: World, hillside: uuid.UUID, reference: str) -> None:
    # Older: it would be first without the number.
    world.backfill(hillside, "INV-0700", week=4, sent="2022-12-01 00:00+00", due="2022-12-31")
    assert world.allocate(world.check(hillside, 10_000, reference)) == {"INV-0814": 10_000}


@pytest.mark.parametrize(
    "reference", ["14", "181", "18140", "INV-014", "ABC-1814", "1814B", "INV-1814-2", "INV-0814 INV-0815"]
)
def test_only_a_whole_number_fits(world: World, hillside: uuid.UUID, reference: str) -> None:
    check = world.check(hillside, 10_000, reference)
    assert world.allocate(check) == {"INV-0814": 10_000}  # the money is not lost: oldest first
    assert world.reviews(check) == {reference: "no invoice of the facility has this number"}


@pytest.mark.parametrize("reference", ["", "  ", "?", "no number"])
def test_what_holds_no_number_is_kept_for_review(world: World, hillside: uuid.UUID, reference: str) -> None:
    check = world.check(hillside, 10_000, reference)
    assert world.allocate(check) == {"INV-0814": 10_000}
    assert list(world.reviews(check)) == [reference]


def test_a_number_of_another_facility_does_not_fit(world: World, hillside: uuid.UUID) -> None:
    world.backfill(world.facility("Lakeview"), "INV-0990", week=1)
    check = world.check(hillside, 10_000, "INV-0990")
    assert world.allocate(check) == {"INV-0814": 10_000}
    assert "INV-0990" in world.reviews(check)


def test_a_number_that_fits_several_is_kept_for_review(world: World, hillside: uuid.UUID) -> None:
    world.backfill(hillside, "ABC-0815", week=9)
    check = world.check(hillside, 10_000, "815")
    assert world.allocate(check) == {"INV-0814": 10_000}
    assert world.reviews(check) == {"815": "it fits 2 outstanding invoices: ABC-0815, INV-0815"}
    exact = world.check(hillside, 10_000, "abc 815")
    assert world.allocate(exact) == {"ABC-0815": 10_000}


def test_the_exact_number_goes_before_one_that_differs_in_zeros(world: World, hillside: uuid.UUID) -> None:
    world.backfill(hillside, "INV-815", week=9)
    assert world.allocate(world.check(hillside, 10_000, "INV-815")) == {"INV-815": 10_000}
    assert world.allocate(world.check(hillside, 10_000, "INV-0815")) == {"INV-0815": 10_000}


def test_a_number_that_is_paid_is_kept_for_review(world: World, hillside: uuid.UUID) -> None:
    world.allocate(world.check(hillside, 10_000, "INV-0815"))
    check = world.check(hillside, 10_000, "INV-0815")
    assert world.allocate(check) == {"INV-0814": 10_000}
    assert world.reviews(check) == {"INV-0815": "nothing is outstanding under it: INV-0815 is paid"}


def test_several_numbers_are_paid_in_their_order(world: World, hillside: uuid.UUID) -> None:
    check = world.check(hillside, 18_000, "1814", "815", "INV-1814")
    assert world.allocate(check) == {"INV-0815": 8_000, "INV-1814": 10_000}
    assert world.reviews(check) == {}  # read twice is no question


def test_what_is_left_over_stays_unapplied(world: World, hillside: uuid.UUID) -> None:
    check = world.check(hillside, 35_000, "815")
    assert sum(world.allocate(check).values()) == 30_000
    assert world.unapplied(check) == 5_000
    assert {state for state, _ in states(world).values()} == {"paid"}


def test_the_same_check_twice_changes_nothing(world: World, hillside: uuid.UUID) -> None:
    check = world.check(hillside, 35_000, "no such")
    world.allocate(check)
    before = world.rows("select * from billing.check_payment_applications order by id"), states(world)
    assert world.allocate(check) == {}
    assert (world.rows("select * from billing.check_payment_applications order by id"), states(world)) == before
    world.backfill(hillside, "INV-2000", week=20)
    assert world.allocate(check) == {"INV-2000": 5_000}  # what is left of it, when asked to
    assert world.unapplied(check) == 0


def test_a_check_without_facility_pays_nothing_and_is_not_lost(world: World, hillside: uuid.UUID) -> None:
    check = world.check(None, 10_000, "INV-0814")
    assert world.allocate(check) == {}
    assert (world.unapplied(check), world.reviews(check)) == (10_000, {"INV-0814": "the check names no facility"})


def test_a_check_that_came_before_the_catalogue_is_no_question_once_it_pays(world: World) -> None:
    facility = world.facility()
    check = world.check(None, 12_000, "INV-0985", "INV-4711")
    assert world.allocate(check) == {}
    world.conn.execute("update billing.check_payments set facility_id = %s where id = %s", [facility, check])
    assert world.allocate(check) == {}
    none = "no invoice of the facility has this number"
    assert world.reviews(check) == {"INV-0985": none, "INV-4711": none}
    seen = world.rows("select *, xmin::text from billing.check_reference_reviews order by reference")
    assert world.allocate(check) == {}  # the same again changes nothing
    assert world.rows("select *, xmin::text from billing.check_reference_reviews order by reference") == seen
    world.backfill(facility, "INV-0985", week=2)
    world.backfill(facility, "INV-0984", week=1)
    assert world.allocate(check) == {"INV-0985": 10_000, "INV-0984": 2_000}
    assert world.reviews(check) == {"INV-4711": none}


def test_drafts_and_void_invoices_are_not_paid(world: World) -> None:
    facility = world.facility()
    world.forward(facility)
    void = world.backfill(facility, "INV-0500", week=3)
    world.conn.execute("select billing.void_invoice(%s, 'issued twice')", [void["id"]])
    check = world.check(facility, 10_000, "INV-0001", "INV-0500")
    assert world.allocate(check) == {}
    assert world.reviews(check)["INV-0500"] == "nothing is outstanding under it: INV-0500 is void"
    assert world.unapplied(check) == 10_000


def test_an_unknown_check_is_refused(world: World) -> None:
    for call in ("allocate_check", "unapply_check"):
        with pytest.raises(psycopg.Error, match="there is no check"), world.conn.transaction():
            world.conn.execute(f"select billing.{call}(gen_random_uuid())".encode())


def test_unapplying_brings_every_row_back(world: World, hillside: uuid.UUID) -> None:
    first = world.check(hillside, 4_000)
    world.allocate(first)
    before = world.rows("select * from billing.invoices order by id")
    second = world.check(hillside, 17_000, "815", "nonsense")
    assert world.allocate(second) == {"INV-0815": 10_000, "INV-0814": 6_000, "INV-1814": 1_000}
    assert world.unapply(second) == {"INV-0815": 10_000, "INV-0814": 6_000, "INV-1814": 1_000}
    assert world.rows("select * from billing.invoices order by id") == before
    assert (world.reviews(second), world.unapplied(second)) == ({}, 17_000)
    assert world.unapply(second) == {}
    assert world.faults() == []


def test_many_checks_at_once_pay_as_one_after_the_other(world: World) -> None:
    """Set-wise or one by one: the same applications and the same reviews."""
    facilities = [world.facility(name) for name in ("Hillside", "Lakeview", "Seaside")]
    checks = []
    for number in range(30):
        world.backfill(facilities[number % 3], f"INV-{number + 100}", week=number // 3 + 1, total=1_000 + 37 * number)
    for number in range(25):
        references = [f"INV-{100 + number * 7 % 40}", "77"][: number % 3]
        checks.append(
            world.check(facilities[number % 3], 500 + 211 * number, *references, on=f"2024-05-{number + 1:02}")
        )

    def outcome() -> list[object]:
        return [
            world.rows(
                "select check_payment_id, invoice_id, amount_cents"
                " from billing.check_payment_applications order by 1, 2"
            ),
            world.rows("select id, status, amount_paid_cents from billing.invoices order by 1"),
            [(check, sorted(world.reviews(check))) for check in checks],
        ]

    with world.conn.transaction(force_rollback=True):
        for check in checks:
            world.allocate(check)
        one_by_one = outcome()
    world.conn.execute("select billing.allocate_checks(null)")
    assert outcome() == one_by_one
    assert len(one_by_one[0]) > 25  # type: ignore[arg-type]
    assert world.faults() == []
    assert world.conn.execute("select count(*) from billing.check_balances where unapplied_cents < 0").fetchone() == (
        0,
    )
