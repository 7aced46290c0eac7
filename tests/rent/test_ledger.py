"""The ledger is immutable, and a closed month refuses everything."""

from __future__ import annotations

import threading

import psycopg
import pytest

from runner import database, migrations
from runner.errors import translate
from runner.settings import Settings
from tests.engine.words import Connection, do, done, refusal, reverse, rows, run, value
from tests.place import ROOT
from tests.rent.flat import TENANTS, ask, furnish, runner

BILLED = "insert into rent.rent_ledger (tenant, period, amount_due) values ('Alma', '2023-02', 700000)"
EXPLAIN = (
    "update rent.rent_ledger set days_stayed = 28, room_adjustment = 0, base_monthly_rent = 600000,"
    " calculation_title = 'x', calculation_date = '2023-02-01 10:00+00', calculation_version = 1"
)


@pytest.fixture
def flat(conn: Connection) -> Connection:
    furnish(conn)
    done(conn, BILLED)
    return conn


def refuse(conn: Connection, sql: str, sqlstate: str) -> str:
    """The message with which a statement is refused; what was open before stays."""
    with pytest.raises(psycopg.Error) as caught, conn.transaction():
        conn.execute(sql.encode())
    assert caught.value.sqlstate == sqlstate
    return str(translate(caught.value))


def migrate(settings: Settings) -> None:
    with database.connect(settings) as conn, database.locked_transaction(conn, settings):
        migrations.apply(conn, settings.sources)


@pytest.mark.parametrize(
    "sql",
    [
        "update rent.rent_ledger set amount_due = 1",
        "update rent.rent_ledger set period = '2023-03'",
        "update rent.rent_ledger set tenant = 'Bo'",
        "update rent.rent_ledger set currency = 'EUR'",
        "update rent.rent_ledger set id = gen_random_uuid()",
        "update rent.rent_ledger set amount_due = 1, amount_paid = 1",
        "delete from rent.rent_ledger",
        "truncate rent.rent_ledger",
    ],
)
def test_what_was_billed_cannot_be_changed_outside_or_inside_a_run(flat: Connection, sql: str) -> None:
    assert "rent.rent_ledger" in refuse(flat, sql, "BF020")
    value(flat, "select backfill.begin_run('a correction')")
    if "truncate" not in sql:  # that is refused by the engine there already
        refuse(flat, sql, "BF020")


def test_paying_stays_possible(flat: Connection) -> None:
    do(flat, "update rent.rent_ledger set amount_paid = 700000, payment_date = '2023-02-27'")
    assert rows(flat, "select amount_due, amount_paid from rent.rent_ledger") == [(700000, 700000)]


def test_audit_fields_are_written_once_and_inside_a_run(flat: Connection) -> None:
    assert "outside a run" in refuse(flat, EXPLAIN, "BF020")
    done(flat, EXPLAIN)
    message = refuse(flat, "update rent.rent_ledger set days_stayed = 15", "BF020")
    assert "written once" in message
    assert "Alma" in message
    with pytest.raises(psycopg.Error, match="written once"), run(flat):
        do(flat, "update rent.rent_ledger set calculation_title = 'y'")


def test_a_reversal_in_a_run_may(flat: Connection) -> None:
    explained = done(flat, EXPLAIN)
    assert reverse(flat, explained) == {"restored": 1}
    assert rows(flat, "select amount_due, calculation_date from rent.rent_ledger") == [(700000, None)]
    billed = value(flat, "select run_id from backfill.backfill_log order by started_at limit 1")
    assert reverse(flat, billed) == {"restored": 1}
    assert rows(flat, "select 1 from rent.rent_ledger") == []


def test_setting_the_run_by_hand_is_no_reversal(flat: Connection) -> None:
    undone = done(flat, "insert into rent.rent_ledger (tenant, period, amount_due) values ('Bo', '2023-02', 1)")
    reverse(flat, undone)
    reversal = value(flat, "select run_id from backfill.backfill_log where mode = 'reversal'")
    do(flat, f"select set_config('backfill.run_id', '{reversal}', true)")
    refuse(flat, "update rent.rent_ledger set amount_due = 1", "BF020")


def test_a_reversal_cannot_be_begun_by_hand_to_get_past_the_guard(flat: Connection) -> None:
    assert "reverse_run" in refuse(flat, "select backfill.begin_run('mine', p_mode => 'reversal')", "BF001")
    refuse(flat, "update rent.rent_ledger set amount_due = 1", "BF020")
    granted = rows(
        flat,
        "select has_function_privilege(r, 'backfill.start_run(text,jsonb,jsonb,text,text,boolean,uuid)', 'execute')"
        " from unnest(array['backfill_operator', 'backfill_auditor', 'public']) as r",
    )
    assert granted == [(False,)] * 3


@pytest.mark.parametrize(
    "sql",
    [
        "insert into rent.rent_ledger (tenant, period, amount_due) values ('Bo', '2023-02', 1)",
        "update rent.rent_ledger set amount_paid = 1",
        "update rent.rent_ledger set period = '2023-03'",
        "delete from rent.rent_ledger",
        "insert into rent.rent_config (key, period, value) values ('el', '2023-02', 1)",
        "update rent.rent_config set value = 5 where key = 'gas'",
        "update rent.rent_config set period = '2023-02' where key = 'va'",
        "delete from rent.rent_config where key = 'gas'",
        (
            "insert into rent.electricity_bills (provider, bill_date, amount, bill_period)"
            " values ('Fortum', '2023-03-02', 1, '2023-02')"
        ),
        "update rent.electricity_bills set amount = 5",
        "delete from rent.electricity_bills",
        (
            "insert into rent.calculation (period, version, calculation_month, calculated_at, inputs, roommates,"
            " results, used, total) values ('2023-02', 1, '2023-02', now(), '{}', '{}', '{}', '{}', 1)"
        ),
    ],
)
def test_a_closed_month_refuses_everything(flat: Connection, sql: str) -> None:
    do(
        flat,
        "insert into rent.rent_config (key, period, value) values ('gas', '2023-02', 1)",
        "insert into rent.electricity_bills (provider, bill_date, amount, bill_period)"
        " values ('Fortum', '2023-02-26', 1, '2023-02')",
        "select rent.close_period('2023-02', 'year end')",
    )
    message = refuse(flat, sql, "BF021")
    assert "2023-02 was closed on" in message
    assert "year end" in message


def test_a_closed_month_refuses_a_reversal_with_exit_code_6(flat: Connection, settings: Settings) -> None:
    billed = value(flat, "select run_id from backfill.backfill_log")
    done(flat, "select rent.close_period('2023-02', 'year end')")
    flat.commit()
    with pytest.raises(psycopg.Error, match="2023-02 was closed") as caught:
        reverse(flat, billed)
    assert caught.value.sqlstate == "BF023"
    assert translate(caught.value).exit_code == 6
    flat.rollback()
    command = runner(settings, "rollback", str(billed), "--yes")
    assert command.returncode == 6, command.stderr
    assert "2023-02 was closed" in command.stderr
    assert ask(settings, "select amount_due from rent.rent_ledger") == [(700000,)]


def test_other_months_stay_open_for_corrections(flat: Connection) -> None:
    do(flat, "select rent.close_period('2023-02', 'year end')")
    do(flat, "insert into rent.rent_ledger (tenant, period, amount_due) values ('Alma', '2023-03', 5)")


def test_closing_is_a_run_twice_is_harmless_and_only_its_reversal_opens(conn: Connection) -> None:
    do(conn, "select rent.close_period('2023-02', 'year end')")
    conn.commit()
    closed = value(conn, 'select run_id from backfill.backfill_log where subject @> \'{"period": "2023-02"}\'')
    do(conn, "select rent.close_period('2023-02', 'again')")
    assert rows(conn, "select reason from rent.closed_period") == [("year end",)]
    conn.commit()
    for sql in ("delete from rent.closed_period", "update rent.closed_period set period = '2023-03'",
                "truncate rent.closed_period"):  # fmt: skip
        refuse(conn, sql, "BF020")
    assert reverse(conn, closed) == {"restored": 1}
    do(conn, "insert into rent.rent_ledger (tenant, period, amount_due) values ('Alma', '2023-02', 5)")


def test_closing_waits_for_a_payment_under_way(flat: Connection, settings: Settings) -> None:
    do(flat, "update rent.rent_ledger set amount_paid = 1")
    closed = threading.Event()

    def close() -> None:
        with psycopg.connect(settings.conninfo) as other:
            other.execute("select rent.close_period('2023-02', 'year end')")
        closed.set()

    thread = threading.Thread(target=close)
    thread.start()
    assert not closed.wait(0.3), "the month was closed beside an open payment"
    flat.commit()
    thread.join(30)
    assert closed.is_set()
    refuse(flat, "update rent.rent_ledger set amount_paid = 2", "BF021")


def test_kept_calculations_are_history(flat: Connection) -> None:
    do(
        flat,
        "insert into rent.calculation (period, version, calculation_month, calculated_at, inputs, roommates, results,"
        " used, total) values ('2023-02', 1, '2023-02', now(), '{}', '{}', '{}', '{}', 1)",
    )
    for sql in ("update rent.calculation set total = 2", "delete from rent.calculation", "truncate rent.calculation"):
        refuse(flat, sql, "BF020")


def test_an_existing_application_is_adopted_and_its_duplicates_are_refused(empty_settings: Settings) -> None:
    existing = """
        create schema rent;
        create table rent.tenants (name text, start_date date, departure_date date, room_adjustment integer);
        create table rent.rent_config (id uuid primary key default gen_random_uuid(), key text, period text,
            value integer);
        create table rent.rent_ledger (id uuid primary key default gen_random_uuid(), tenant text, period text,
            amount_due integer, amount_paid integer, payment_date date);
        alter table rent.tenants add primary key (name);
        insert into rent.rent_ledger (tenant, period, amount_due) values ('Alma', '2023-02', 5), ('Alma', '2023-02', 6);
    """
    with psycopg.connect(empty_settings.conninfo) as conn:
        conn.execute(existing.encode())
    with refusal("BF007", match="Alma / 2023-02: 2 rows"):
        migrate(empty_settings)
    with psycopg.connect(empty_settings.conninfo) as conn:
        conn.execute("delete from rent.rent_ledger where amount_due = 6")
    migrate(empty_settings)
    assert ask(empty_settings, "select amount_due, currency from rent.rent_ledger") == [(5, "SEK")]


def test_a_column_of_kronor_is_refused_by_name(empty_settings: Settings) -> None:
    with psycopg.connect(empty_settings.conninfo) as conn:
        conn.execute("create schema rent")
        conn.execute(
            "create table rent.tenants (name text, start_date date, departure_date date, room_adjustment float)"
        )
    with refusal("BF006", match="column room_adjustment is double precision"):
        migrate(empty_settings)


@pytest.mark.parametrize("table", ["rent_ledger", "calculation", "electricity_bills"])
def test_rolling_back_never_drops_history(conn: Connection, table: str) -> None:
    do(conn, TENANTS, BILLED)
    value(conn, "select backfill.begin_run('history')")
    do(
        conn,
        {
            "rent_ledger": EXPLAIN,
            "calculation": "insert into rent.calculation (period, version, calculation_month, calculated_at, inputs,"
            " roommates, results, used, total) values ('2023-02', 1, '2023-02', now(), '{}', '{}', '{}', '{}', 1)",
            "electricity_bills": "insert into rent.electricity_bills (provider, bill_date, amount, bill_period)"
            " values ('Fortum', '2023-02-26', 1, '2023-02')",
        }[table],
    )
    rollback = (ROOT / "migrations" / "rent" / "0303_rent_audit.rollback.sql").read_text(encoding="utf-8")
    with pytest.raises(psycopg.Error) as caught:
        conn.execute(rollback.split("end;\n$do$;")[0].encode() + b"end;\n$do$;")
    assert caught.value.sqlstate == "BF010"


def test_money_is_ore_in_bigint_and_the_currency_is_stated(conn: Connection) -> None:
    money = rows(
        conn,
        """select table_name || '.' || column_name, data_type from information_schema.columns
        where table_schema = 'rent' and column_name in ('amount_due', 'amount_paid', 'value', 'amount', 'total',
            'room_adjustment', 'base_monthly_rent')""",
    )
    assert len(money) == 9
    assert {kind for _, kind in money} == {"bigint"}
    stated = rows(
        conn,
        "select table_name from information_schema.columns where table_schema = 'rent' and column_name = 'currency'"
        " and column_default = '''SEK''::text' and is_nullable = 'NO' order by 1",
    )
    assert [name for (name,) in stated] == ["calculation", "electricity_bills", "rent_config", "rent_ledger"]
