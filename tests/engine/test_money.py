"""Money in the engine: minor units by ISO 4217, numeric of any scale, and currencies that are never added."""

from __future__ import annotations

from decimal import Decimal

import psycopg
import pytest

from runner import money
from tests.engine.words import changes, do, done, make, refused, reverse, rows, value

BILL = """
    create table bill (
        id integer primary key, total numeric(10, 2) not null, currency char(3), rate double precision, note text
    )
"""


@pytest.fixture
def bill(conn: psycopg.Connection) -> psycopg.Connection:
    """Bills of 1 to 6 in EUR, JPY and no currency."""
    make(conn, BILL, "bill")
    do(
        conn,
        """insert into bill select i, i + 0.25, (array['EUR', 'jpy', null])[i % 3 + 1], 0.1
            from generate_series(1, 6) as i""",
        "select backfill.track('bill', p_money => 'total', p_currency => 'currency')",
    )
    conn.commit()
    return conn


def test_python_and_the_database_know_the_same_minor_units(conn: psycopg.Connection) -> None:
    codes = [
        "EUR",
        "JPY",
        "KWD",
        "CLF",
        "UYW",
        "UYI",
        "XAF",
        "TND",
        "CAD/2",
        "BTC/8",
        "USD/0",
        "amounts",
        "",
        "/",
        "€/4",
    ]
    codes += ["BIF", "CLP", "DJF", "GNF", "ISK", "KMF", "KRW", "PYG", "RWF", "UGX", "VND", "VUV", "XOF", "XPF"]
    codes += [
        "JPY void",
        "CAD/4 void",
        "amounts void",
        "BHD",
        "IQD",
        "JOD",
        "LYD",
        "OMR",
        "USD",
        "CHF",
        "SEK",
        "MRU",
        "MGA",
    ]
    found = rows(conn, "select c, backfill.minor_digits(c) from unnest(%s::text[]) as c", [codes])
    assert found == [(code, money.minor_digits(code)) for code in codes]
    assert [digits for code, digits in found if code in ("EUR", "JPY", "KWD", "CLF", "BTC/8")] == [2, 0, 3, 4, 8]


@pytest.mark.parametrize(
    ("minor", "currency", "shown"),
    [
        (123_450, "EUR", "1,234.50"), (0, "EUR", "0.00"), (-5, "EUR", "-0.05"), (900, "JPY", "900"), (-1, "JPY", "-1"),
        (1_234_567, "KWD", "1,234.567"), (1, "BTC/8", "0.00000001"), (Decimal("1234.5"), "EUR", "12.345"),
        (Decimal("0.5"), "JPY", "0.5"), (Decimal(100), "EUR", "1.00"), (Decimal("1E+3"), "EUR", "10.00"),
        (10**30, "amounts", "10,000,000,000,000,000,000,000,000,000.00"), (Decimal("-0.05"), "EUR", "-0.0005"),
    ],
)  # fmt: skip
def test_an_amount_is_shown_in_its_currency_with_all_its_decimals(
    conn: psycopg.Connection, minor: int | Decimal, currency: str, shown: str
) -> None:
    assert money.amount(minor, currency) == shown
    said = value(conn, "select backfill.money_text(jsonb_build_object(%s::text, %s::numeric))", [currency, minor])
    assert said.removesuffix(f" {currency}") == shown.replace(",", "")


def test_sums_of_money(conn: psycopg.Connection) -> None:
    one: money.Money = {"EUR": 5, "JPY": 7}
    other: money.Money = {"EUR": -5, "USD": Decimal("0.5")}
    assert money.add_money(one, other) == {"JPY": 7, "USD": Decimal("0.5")}
    assert money.add_money(None, None) is None
    assert money.add_money({"EUR": 1}, None) == {"EUR": 1}
    assert money.same_money({"EUR": 0}, {})
    assert not money.same_money({"EUR": 1}, {"JPY": 1})
    assert rows(
        conn,
        """select backfill.add_money('{"EUR": 5, "JPY": 7}', '{"EUR": -5, "USD": 0.5}'), backfill.add_money(null, null),
            backfill.same_money('{"EUR": 0}', '{}'), backfill.same_money('{"EUR": 1}', '{"JPY": 1}'),
            backfill.money_text('{"JPY": 900, "EUR": 1234.5}'), backfill.money_text('{}')""",
    ) == [({"JPY": 7, "USD": Decimal("0.5")}, None, True, False, "12.345 EUR, 900 JPY", "0.00")]


def test_control_totals_have_a_sum_for_each_currency(bill: psycopg.Connection) -> None:
    totals = "select row_count, money, finer from backfill.control_totals('{public.bill}')"
    # 3.25 + 6.25 EUR, 1.25 + 4.25 JPY, 2.25 + 5.25 without a currency: a yen has no hundredths.
    assert rows(bill, totals) == [(6, {"EUR": 950, "JPY": Decimal("5.5"), "amounts": 750}, 2)]
    do(bill, "delete from bill")
    assert rows(bill, totals) == [(0, {}, 0)]


def test_a_run_adds_up_to_its_change_in_each_currency(bill: psycopg.Connection) -> None:
    before = rows(bill, "select * from bill order by id")
    run_id = done(
        bill,
        "update bill set total = total + 1 where id in (1, 3)",
        "update bill set currency = 'EUR' where id = 4",  # its amount goes from one currency to another
        "update bill set note = 'x'",
        "delete from bill where id = 6",
        "insert into bill (id, total, currency) values (7, 0.1, 'USD'), (8, 12.5, 'USD'), (9, 99999999.99, 'USD')",
    )
    assert rows(bill, "select * from backfill.run_totals(%s)", [run_id]) == [
        ("public.bill", 3, 9, 1, {"EUR": 100 + 425 - 625, "JPY": 1 - Decimal("4.25"), "USD": 9999999999 + 1260}, 1)
    ]
    columns = "operation, business_key, amount_before, currency_before, amount_after, currency_after"
    assert sorted(changes(bill, run_id, columns))[:2] == [
        ("DELETE", "6", 625, "EUR", None, None),
        ("INSERT", "7", None, None, 10, "USD"),
    ]
    assert ("UPDATE", "4", Decimal("4.25"), "JPY", 425, "EUR") in changes(bill, run_id, columns)
    reverse(bill, run_id)
    assert rows(bill, "select * from bill order by id") == before


@pytest.mark.parametrize(
    ("kind", "currency", "given", "minor"),
    [
        ("smallint", "USD", 125, 125), ("integer", "USD", 125, 125), ("bigint", "CAD/2", 125, 125),
        ("numeric", "USD", Decimal("1.25"), 125), ("numeric(12,3)", "KWD", Decimal("1.125"), 1125),
        ("numeric(20,10)", "JPY", 125, 125), ("price", "USD", Decimal("1.25"), 125), ("whole", "", 125, 125),
    ],
)  # fmt: skip
def test_money_of_every_exact_type(
    conn: psycopg.Connection, kind: str, currency: str, given: int | Decimal, minor: int
) -> None:
    make(conn, "create domain price as numeric(10, 2); create domain whole as integer")
    make(conn, f"create table thing (id integer primary key, cost {kind})")
    do(conn, f"select backfill.track('thing', p_money => 'cost', p_currency => '{currency}')")
    run_id = done(conn, f"insert into thing values (1, {given}), (2, null)")
    expected = {currency or "amounts": minor}
    assert rows(conn, "select money, finer from backfill.run_totals(%s)", [run_id]) == [(expected, 0)]
    assert rows(conn, "select money, finer from backfill.control_totals('{public.thing}')") == [(expected, 0)]


def test_what_is_finer_than_its_currency_or_no_amount_is_counted_and_not_rounded(conn: psycopg.Connection) -> None:
    make(conn, "create table thing (id integer primary key, cost numeric)", "thing")
    do(conn, "select backfill.track('thing', p_money => 'cost', p_currency => 'EUR')")
    run_id = done(conn, "insert into thing values (1, 0.005), (2, 0.0075), (3, 'NaN'), (4, 'Infinity'), (5, 1)")
    expected = [({"EUR": Decimal("101.25")}, 4)]
    assert rows(conn, "select money, finer from backfill.run_totals(%s)", [run_id]) == expected
    assert rows(conn, "select money, finer from backfill.control_totals('{public.thing}')") == expected
    assert changes(conn, run_id, "amount_after") == [(Decimal("0.5"),), (Decimal("0.75"),), (None,), (None,), (100,)]


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ("p_money => 'rate'", "rate is of type double precision, which is not exact: name a generated column"),
        ("p_money => 'note'", "note is of type text: money is smallint, integer or bigint"),
        ("p_money => 'total', p_currency => 'curency'", "no currency column curency, and that is no code"),
        ("p_money => 'total', p_currency => 'rate'", "currency column rate is of type double precision"),
        ("p_currency => 'USD'", "it has a currency, or something void, and no money column"),
        ("p_void => '{note,void}'", "it has a currency, or something void, and no money column"),
        ("p_money => 'total', p_void => '{note}'", "p_void names the column note and no value that means void"),
        ("p_money => 'total', p_void => '{nothing,void}'", "it has no column nothing that is stored"),
        ("p_money => 'nothing'", "it has no money column nothing"),
    ],
)
def test_what_cannot_be_money_is_refused_with_the_way_out(conn: psycopg.Connection, arguments: str, why: str) -> None:
    make(conn, BILL)
    conn.commit()
    with pytest.raises(psycopg.Error) as caught:
        do(conn, f"select backfill.track('bill', {arguments})")
    assert caught.value.sqlstate == "BF002"
    assert why in refused(caught)


def test_the_way_out_of_a_float_is_a_generated_column(conn: psycopg.Connection) -> None:
    make(conn, BILL)
    do(
        conn,
        "alter table bill add column rate_exact numeric generated always as (rate::numeric) stored",
        "select backfill.track('bill', p_money => 'rate_exact')",
    )
    run_id = done(conn, "insert into bill (id, total, rate) values (1, 1, 0.1)")
    assert rows(conn, "select money from backfill.run_totals(%s)", [run_id]) == [({"amounts": 10},)]


def test_money_and_currency_can_be_taken_back(bill: psycopg.Connection) -> None:
    register = "select money, currency_column, currency from backfill.tracked where table_name = 'public.bill'"
    for arguments, expected in (
        ("", ("total", "currency", None)),
        ("p_currency => 'EUR'", ("total", None, "EUR")),
        ("p_currency => ''", ("total", None, None)),
        ("p_currency => 'currency'", ("total", "currency", None)),
        ("p_money => ''", (None, None, None)),
    ):
        do(bill, f"select backfill.track('bill'{', ' + arguments if arguments else ''})")
        assert rows(bill, register) == [expected]
    assert rows(bill, "select row_count, money from backfill.control_totals('{public.bill}')") == [(6, None)]


@pytest.mark.parametrize(
    ("kind", "change", "value_of_one"),
    [
        ("bigint", "alter column cost type numeric(10, 2) using cost / 100.0", "3.00"),
        ("numeric(10, 2)", "alter column cost type bigint using (cost * 100)::bigint", "3"),
        ("numeric(10, 2)", "alter column cost type numeric(14, 4)", "3.0000"),
        ("integer", "alter column cost type bigint", "3"),
    ],
)
def test_minor_units_that_become_units_do_not_multiply_the_past(
    conn: psycopg.Connection, kind: str, change: str, value_of_one: str
) -> None:
    make(conn, f"create table thing (id integer primary key, cost {kind})")
    do(conn, "select backfill.track('thing', p_money => 'cost', p_currency => 'EUR')")
    first = done(conn, "insert into thing values (1, 1), (2, 2)")
    logged = "select metrics -> 'tables' -> 'public.thing' -> 'money' from backfill.backfill_log where run_id = %s"
    before = value(conn, logged, [first])
    do(conn, f"alter table thing {change}")
    conn.commit()
    second = done(conn, "insert into thing values (3, 3)")
    per_unit = 100 if "numeric" in change else 1
    assert rows(conn, "select money from backfill.run_totals(%s)", [second]) == [({"EUR": 3 * per_unit},)]
    assert value(conn, "select cost::text from thing where id = 3") == value_of_one
    assert value(conn, logged, [first]) == before
    # Of the first run it is the same as ever, or, where the unit is another, not said.
    assert rows(conn, "select money from backfill.run_totals(%s)", [first]) in ([(before,)], [({},)])
    assert reverse(conn, second) == {"restored": 1}


def test_a_money_column_that_is_gone_can_be_taken_back(bill: psycopg.Connection) -> None:
    do(bill, "alter table bill drop column total")
    bill.commit()
    with pytest.raises(psycopg.Error) as caught:
        do(bill, "select backfill.begin_run('x')")
    assert "Name another, or none: select backfill.track('public.bill', p_money => '');" in refused(caught)
    bill.rollback()
    do(bill, "select backfill.track('public.bill', p_money => '')")
    run_id = done(bill, "delete from bill")
    assert rows(bill, "select deleted, money from backfill.run_totals(%s)", [run_id]) == [(6, None)]


def test_what_is_void_is_counted_apart(bill: psycopg.Connection) -> None:
    do(
        bill,
        "update bill set note = 'sent'",
        "update bill set note = 'void' where id in (2, 3)",
        "select backfill.track('bill', p_void => '{note,void,cancelled}')",
    )
    bill.commit()
    before = rows(bill, "select * from bill order by id")
    totals = "select backfill.money_text(money) from backfill.control_totals('{public.bill}')"
    assert value(bill, totals) == "6.25 EUR, 3.25 EUR void, 5.5 JPY, 5.25, 2.25 void"
    run_id = done(
        bill,
        "update bill set note = 'cancelled' where id in (1, 6)",
        "update bill set note = 'sent' where id = 3",
        "delete from bill where id = 2",
        "insert into bill (id, total, currency, note) values (7, 8, 'EUR', 'void')",
    )
    assert rows(bill, "select backfill.money_text(money) from backfill.run_totals(%s)", [run_id]) == [
        ("-3.00 EUR, 11.00 EUR void, -1.25 JPY, 1.25 JPY void, -2.25 void",)
    ]
    assert ("6", "EUR", "EUR void") in changes(bill, run_id, "business_key, currency_before, currency_after")
    do(bill, "alter table bill rename column note to state")
    assert value(bill, "select void from backfill.tracked where table_name = 'public.bill'")[0] == "note"
    done(bill, "update bill set state = 'sent' where id = 5")
    assert value(bill, "select void from backfill.tracked where table_name = 'public.bill'")[0] == "state"
    reverse(bill, run_id)
    assert rows(bill, "select * from bill order by id") == before


def test_the_currency_follows_its_column(bill: psycopg.Connection) -> None:
    first = done(bill, "update bill set total = total + 1 where id = 3")
    do(bill, "alter table bill rename column currency to iso", "alter table bill rename column total to sum")
    second = done(bill, "update bill set sum = sum + 1 where id = 3")
    for run_id in (second, first):
        assert rows(bill, "select money from backfill.run_totals(%s)", [run_id]) == [({"EUR": 100},)]
        assert changes(bill, run_id, "currency_after") == [("EUR",)]
        assert reverse(bill, run_id) == {"restored": 1}


REGISTER = """select backfill.register(
    'fill', 'test', 'a test', 1, 'public.due', 'public.fill', '{public.bill}', 'public.rejected')"""


def test_money_follows_a_restore_in_which_columns_were_renamed(bill: psycopg.Connection) -> None:
    do(
        bill,
        "select backfill.track('bill', p_void => '{note,void}')",
        # As a restore leaves it: the numbers that were noted hold no more.
        "update backfill.tracked set anchor = 1 where table_name = 'public.bill'",
        "alter table bill rename column total to sum",
        "alter table bill rename column currency to iso",
        "alter table bill rename column note to state",
    )
    bill.commit()
    do(bill, """select backfill.rebind('bill', '{"total": "sum", "currency": "iso", "note": "state"}')""")
    register = "select money, currency_column, void from backfill.tracked where table_name = 'public.bill'"
    assert rows(bill, register) == [("sum", "iso", ["state", "void"])]
    run_id = done(bill, "update bill set state = 'void' where id = 3")
    assert rows(bill, "select money from backfill.run_totals(%s)", [run_id]) == [({"EUR": -325, "EUR void": 325},)]
    assert reverse(bill, run_id) == {"restored": 1}


VIEWS = {
    "cents": ("id, (total * 100)::bigint as cents, currency", {"EUR": 950, "JPY": 550, "amounts": 750}),
    "amount": ("id, total as amount, currency", {"EUR": 950, "JPY": Decimal("5.5"), "amounts": 750}),
    "no currency": ("id, total as amount", {"amounts": 2250}),
    "no money": ("id", None),
}


@pytest.mark.parametrize("case", VIEWS)
def test_what_is_due_is_counted_by_currency(bill: psycopg.Connection, case: str) -> None:
    columns, expected = VIEWS[case]
    do(
        bill,
        f"create view due as select {columns} from bill where note is null",
        f"""create view rejected as
            select 'bill' as source, id::text as source_key, null::bigint as line, 'x' as reason,
                '{{}}'::jsonb as payload{columns.removeprefix("id")}
            from bill where false""",
        """create function fill(jsonb) returns jsonb language sql as
            $$update public.bill set note = 'x' where note is null; select '{}'::jsonb$$""",
        REGISTER,
    )
    assert rows(bill, "select due_rows, due_money from backfill.due('{fill}')") == [(6, expected)]
    assert value(bill, "select metrics -> 'due' from backfill.run('fill')") == {"rows": 6, "money": expected}
    left: money.Money | None = None if expected is None else {}
    assert rows(bill, "select due_rows, due_money from backfill.still_due('fill')") == [(0, left)]


@pytest.mark.parametrize(
    ("columns", "why"),
    [
        ("id, total as cents", "public.due.cents is numeric, wanted is bigint"),
        ("id, 1 as amount", "public.due.amount is integer, wanted is numeric"),
        (
            "id, 1::bigint as cents, now() as currency",
            "public.due.currency is timestamp with time zone",
        ),
    ],
)
def test_a_due_view_whose_money_is_none_is_refused(bill: psycopg.Connection, columns: str, why: str) -> None:
    do(
        bill,
        f"create view due as select {columns} from bill",
        "create function fill(jsonb) returns jsonb language sql as $$select '{}'::jsonb$$",
    )
    with pytest.raises(psycopg.Error) as caught:
        do(bill, "select backfill.register('fill', 'test', 'a test', 1, 'public.due', 'public.fill', '{public.bill}')")
    assert caught.value.sqlstate == "BF006"
    assert why in refused(caught)


def test_a_rejected_amount_keeps_its_currency(bill: psycopg.Connection) -> None:
    do(
        bill,
        "create view due as select id from bill where false",
        """create view rejected as select 'bill' as source, id::text as source_key, null::bigint as line, 'x' as reason,
            total as amount, currency, '{}'::jsonb as payload from bill where id in (1, 2, 3)""",
        "create function fill(jsonb) returns jsonb language sql as $$select '{}'::jsonb$$",
        REGISTER,
        "select backfill.run('fill', '{}', 3)",
    )
    assert rows(bill, "select source_key, amount, currency from backfill.reject order by 1") == [
        ("1", Decimal("1.25"), "JPY"), ("2", 225, None), ("3", 325, "EUR"),
    ]  # fmt: skip
