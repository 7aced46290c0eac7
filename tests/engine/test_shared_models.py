"""Models that several gates read: computed once where that saves work, with the gates' own words where it cannot be."""

from __future__ import annotations

from dataclasses import replace

import psycopg
import pytest
from psycopg import sql

from runner import gates, shared_models
from runner.gates import Gate
from runner.shared_models import Model, share
from tests.engine.gating import gate
from tests.engine.words import Connection, do, rows, value

ORDERS = """
    create table orders (id int primary key, customer int, cents bigint);
    insert into orders select i, i % 700, i % 1000 from generate_series(1, 200000) as i;
    create index on orders (customer);
    analyze orders;
"""
STAGED = Model("staged", "__dbt__cte__staged as (\nselect id, customer, cents from orders\n)", ())
SUMS = Model(
    "sums", "__dbt__cte__sums as (\nselect customer, sum(cents) as cents from __dbt__cte__staged group by 1 -- all\n)",
    ("staged",),
)  # fmt: skip


@pytest.fixture
def shop(conn: Connection) -> Connection:
    do(conn, *filter(str.strip, ORDERS.split(";")))
    return conn


def reading(name: str, text: str, *models: Model) -> Gate:
    """A gate as dbt compiles it: the models, then what the test itself says about the last of them."""
    parts = ",  ".join(model.sql for model in models)
    return replace(gate(f"with {parts} {text}"), name=name, models=models, uses=(models[-1].name,))


def two(text: str = "select * from __dbt__cte__sums where cents {} 0", *models: Model) -> tuple[Gate, Gate]:
    """Two gates over the same models."""
    models = models or (STAGED, SUMS)
    return reading("below", text.format("<"), *models), reading("at", text.format("="), *models)


def temporary(conn: Connection) -> list[str]:
    """The tables that were made for gates, without the number in their names."""
    found = rows(
        conn,
        "select relname::text from pg_class where starts_with(relname, 'shared_') and relkind = 'r' order by 1",
    )
    return [name.split("_", 2)[2] for (name,) in found]


def test_what_two_gates_group_is_computed_once(shop: Connection) -> None:
    texts = share(shop, two())
    assert temporary(shop) == ["sums"]  # and not the staged rows: reading alone is not worth a copy
    for text in texts:
        assert "group by" not in text
        assert rows(shop, text) == []
    assert value(shop, "select count(*) from pg_temp.shared_0_sums") == 700
    shop.commit()
    assert temporary(shop) == []


@pytest.mark.parametrize(
    ("what", "given"),
    {
        "one gate alone": two()[:1],
        "each asks for one customer": two("select * from __dbt__cte__sums where customer = 7 and cents {} 0"),
        "each only reads": two("select * from __dbt__cte__staged where cents {} -1", STAGED),
    }.items(),
)
def test_what_saves_nothing_is_left_as_it_was_compiled(
    shop: Connection, what: str, given: tuple[Gate, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_models, "WORTH", 0)
    assert share(shop, given) == [each.sql for each in given], what
    assert temporary(shop) == []


def test_little_work_is_left_as_it_was_compiled(shop: Connection) -> None:
    do(shop, "truncate orders", "analyze orders")
    assert share(shop, two()) == [each.sql for each in two()]


def test_a_model_of_a_model_that_is_shared_is_computed_once(shop: Connection) -> None:
    """Of two that follow each other only the last, unless somebody else reads the first."""
    ranks = Model(
        "ranks", "__dbt__cte__ranks as (\nselect *, rank() over (order by cents) from __dbt__cte__sums\n)", ("sums",)
    )
    pair = two("select * from __dbt__cte__ranks where cents {} -1", STAGED, SUMS, ranks)
    with shop.transaction(force_rollback=True):
        share(shop, pair)
        assert temporary(shop) == ["ranks"]
    texts = share(shop, (*pair, *two()))
    assert temporary(shop)[0] == "sums"
    assert all("group by" not in text for text in texts)


def test_a_model_may_not_write(shop: Connection) -> None:
    do(
        shop,
        "create table kept (x bigint)",
        "create function leak(bigint) returns bigint language sql as 'insert into kept values ($1) returning x'",
    )
    leaking = Model("sums", SUMS.sql.replace("sum(cents)", "leak(sum(cents)::bigint)"), ("staged",))
    results = gates.run(shop, two("select * from __dbt__cte__sums where cents {} 0", STAGED, leaking), ["charges"])
    assert {result.message for result in results} == {"cannot execute INSERT in a read-only transaction"}
    assert value(shop, "select count(*) from kept") == 0


@pytest.mark.parametrize(
    "body",
    [
        "select 1 as cents) select 1; commit; create table written (x int); select (1",
        "select 1 as cents)) as model; commit; create table written (x int); --",
        "select 1 / (id - id) as cents from orders group by id",
        "select cents, cents from orders group by cents",
    ],
)
def test_a_model_that_fails_is_told_by_its_gates(shop: Connection, body: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_models, "WORTH", 0)
    model = Model("sums", f"__dbt__cte__sums as (\n{body}\n)", ())
    given = two("select * from __dbt__cte__sums where cents {} -1", model)
    alone = [result for each in given for result in gates.run(shop, (each,), ["charges"])]
    together = gates.run(shop, given, ["charges"])
    assert [(r.status, r.message) for r in together] == [(r.status, r.message) for r in alone]
    assert {r.status for r in alone} == {"error"}
    do(shop, "create table kept (x int)")
    shop.rollback()
    assert value(shop, "select to_regclass('kept') is null and to_regclass('written') is null")


def test_who_may_make_no_temporary_table_has_the_same_verdict(shop: Connection) -> None:
    shop.execute(sql.SQL("revoke temporary on database {} from public").format(sql.Identifier(shop.info.dbname)))
    do(shop, "create role reader_alone", "grant select on orders to reader_alone", "set local role reader_alone")
    assert share(shop, two()) == [each.sql for each in two()]
    assert [result.status for result in gates.run(shop, two(), ["charges"])] == ["pass", "pass"]


def test_settings_are_those_of_before(shop: Connection) -> None:
    ask = """select name, setting from pg_settings
        where name in ('enable_nestloop', 'jit', 'work_mem', 'hash_mem_multiplier', 'transaction_read_only')"""
    before = rows(shop, ask)
    share(shop, two())
    assert rows(shop, ask) == before


def test_a_cancel_is_no_verdict(shop: Connection) -> None:
    slow = Model("sums", SUMS.sql.replace("select customer,", "select customer, pg_sleep(1)::text,"), ("staged",))
    do(shop, "set local statement_timeout = 300")
    with pytest.raises(psycopg.errors.QueryCanceled):
        share(shop, two("select * from __dbt__cte__sums where cents {} 0", STAGED, slow))
