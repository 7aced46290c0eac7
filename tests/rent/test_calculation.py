"""rent.record_calculation: exact shares, versions, what is refused; rent.explain: one row that says why."""

from __future__ import annotations

import json
from decimal import Decimal
from fractions import Fraction
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from tests.engine.words import Connection, do, refused, rows, value
from tests.rent.flat import furnish

COSTS = {"kallhyra": 20000, "el": 1201, "bredband": 400}
RECORD = "select tenant, amount, amount_due, written from rent.record_calculation(%s, %s, %s, %s)"


@pytest.fixture
def flat(conn: Connection) -> Connection:
    furnish(conn)
    return conn


def record(conn: Connection, period: str, roommates: object, config: object = COSTS, title: str | None = None) -> Any:
    return rows(conn, RECORD, [period, json.dumps(roommates), json.dumps(config), title])


def test_shares_by_days_of_the_month_after_the_calculations(flat: Connection) -> None:
    # 20,000 + 1,201 + 400 + 300 + 300 + 100 = 22,301 kr, lived in March: 31 + 31 + 31 + 15.5 days
    people = {"Alma": {}, "Bo": {"days": 31}, "Åsa": {}, "Dag": {"days": 15.5}}
    assert record(flat, "2023-02", people, title="March") == [
        ("Alma", 637200, 637200, True),
        ("Bo", 637200, 637200, True),
        ("Dag", 318600, 318600, True),
        ("Åsa", 637100, 637100, True),
    ]
    assert rows(
        flat,
        "select tenant, days_stayed, room_adjustment, base_monthly_rent, calculation_title, calculation_version,"
        " calculation_date = now(), currency from rent.rent_ledger where tenant in ('Dag', 'Åsa') order by 1",
    ) == [
        ("Dag", Decimal("15.5"), 0, 500000, "March", 1, True, "SEK"),
        ("Åsa", Decimal(31), 0, 500000, "March", 1, True, "SEK"),
    ]


def test_the_given_values_land_in_rent_config_in_the_same_run(flat: Connection) -> None:
    record(flat, "2023-02", {"Alma": {}})
    assert rows(flat, "select key, value from rent.rent_config where period = '2023-02' order by 1") == [
        ("bredband", 40000), ("el", 120100), ("kallhyra", 2000000),
    ]  # fmt: skip
    assert rows(
        flat,
        "select h.table_name, count(*), count(distinct h.run_id), min(l.status), min(l.mode)"
        " from backfill.change_log as h join backfill.backfill_log as l using (run_id) group by 1 order by 1",
    ) == [
        ("rent.calculation", 1, 1, "succeeded", "manual"),
        ("rent.rent_config", 3, 1, "succeeded", "manual"),
        ("rent.rent_ledger", 1, 1, "succeeded", "manual"),
    ]


def test_a_key_that_is_not_given_is_the_latest_earlier_value(flat: Connection) -> None:
    do(
        flat,
        "insert into rent.rent_config (key, period, value) values ('va', '2023-02', 1000), ('va', '2023-03', 9000)",
    )
    record(flat, "2023-02", {"Alma": {}}, {**COSTS, "bredband": None, "kallhyra": 20000} | {"bredband": 400, "larm": 0})
    used = value(flat, "select used from rent.calculation")
    assert used["va"] == {"ore": 1000, "from": "2023-02"}
    assert used["vattenavgift"] == {"ore": 30000, "from": "2022-10"}
    assert used["larm"] == {"ore": 0, "from": "given"}
    assert used["gas"] == {"ore": 0, "from": "none"}
    # a month later with nothing but el: all the rest is carried
    record(flat, "2023-03", {"Alma": {}}, {"el": 1})
    carried = value(flat, "select used from rent.calculation where period = '2023-03'")
    assert carried["kallhyra"] == {"ore": 2000000, "from": "2023-02"}
    assert carried["va"] == {"ore": 9000, "from": "2023-03"}


def test_the_quarterly_invoice_replaces_three_costs_and_is_never_carried_over(flat: Connection) -> None:
    record(flat, "2023-02", {"Alma": {}}, {**COSTS, "drift_rakning": 2600})
    assert value(flat, "select total from rent.calculation") == (20000 + 1201 + 400 + 2600) * 100
    record(flat, "2023-03", {"Alma": {}}, {"el": 1201})
    assert value(flat, "select total from rent.calculation where period = '2023-03'") == (21601 + 700) * 100
    record(flat, "2023-04", {"Alma": {}}, {"el": 1201, "drift_rakning": 0})
    assert value(flat, "select total from rent.calculation where period = '2023-04'") == (21601 + 700) * 100


def test_gas_adds_and_balances_subtract(flat: Connection) -> None:
    record(flat, "2023-02", {"Alma": {}}, {**COSTS, "gas": 83.5, "saldo_innan": 400, "extra_in": 50.25})
    assert value(flat, "select total from rent.calculation") == 2230100 + 8350 - 40000 - 5025
    assert value(flat, "select amount_due from rent.rent_ledger") == 2193500  # 21,934.25 rounded up


def test_an_adjustment_is_prorated_and_redistributed(flat: Connection) -> None:
    # 22,301 kr; Bo's -1,400 counts by half: the others bear 700 by their days.
    people = {"Alma": {}, "Bo": {"days": 15.5, "room_adjustment": -1400}}
    shares = rows(
        flat, "select tenant, share, amount from rent.record_calculation('2023-02', %s, %s)",
        [json.dumps(people), json.dumps(COSTS)],
    )  # fmt: skip
    assert shares == [("Alma", Decimal("15334.0000"), 1533400), ("Bo", Decimal("6967.0000"), 696700)]


def test_without_an_adjustment_the_tenants_standing_one_counts_and_null_is_none(flat: Connection) -> None:
    do(flat, "update rent.tenants set room_adjustment = -100000 where name = 'Bo'")
    assert [row[1] for row in record(flat, "2023-02", {"Alma": {}, "Bo": {}})] == [1165100, 1065000]
    same = record(flat, "2023-03", {"Alma": {}, "Bo": {"room_adjustment": None}}, {"el": 1201})
    assert [row[1] for row in same] == [1115100, 1115000]


def test_a_later_calculation_is_a_new_version_and_the_ledger_keeps_what_was_billed(flat: Connection) -> None:
    record(flat, "2023-02", {"Alma": {}, "Bo": {}}, title="first")
    billed = rows(flat, "select * from rent.rent_ledger order by tenant")
    again = record(flat, "2023-02", {"Alma": {}, "Bo": {}, "Dag": {"days": 15.5}}, {**COSTS, "el": 1500}, "second")
    assert [(row[0], row[3]) for row in again] == [("Alma", False), ("Bo", False), ("Dag", True)]
    assert rows(flat, "select * from rent.rent_ledger where tenant <> 'Dag' order by tenant") == billed
    assert rows(flat, "select version, title, total from rent.calculation order by 1") == [
        (1, "first", 2230100), (2, "second", 2260000),
    ]  # fmt: skip
    assert value(flat, "select calculation_version from rent.rent_ledger where tenant = 'Dag'") == 2


def test_the_calculation_of_the_month_before_over_the_years_end(flat: Connection) -> None:
    record(flat, "2023-01", {"Alma": {"days": 31}}, {**COSTS, "year": 2022, "month": 12})
    assert value(flat, "select calculation_month from rent.calculation") == "2022-12"
    record(flat, "2023-02", {"Alma": {"days": 28}}, {**COSTS, "month": 1})
    assert value(flat, "select days_of_month from rent.explain('Alma', '2023-02')") == 28
    with pytest.raises(psycopg.Error, match="neither 2023-05 nor the month before"):
        record(flat, "2023-05", {"Alma": {}}, {**COSTS, "year": 2023, "month": 3})


@pytest.mark.parametrize(
    ("period", "roommates", "config", "message"),
    [
        ("2023-13", {"Alma": {}}, COSTS, "period '2023-13' is not YYYY-MM"),
        (None, {"Alma": {}}, COSTS, "period null is not YYYY-MM"),
        ("2023-02", {}, COSTS, "at least one name"),
        ("2023-02", ["Alma"], COSTS, "at least one name"),
        ("2023-02", {"Eve": {}}, COSTS, "there is no tenant 'Eve'"),
        ("2021-01", {"Åsa": {}}, COSTS, "Åsa did not live there in 2021-01"),
        ("2023-02", {"Alma": 5}, COSTS, "Alma: 5  is no object"),
        ("2023-02", {"Alma": {"day": 5}}, COSTS, "day is neither days nor room_adjustment"),
        ("2023-02", {"Alma": {"days": 31.5}}, COSTS, "Alma: 31.5 days of the 31 days of 2023-03"),
        ("2023-02", {"Alma": {"days": 0}}, COSTS, "Alma: 0 days"),
        ("2023-02", {"Alma": {"days": "5"}}, COSTS, "days is no number"),
        ("2023-02", {"Alma": {"room_adjustment": 0.001}}, COSTS, "at most two decimals"),
        ("2023-02", {"Alma": {}}, {**COSTS, "drift": 1}, "config holds 'drift', which no rule knows"),
        ("2023-02", {"Alma": {}}, {**COSTS, "el": "1201"}, "el is no number"),
        ("2023-02", {"Alma": {}}, {**COSTS, "el": 1e30}, "el is no amount in kronor"),
        ("2023-02", {"Alma": {}}, {"el": 1}, "kallhyra, bredband is not given, and rent_config knows no earlier value"),
        ("2023-02", {"Alma": {}}, {**COSTS, "saldo_innan": 30000}, "a share would be negative"),
        ("2023-02", {"Alma": {}, "Bo": {"room_adjustment": -25000}}, COSTS, "a share would be negative"),
    ],
)
def test_what_is_refused_leaves_nothing(
    flat: Connection, period: str, roommates: object, config: object, message: str
) -> None:
    with pytest.raises(psycopg.Error) as caught:
        record(flat, period, roommates, config)
    assert message in refused(caught)
    assert caught.value.sqlstate == "BF022"
    flat.rollback()
    assert rows(flat, "select 1 from rent.calculation union all select 1 from backfill.backfill_log") == []


def test_it_joins_an_open_run_and_its_reversal_takes_all_back(flat: Connection) -> None:
    before = rows(flat, "select key, period, value from rent.rent_config order by 1, 2")
    run_id = value(flat, "select backfill.begin_run('two months')")
    record(flat, "2023-02", {"Alma": {}})
    record(flat, "2023-03", {"Alma": {}})
    do(flat, "select backfill.finish_run()")
    flat.commit()
    assert value(flat, "select count(*) from backfill.backfill_log") == 1
    do(flat, f"select backfill.reverse_run('{run_id}')")
    assert rows(flat, "select 1 from rent.rent_ledger union all select 1 from rent.calculation") == []
    assert rows(flat, "select key, period, value from rent.rent_config order by 1, 2") == before


def test_explain_is_one_row_that_says_what_when_by_whom_and_why(flat: Connection) -> None:
    people = {"Alma": {}, "Dag": {"days": 15.5, "room_adjustment": -200}}
    record(flat, "2023-02", people, title="March 2023 - With Dag")
    flat.commit()
    (row,) = rows(
        flat,
        "select amount_due, lived_in, days_stayed, days_of_month, inputs, roommates, used -> 'va', source, run_id,"
        " recorded_by, calculated_amount, explanation from rent.explain('Dag', '2023-02')",
    )
    assert row[:4] == (736700, "2023-03", Decimal("15.5"), 31)
    assert row[4] == COSTS
    assert row[5] == people
    assert row[6] == {"ore": 30000, "from": "2022-10"}
    assert row[7] == "rent.record_calculation"
    assert row[8] == value(flat, "select run_id from backfill.backfill_log")
    assert row[9] == value(flat, "select session_user")
    assert row[10] == 736700
    for part in ("Dag was billed 7,367 kr for 2023-02, lived in 2023-03", "15.5 of 31 days", "room adjustment -200 kr",
                 "base rent 10000 kr (kallhyra by 2 roommates)", "version 1: March 2023 - With Dag",
                 "cost of the month 22301 kr"):  # fmt: skip
        assert part in row[11]
    assert rows(flat, "select 1 from rent.explain('Dag', '2023-03')") == []


def test_explain_of_a_row_without_a_calculation_says_so(flat: Connection) -> None:
    do(flat, "insert into rent.rent_ledger (tenant, period, amount_due) values ('Alma', '2020-02', 700050)")
    explained = value(flat, "select explanation from rent.explain('Alma', '2020-02')")
    assert explained == "Alma was billed 7,000.50 kr for 2020-02; no calculation is known"


@hypothesis_settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    total=st.integers(min_value=0, max_value=10_000_000),
    month=st.integers(min_value=28, max_value=31),
    people=st.lists(
        st.tuples(st.integers(min_value=1, max_value=56), st.integers(min_value=-300_000, max_value=300_000)),
        min_size=1, max_size=8,
    ),
)  # fmt: skip
def test_shares_are_exact_and_sum_to_the_total_rounded_up(
    conn: Connection, total: int, month: int, people: list[tuple[int, int]]
) -> None:
    given = {f"P{i}": {"days": halves / 2, "ore": ore} for i, (halves, ore) in enumerate(people)}
    found = {row[0]: row[1:] for row in rows(
        conn, "select tenant, share, amount from rent.shares(%s, %s, %s)", [total, month, json.dumps(given)]
    )}  # fmt: skip
    # The rule once more, in fractions.
    weights = {name: Fraction(halves, 2 * month) for name, (halves, _) in zip(given, people, strict=True)}
    prorated = {name: ore * weights[name] for name, (_, ore) in zip(given, people, strict=True)}
    left = total - sum(prorated.values())
    exact = {name: left * weights[name] / sum(weights.values()) + prorated[name] for name in given}
    assert sum(exact.values()) == total
    if all(share >= 0 for share in exact.values()):  # the caller refuses others
        for name, (share, amount) in found.items():
            assert abs(Fraction(share) * 100 - exact[name]) <= Fraction(1, 100)
            assert amount % 100 == 0
            assert abs(amount - exact[name]) <= 100  # never more than one krona away
        assert sum(amount for _, amount in found.values()) == -(-total // 100) * 100
