"""How a backfill is planned: for many rows, whoever wrote it, and by what is there rather than by what was."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from runner import gates
from runner.database import connect
from runner.planning import analyze_again, plan_for_many
from runner.settings import Settings
from runner.shared_models import share
from tests.engine.words import Connection, do, make, rows, value
from tests.story import run, sql

SHOP = """
    create table orders (order_no int primary key, customer text, cents bigint);
    create table deposits (order_no int primary key, kind text, customer text, cents bigint);
    create view deposits_due as
        select o.customer, o.order_no, o.cents
        from (
            select customer, max(order_no) as order_no, sum(cents)::bigint as cents from orders
            group by customer having min(customer) ~ '^c[0-9]+$'
        ) as o
        where not exists (select from deposits as d where d.kind = 'deposit' and d.customer = o.customer);
    create function deposit(jsonb) returns jsonb language plpgsql as $$
        begin
            insert into public.deposits select order_no, 'deposit', customer, cents from public.deposits_due;
            return jsonb_build_object('loops', current_setting('enable_nestloop'), 'jit', current_setting('jit'));
        end; $$;
    insert into deposits values (-1, 'refund', 'nobody', 0);
"""
REGISTER = """select backfill.register(
    'deposits', 'shop', 'Deposits', 1000, 'public.deposits_due', 'public.deposit', '{public.deposits}')"""


@pytest.fixture
def shop(conn: psycopg.Connection) -> psycopg.Connection:
    """A backfill of somebody's own; when the planner looked last there was one row, and no deposit."""
    make(conn, SHOP, "deposits")
    do(conn, REGISTER, "analyze orders, deposits")
    conn.commit()
    return conn


def order(conn: Connection, number: int) -> None:
    do(conn, f"insert into orders select i, 'c' || i, i from generate_series(1, {number}) as i")
    conn.commit()


def guessed(conn: Connection) -> int:
    """The number of rows by which the planner plans."""
    return int(value(conn, "select reltuples from pg_class where oid = 'deposits'::regclass"))


def removed(plan: dict[str, Any]) -> float:
    """Rows that loops compared in vain, in a plan that was run."""
    own: float = plan.get("Rows Removed by Join Filter", 0) * plan["Actual Loops"]
    return own + sum(removed(part) for part in plan.get("Plans", ()))


def compared_in_vain(conn: Connection, query: str) -> float:
    return removed(value(conn, f"explain (analyze, timing off, format json) {query}")[0]["Plan"])


def test_a_function_of_ones_own_is_planned_for_many_rows_unless_it_says_otherwise(shop: psycopg.Connection) -> None:
    before = value(shop, "select current_setting('enable_nestloop')")
    assert rows(shop, "select metrics -> 'loops', metrics -> 'jit' from backfill.run('deposits')") == [("off", "off")]
    do(shop, "alter function deposit(jsonb) set enable_nestloop = on")
    assert value(shop, "select metrics -> 'loops' from backfill.run('deposits')") == "on"
    assert value(shop, "select current_setting('enable_nestloop')") == before


def test_what_a_run_wrote_is_known_to_what_comes_next(shop: psycopg.Connection) -> None:
    order(shop, 10_000)
    do(shop, "select from backfill.run('deposits')")
    assert guessed(shop) == 10_001
    assert value(shop, "select n_distinct from pg_stats where tablename = 'deposits' and attname = 'kind'") == 2
    shop.commit()
    # Autovacuum still counts all of it as new.
    do(shop, "select pg_stat_force_next_flush()")
    shop.commit()
    assert value(shop, "select pg_stat_get_mod_since_analyze('deposits'::regclass)") >= 10_000


def test_a_few_rows_are_not_worth_it(shop: psycopg.Connection) -> None:
    order(shop, 9_999)
    before = guessed(shop)
    do(shop, "select from backfill.run('deposits')")
    assert guessed(shop) == before


def test_a_table_that_the_caller_may_not_analyze_is_passed_over_without_a_word(shop: psycopg.Connection) -> None:
    said: list[str] = []
    shop.add_notice_handler(lambda notice: said.append(str(notice.message_primary)))
    do(
        shop,
        "create role keeper",
        "grant usage on schema backfill to keeper",
        "grant select on backfill.tracked to keeper",
        "grant execute on function backfill.analyze_tables(text[]) to keeper",
    )
    before = guessed(shop)
    do(
        shop,
        "insert into deposits values (1, 'deposit', 'c1', 1)",
        "set local role keeper",
        "select backfill.analyze_tables('{public.deposits}')",
        "reset role",
    )
    assert (guessed(shop), said) == (before, [])
    do(
        shop,
        "alter table deposits owner to keeper",
        "set local role keeper",
        "select backfill.analyze_tables('{public.deposits}')",
        "reset role",
    )
    assert (guessed(shop), said) == (2, [])


def test_a_table_that_somebody_holds_is_passed_over(shop: psycopg.Connection, database_url: str) -> None:
    with psycopg.connect(database_url) as other:
        other.execute("lock table deposits in share update exclusive mode")
        before = guessed(shop)
        do(
            shop,
            "insert into deposits values (1, 'deposit', 'c1', 1)",
            "select backfill.analyze_tables('{public.deposits}')",
        )
        assert guessed(shop) == before
        other.rollback()
    do(shop, "select backfill.analyze_tables('{public.deposits}')")
    assert guessed(shop) == 2


FLATS = """
    insert into property.units (rent_amount_cents) select 100000 + g from generate_series(1, 500) as g;
    insert into property.payments (tenant_user_id, unit_id, amount_cents, payment_method, status, billing_period)
    select 't' || u.id, u.id, u.rent_amount_cents, 'ach', 'succeeded',
        to_char(date '2019-01-01' + m * interval '1 month', 'YYYY-MM')
    from property.units as u cross join generate_series(0, 7) as m;
    analyze property.units, property.payments, property.charges
"""
"""4,000 payments, each with a period of its own: a loop over them compares two million rows, or sixteen."""


def settings_of(conn: Connection, function: str) -> list[str]:
    found: list[str] = value(conn, "select proconfig from pg_proc where oid = %s::regprocedure", [function])
    return found


def test_what_is_due_is_not_compared_with_every_row_of_a_table(shop: psycopg.Connection) -> None:
    """Nor what is rejected: as a session plans by itself, there is something to be kept from."""
    order(shop, 4_000)
    do(shop, "select from backfill.run('deposits')")
    assert compared_in_vain(shop, "select * from deposits_due") > 1_000_000
    plans = settings_of(shop, "backfill.still_due(text)")
    assert plans == settings_of(shop, "backfill.new_rejects(text)")
    for setting in plans:
        shop.execute("select set_config(%s, %s, true)", setting.split("=", 1))
    assert compared_in_vain(shop, "select * from public.deposits_due") < 100_000


def test_gates_compare_nothing_with_every_row_of_a_table(conn: psycopg.Connection) -> None:
    do(conn, *FLATS.split(";"))
    conn.commit()
    do(conn, "select from backfill.run('charges')")
    compiled = [gate for gate in gates.compile(Settings(systems=("charges",))) if "charges" in gate.backfills]
    assert len(compiled) > 5
    with conn.transaction(force_rollback=True):
        texts = share(conn, compiled)
        plan_for_many(conn)
        for gate, text in zip(compiled, texts, strict=True):
            assert compared_in_vain(conn, text) < 100_000, gate.name


def test_a_rehearsal_leaves_the_number_of_rows_that_are_there(database_url: str) -> None:
    """ANALYZE writes it past the transaction: ten thousand charges that never were would be planned for."""
    sql(database_url, *FLATS.replace("(0, 7)", "(0, 19)").split(";"))
    report = run(database_url, "apply", "charges", "--dry-run", "--json").json
    assert report["attempt"]["backfills"][0]["due_rows"] == 10_000
    assert sql(database_url, "select reltuples from pg_class where oid = 'property.charges'::regclass") == [(0,)]


def test_so_does_one_before_the_engine_is_there(empty_settings: Settings) -> None:
    url = empty_settings.conninfo
    sql(url, 'create table "Odd ""name" (id int)', 'insert into "Odd ""name" values (1), (2)', 'analyze "Odd ""name"')
    sql(url, 'delete from "Odd ""name" where id = 1')
    with connect(empty_settings) as conn:
        analyze_again(conn, empty_settings, ['public."Odd ""name"', "gone.away"])
    assert sql(url, "select reltuples from pg_class where relname = 'Odd \"name'") == [(1,)]
