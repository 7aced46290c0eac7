"""The two parsers: every shape that is taken, every damage with its reason, and no traceback whatever the bytes."""

from __future__ import annotations

import json
from datetime import date
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from runner.rent import electricity
from runner.rent import history as rent_history
from runner.rent.amounts import ore
from runner.rent.files import BadFileError
from runner.rent.history import absent, parse
from tests.rent.flat import BILLS, HISTORY, ODD

NAME = "2023_02_v3.json"


def calculation(**changed: Any) -> dict[str, Any]:
    """A good document; a changed part replaces it, `...` removes it."""
    document = {
        "metadata": {"calculation_date": "2023-02-10T10:00:00+01:00", "version": 3, "title": "T"},
        "constants": {"year": 2023, "month": 2, "kallhyra": 20000, "el": 1000},
        "roommates": {"Alma": {}, "Bo": {"days": 15.5, "room_adjustment": -100}},
        "final_results": {"Alma": 14000, "Bo": 7000.0},
        **changed,
    }
    return {key: value for key, value in document.items() if value is not ...}


def encoded(document: Any) -> bytes:
    return json.dumps(document, ensure_ascii=False).encode()


def reason(content: bytes, name: str = NAME) -> str:
    with pytest.raises(BadFileError) as caught:
        parse(name, content)
    return str(caught.value)


def test_a_calculation_is_typed_and_kept_whole() -> None:
    content = encoded(calculation())
    found = parse(NAME, content)
    assert (found.period, found.version, found.calculation_month, found.title) == ("2023-02", 3, "2023-02", "T")
    assert found.calculated_at.isoformat() == "2023-02-10T10:00:00+01:00"
    assert found.base_monthly_rent == 1_000_000
    assert [(s.tenant, s.days, s.room_adjustment, s.amount) for s in found.shares] == [
        ("Alma", None, 0, 1_400_000), ("Bo", Decimal("15.5"), -10_000, 700_000),
    ]  # fmt: skip
    assert (found.text, found.suspicions, found.remarks) == (content.decode(), (), ())


@pytest.mark.parametrize(("amount", "expected"), [("4526", 452600), ("4526.0", 452600), ("5935.98", 593598), ("0", 0)])
def test_amounts_come_in_three_shapes_and_are_never_floats(amount: str, expected: int) -> None:
    text = encoded(calculation()).decode().replace("14000", amount)
    assert parse(NAME, text.encode()).shares[0].amount == expected
    assert ore(Decimal(amount)) == expected


def test_room_adjustment_null_is_zero_and_days_null_stay_null() -> None:
    found = parse(NAME, encoded(calculation(roommates={"Alma": {"room_adjustment": None, "days": None}, "Bo": {}})))
    assert [(s.days, s.room_adjustment) for s in found.shares] == [(None, 0), (None, 0)]


def test_base_rent_rounds_half_an_ore_up() -> None:
    people: dict[str, object] = {name: {} for name in "ABC"}
    found = parse(NAME, encoded(calculation(roommates=people, final_results=dict.fromkeys(people, 1))))
    assert found.base_monthly_rent == 666_667


@pytest.mark.parametrize(
    ("name", "constants", "month", "remark"),
    [
        ("2023_02_v3.json", {}, "2023-02", ""),
        ("2023_02_v3.json", {"year": 2023, "month": 1}, "2023-01", ""),
        ("2023_01_v3.json", {"year": 2022, "month": 12}, "2022-12", ""),
        ("2023_01_v3.json", {"month": 12}, "2022-12", ""),
        ("2023_01_v3.json", {"year": 2023, "month": 12}, "2023-12", "neither that month nor the one before"),
        ("2023_02_v3.json", {"year": 2023, "month": 3}, "2023-03", "neither that month nor the one before"),
        ("2023_02_v3.json", {"year": 2022, "month": 2}, "2022-02", "neither that month nor the one before"),
        ("2023_02_v3.json", {"year": 2021}, "2023-02", "constants.year is 2021, without a month"),
    ],
)
def test_the_calculations_month(name: str, constants: dict[str, int], month: str, remark: str) -> None:
    found = parse(name, encoded(calculation(constants={"kallhyra": 20000, **constants})))
    assert found.period == name[:7].replace("_", "-")
    assert found.calculation_month == month
    assert remark in "; ".join(found.remarks)
    assert bool(found.remarks) == bool(remark)


def test_another_version_inside_is_reported() -> None:
    (remark,) = parse("2023_02_v4.json", encoded(calculation())).remarks
    assert remark == "metadata.version is 3, the name says 4"


@pytest.mark.parametrize(
    ("day", "suspect"), [("2023-08-31", False), ("2023-09-01", True), ("2024-02-01", True), ("2022-11-01", False)]
)
def test_a_calculation_more_than_six_months_after_its_month_is_suspect(day: str, suspect: bool) -> None:
    found = parse(NAME, encoded(calculation(metadata={"calculation_date": f"{day}T00:00:00+02:00"})))
    assert bool(found.suspicions) == suspect


def test_who_did_not_live_there_makes_it_suspect_and_a_stranger_is_named() -> None:
    found = parse(NAME, encoded(calculation()))  # rent month February, lived in March
    cases: tuple[tuple[dict[str, tuple[str | None, str | None]], int], ...] = (
        ({"Alma": (None, None), "Bo": ("2023-03", None)}, 0),
        ({"Alma": (None, "2023-02"), "Bo": (None, None)}, 0),
        ({"Alma": (None, "2023-01"), "Bo": (None, None)}, 1),
        ({"Alma": (None, None), "Bo": ("2023-04", None)}, 1),
    )
    for lived, suspicions in cases:
        unknown, found_suspicions = absent(found, lived)
        assert (unknown, len(found_suspicions)) == ([], suspicions)
    assert absent(found, {"Alma": (None, None)})[0] == ["Bo"]


DAMAGE: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "is not JSON"),
    "truncated": (encoded(calculation())[:-20], "is not JSON: "),
    "not an object": (b"[1]", "is not a JSON object"),
    "latin-1": (
        json.dumps(calculation(), ensure_ascii=False).replace("Bo", "Åsa").encode("latin-1"),
        "is not UTF-8 (byte",
    ),
    "utf-16": (json.dumps(calculation()).encode("utf-16"), "is not UTF-8"),
    "nul": (encoded(calculation(extra="\0")), "NUL"),
    "half a character": (json.dumps(calculation()).replace('"T"', '"\\ud800"').encode(), "half a character"),
    "NaN": (encoded(calculation()).replace(b"14000", b"NaN"), "holds NaN"),
    "Infinity": (encoded(calculation()).replace(b"14000", b"-Infinity"), "holds -Infinity"),
    "huge exponent": (encoded(calculation()).replace(b"14000", b"1e400"), "too large or too fine"),
    "impossible exponent": (encoded(calculation()).replace(b"14000", b"1e99999999999999999999"), "too large"),
    "ten thousand digits": (encoded(calculation()).replace(b"14000", b"9" * 10_000), "too large or too fine"),
    "larger than a flat": (encoded(calculation()).replace(b"14000", b"1000000001"), "is larger than 1,000,000,000"),
    "three decimals": (encoded(calculation()).replace(b"14000", b"1.001"), "more than two decimals"),
    "amount as text": (
        encoded(calculation()).replace(b"14000", b'"14000"'),
        "final_results.Alma is not a number: 14000",
    ),
    "amount true": (encoded(calculation()).replace(b"14000", b"true"), "final_results.Alma is not a number"),
    "negative": (encoded(calculation()).replace(b"14000", b"-1"), "final_results.Alma is negative"),
    "twice": (b'{"metadata": {}, "metadata": {}}', "holds metadata twice"),
    "deep": (b"[" * 100_000, "nested too deeply"),
    "no metadata": (encoded(calculation(metadata=...)), "metadata is missing"),
    "no date": (encoded(calculation(metadata={"version": 3})), "calculation_date is missing"),
    "no zone": (encoded(calculation(metadata={"calculation_date": "2023-02-10T10:00:00"})), "has no time zone"),
    "no day": (encoded(calculation(metadata={"calculation_date": "2023-02-30T10:00:00Z"})), "is not a date and time"),
    "title": (
        encoded(calculation(metadata={"calculation_date": "2023-02-10T10:00:00Z", "title": 5})),
        "title is not text",
    ),
    "constants list": (encoded(calculation(constants=[])), "constants is not an object"),
    "kallhyra missing": (encoded(calculation(constants={"el": 5})), "constants.kallhyra is not a number: None"),
    "kallhyra 0": (encoded(calculation(constants={"kallhyra": 0})), "is not positive"),
    "el text": (encoded(calculation(constants={"kallhyra": 1, "el": "5"})), "constants.el is not a number: 5"),
    "month 13": (encoded(calculation(constants={"kallhyra": 1, "month": 13})), "not a number from 1 to 12: 13"),
    "month 1.5": (encoded(calculation(constants={"kallhyra": 1, "month": 1.5})), "not a number from 1 to 12: 1.5"),
    "nobody": (encoded(calculation(roommates={})), "roommates is empty"),
    "no results": (encoded(calculation(final_results={})), "final_results is empty"),
    "stranger": (
        encoded(calculation(final_results={"Alma": 1, "Bo": 1, "Eve": 1})),
        "Eve is in final_results and not in",
    ),
    "left out": (encoded(calculation(final_results={"Alma": 1})), "Bo is in roommates and not in final_results"),
    "roommate text": (encoded(calculation(roommates={"Alma": "x", "Bo": {}})), "roommates.Alma is not an object"),
    "days 0": (encoded(calculation(roommates={"Alma": {"days": 0}, "Bo": {}})), "days of Alma is not a number above 0"),
    "days 32": (encoded(calculation(roommates={"Alma": {"days": 32}, "Bo": {}})), "up to 31: 32"),
    "empty name": (encoded(calculation(roommates={" ": {}}, final_results={" ": 1})), "an empty name"),
    "50 MB": (b" " * 50_000_000, "is larger than 1,048,576 bytes"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_each_damage_has_its_reason(damage: str) -> None:
    content, words = DAMAGE[damage]
    assert words in reason(content)


@pytest.mark.parametrize(
    "name", ["2023_13_v1.json", "2023_2_v1.json", "2023_02_v0.json", "2023_02.json", "٢٠٢٣_02_v1.json"]
)
def test_a_name_that_says_no_month_and_version_is_refused(name: str) -> None:
    assert "is not YYYY_MM_vN.json" in reason(encoded(calculation()), name)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=5), children, max_size=3),
    max_leaves=8,
)


@hypothesis_settings(max_examples=400, deadline=None)
@given(st.binary(max_size=300) | JSON.map(lambda value: json.dumps(value).encode()))
def test_any_bytes_are_taken_or_refused_with_a_reason(content: bytes) -> None:
    try:
        told = parse(NAME, content).name
    except BadFileError as exc:
        told = str(exc)
    assert told


@hypothesis_settings(max_examples=400, deadline=None)
@given(st.data())
def test_a_good_file_with_any_part_replaced_is_taken_or_refused_with_a_reason(data: st.DataObject) -> None:
    document = calculation()
    place: Any = document
    key = data.draw(st.sampled_from(sorted(place)))
    while isinstance(place[key], dict) and place[key] and data.draw(st.booleans()):
        place = place[key]
        key = data.draw(st.sampled_from(sorted(place)))
    place[key] = data.draw(JSON)
    try:
        found = parse(NAME, json.dumps(document).encode())
    except BadFileError as exc:
        told = str(exc)
        assert told
        return
    assert all(0 <= share.amount <= 10**11 for share in found.shares)
    assert {share.tenant for share in found.shares} == set(document["final_results"])


@hypothesis_settings(max_examples=200, deadline=None)
@given(st.integers(min_value=0))
def test_a_truncated_file_is_never_taken(cut: int) -> None:
    content = encoded(calculation())
    reason(content[: cut % len(content)])


def test_every_sample_is_taken() -> None:
    files = sorted([*HISTORY.iterdir(), *ODD.iterdir()])
    assert len(files) == 9
    for file in files:
        parse(file.name, file.read_bytes())


def bills(text: str) -> list[tuple[int, str, date, int]]:
    found, bad = electricity.parse(text.encode())
    assert bad == []
    return [(b.line, b.provider, b.bill_date, b.amount) for b in found]


def bad_line(line: str, before: str = "# Vattenfall\n") -> str:
    found, bad = electricity.parse(f"{before}{line}\n".encode())
    assert found == []
    assert [b.line for b in bad] == [before.count("\n") + 1]
    return bad[0].reason


def test_bills_of_the_sample() -> None:
    found, bad = electricity.parse(BILLS.read_bytes())
    assert (len(found), bad, sum(bill.amount for bill in found)) == (8, [], 540298)


def test_the_provider_is_the_headings_and_never_the_amounts() -> None:
    text = (
        "# Historik\n#Vattenfall (nät)\n2025-01-02\t5 kr\n\n# obs: Fortum kommer sen\n2025-02-03 6 kr\r\n"
        "## FORTUM (el)\n2025-01-02 7,50 kr"
    )
    assert bills(text) == [
        (3, "Vattenfall", date(2025, 1, 2), 500),
        (6, "Vattenfall", date(2025, 2, 3), 600),
        (8, "Fortum", date(2025, 1, 2), 750),
    ]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("2025-02-30\t5 kr", "there is no day 2025-02-30"),
        ("2025-13-01\t5 kr", "there is no day"),
        ("1025-01-01\t5 kr", "the year of 1025-01-01 is impossible"),
        ("2025-01-01\t5", "is not an amount in kr: 5"),
        ("2025-01-01\tfem kr", "is not an amount in kr: fem kr"),
        ("2025-01-01\t1 632 kr", "is not an amount in kr"),
        ("2025-01-01\t1,632 kr", "is not an amount in kr"),
        ("2025-01-01\t-5 kr", "is not an amount in kr"),
        ("2025-01-01\tNaN kr", "is not an amount in kr"),
        ("2025-01-01\t0 kr", "is not positive"),
        ("2025-01-01\t999999999999 kr", "is larger than"),
        ("2025-01-01", "is not `YYYY-MM-DD 1632 kr`"),
        ("1/2/2025 5 kr", "is not `YYYY-MM-DD 1632 kr`"),
        ("hej", "is not `YYYY-MM-DD 1632 kr`"),
    ],
)
def test_a_line_that_is_no_bill_is_rejected_with_its_number(line: str, words: str) -> None:
    assert words in bad_line(line)


def test_a_line_before_any_heading_or_below_an_unknown_one_is_rejected() -> None:
    assert bad_line("2025-01-01 5 kr", "# Elfakturor\n\n") == "stands before any heading: the provider is not known"
    for heading in ("# Tibber (el)", "#Tibber", "## Tibber:"):
        assert "heading of Tibber, who is not among Vattenfall, Fortum" in bad_line(
            "2025-01-01 5 kr", f"# Fortum (el)\n{heading}\n"
        )


def test_other_comments_are_skipped_and_leave_the_provider() -> None:
    comments = "# 2024\n# betalda\n# Alla dessa\n#\n# ---\n"
    assert [bill[1] for bill in bills(f"# Fortum\n{comments}2025-01-01 5 kr")] == ["Fortum"]


def test_a_bill_that_is_there_twice_is_rejected_the_second_time() -> None:
    found, bad = electricity.parse(b"# Fortum\n2025-01-01 5 kr\n2025-01-01 5 kr\n2025-01-01 6 kr\n")
    assert len(found) == 1
    assert [(b.line, b.reason) for b in bad] == [
        (3, "Fortum of 2025-01-01 is in line 2 already"), (4, "Fortum of 2025-01-01 is in line 2 already"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "holds no bill"),
        (b"# Fortum\n\n", "holds no bill"),
        ("# Fortum\n2025-01-01 5 kr".encode("utf-16"), "is not UTF-8"),
        ("# Fortum å\n".encode("latin-1"), "is not UTF-8 (byte 10)"),
        (b"# Fortum\n\0", "NUL"),
        (b"2025-01-01 5 kr\n" * 3_200_000, "is larger than 1,048,576 bytes"),
    ],
    ids=["empty", "no bill", "utf-16", "latin-1", "nul", "50 MB"],
)
def test_a_file_that_is_none_of_bills_is_refused_whole(content: bytes, words: str) -> None:
    with pytest.raises(BadFileError) as caught:
        electricity.parse(content)
    assert words in str(caught.value)


@hypothesis_settings(max_examples=400, deadline=None)
@given(st.binary(max_size=200) | st.text(alphabet="# FortumVtenl0123456789-\t\n\rkr,.é", max_size=200).map(str.encode))
def test_every_line_is_in_one_bucket(content: bytes) -> None:
    try:
        found, bad = electricity.parse(content)
    except BadFileError:
        return
    lines = [b.line for b in found] + [b.line for b in bad]
    assert len(lines) == len(set(lines))
    text = content.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n").split("\n")
    assert sorted(lines) == [
        number for number, line in enumerate(text, 1) if line.strip(" \t") and not line.strip(" \t").startswith("#")
    ]


def test_names_of_calculations() -> None:
    assert rent_history.is_calculation("2023_02_v10.json")
    assert not rent_history.is_calculation("2023_02_v10.json.bak")
    assert rent_history.next_month("2022-12") == "2023-01"
