"""The gates of charges: each finds its planted defect on uncommitted rows, and says what `dbt build` says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from uuid import UUID

import psycopg
import pytest

from runner import gates, shared_models
from runner.gates import GateResult
from runner.settings import Settings
from runner.systems import SYSTEMS
from tests.engine.gating import dbt_verdicts, gate, judge, run_one
from tests.engine.words import Connection, do, rows, value
from tests.place import ROOT

UNIT, FREE_UNIT, UNPRICED_UNIT = (UUID(int=number) for number in (1, 2, 3))
STRANGER = UUID(int=9)

APPLICATION = f"""
    insert into property.units (id, rent_amount_cents)
    values ('{UNIT}', 90000), ('{FREE_UNIT}', 0), ('{UNPRICED_UNIT}', null);
    insert into property.payments (tenant_user_id, unit_id, amount_cents, payment_method, status, billing_period)
    values
        ('ann', '{UNIT}', 40000, 'ach', 'succeeded', '2024-01'), ('ann', '{UNIT}', 50000, 'ach', 'pending', '2024-01'),
        ('ann', '{UNIT}', 90000, 'ach', 'failed', '2024-02'),
        ('bob', '{FREE_UNIT}', 100, 'cash', 'succeeded', '2024-01'),
        ('cid', '{UNPRICED_UNIT}', 70000, 'check', 'succeeded', '2024-01'),
        ('cid', '{UNPRICED_UNIT}', 75000, 'check', 'succeeded', '2024-01');
    insert into property.charges (tenant_user_id, unit_id, type, description, amount_cents, billing_period, created_by)
    values
        ('ann', '{UNIT}', 'rent', 'Rent March', 80000, '2024-03', 'admin'),
        ('ann', '{UNIT}', 'credit', 'Broken boiler', -5000, null, 'admin');
"""
CHARGE = """
    insert into property.charges (tenant_user_id, unit_id, type, description, amount_cents, billing_period) values
"""
BACKFILL = "select from backfill.run('charges')"
PAYMENT = """
    insert into property.payments (tenant_user_id, unit_id, amount_cents, payment_method, status, billing_period) values
"""


def a_run_that_wrote(charge: str) -> tuple[str, ...]:
    began = "select backfill.start_run('charges', '{}', '{}', 'apply', null, false, null)"
    return (began, CHARGE + charge, "select backfill.finish_run()")


DEFECTS: dict[str, tuple[tuple[str, ...], dict[str, object]]] = {
    "payments_without_charge": (
        ("delete from property.charges where tenant_user_id = 'cid'",),
        {"tenant": "cid", "unit": UNPRICED_UNIT, "period": "2024-01", "payments": 2, "largest_payment_cents": 75000},
    ),
    "payments_neither_charged_nor_rejected": (
        (f"{PAYMENT} ('dan', '{UNIT}', 90000, 'ach', 'succeeded', 'Jan 2024')",),
        {"tenant": "dan", "unit": UNIT, "period": "Jan 2024", "cents": 90000, "finding": "period is not YYYY-MM"},
    ),
    "charges_without_payment_or_unit": (
        a_run_that_wrote(f"('ann', '{UNIT}', 'rent', 'Rent for 2024-02', 90000, '2024-02')"),
        {"tenant": "ann", "unit": UNIT, "period": "2024-02", "cents": 90000, "finding": "no usable payment"},
    ),
    "charges_without_any_payment_or_unit": (
        (
            "alter table property.charges drop constraint charges_unit_id_fkey",
            f"{CHARGE} ('eve', '{STRANGER}', 'one_time', 'Keys', 1500, '2024-01')",
        ),
        {"tenant": "eve", "unit": STRANGER, "period": "2024-01", "cents": 1500, "finding": "no unit"},
    ),
    "more_than_one_rent_charge": (
        (
            "drop index property.charges_one_rent_per_period",
            f"{CHARGE} ('bob', '{FREE_UNIT}', 'rent', 'Rent again', 0, '2024-01')",
        ),
        {"tenant": "bob", "unit": FREE_UNIT, "period": "2024-01", "rent_charges": 2, "cents": 0},
    ),
    "charges_that_break_the_rule": (
        (
            f"{PAYMENT} ('fay', '{UNIT}', 60000, 'ach', 'succeeded', '2024-01')",
            *a_run_that_wrote(f"('fay', '{UNIT}', 'rent', 'Rent of January', 60000, '2024-01')"),
        ),
        {
            "tenant": "fay",
            "unit": UNIT,
            "period": "2024-01",
            "cents": 60000,
            "expected_cents": 90000,
            "finding": "amount is not the rent of the unit, description is Rent of January",
        },
    ),
    "balances_that_do_not_add_up": (
        (
            "alter view property.tenant_balance rename to right_balance",
            """create view property.tenant_balance as
            select tenant_user_id, charged_cents, paid_cents, pending_cents,
                balance_cents - pending_cents as balance_cents
            from property.right_balance""",
        ),
        {"tenant": "ann", "status": "modified", "balance_cents": 75000, "expected_balance_cents": 125000},
    ),
    "charges_reconciled_on_nothing": (
        (
            f"{PAYMENT} ('zoe', '{UNIT}', 90000, 'ach', 'succeeded', '2024-06')",
            *a_run_that_wrote(f"('zoe', '{UNIT}', 'rent', 'Rent for 2024-06', 90000, '2024-06')"),
            "alter view backfill.change_log rename to whole_log",
            "create view backfill.change_log as select * from backfill.whole_log where business_key not like 'zoe /%'",
        ),
        {"source": "backfill.change_log", "wanted": 4, "rows_seen": 3},
    ),
}


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> gates.Gates:
    """The project's gates, in a cache of the session's own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        return gates.compile(Settings(systems=SYSTEMS))


@pytest.fixture
def charged(conn: Connection) -> Connection:
    """An application's rows committed, the backfill's in the open transaction."""
    do(conn, APPLICATION)
    conn.commit()
    do(conn, "set transaction isolation level repeatable read", BACKFILL)
    return conn


def verdicts(results: dict[str, GateResult]) -> dict[str, str]:
    return {name: result.status for name, result in results.items() if result.status != "pass"}


def test_there_is_every_gate_of_every_system_and_no_other(compiled: gates.Gates) -> None:
    assert {gate.name for gate in compiled} == {file.stem for file in (ROOT / "dbt_project" / "tests").rglob("*.sql")}


def test_an_empty_system_passes(conn: Connection, compiled: gates.Gates) -> None:
    assert verdicts(judge(conn, compiled)) == {}


def test_what_is_due_fails_before_the_backfill_and_passes_after_it(conn: Connection, compiled: gates.Gates) -> None:
    do(conn, APPLICATION)
    assert verdicts(judge(conn, compiled)) == {"payments_without_charge": "fail"}
    do(conn, BACKFILL)
    results = judge(conn, compiled)
    assert verdicts(results) == {}
    assert set(results) == set(DEFECTS)


@pytest.mark.parametrize("name", DEFECTS)
def test_a_planted_defect_fails_its_gate_and_is_named(charged: Connection, compiled: gates.Gates, name: str) -> None:
    statements, expected = DEFECTS[name]
    do(charged, *statements)
    result = judge(charged, compiled)[name]
    assert result.status == ("warn" if result.severity == "warn" else "fail")
    assert result.stops == (result.severity == "error")
    assert result.failures == len(result.rows)
    assert expected in [{key: row[key] for key in expected} for row in result.rows]


def test_a_planted_defect_fails_no_other_gate_of_the_rule(charged: Connection, compiled: gates.Gates) -> None:
    do(charged, *DEFECTS["charges_that_break_the_rule"][0])
    assert verdicts(judge(charged, compiled)) == {"charges_that_break_the_rule": "fail"}


@pytest.mark.parametrize(
    "since",
    [
        f"update property.units set rent_amount_cents = 95000 where id = '{UNIT}'",
        "update property.payments set status = 'failed' where tenant_user_id = 'ann'",
        f"{PAYMENT} ('cid', '{UNPRICED_UNIT}', 80000, 'check', 'succeeded', '2024-01')",
        "update property.charges set amount_cents = 85000 where tenant_user_id = 'ann' and billing_period = '2024-01'",
        """delete from property.charges where tenant_user_id = 'bob';
        delete from property.payments where tenant_user_id = 'bob'""",
        f"{CHARGE} ('gus', '{UNIT}', 'rent', 'Rent in advance', 90000, '2031-01')",
        BACKFILL,
    ],
    ids=["rent", "payment failed", "larger payment", "hand edit", "both removed", "charged in advance", "empty run"],
)
def test_what_rightly_changes_after_a_run_blocks_nothing(
    charged: Connection, compiled: gates.Gates, since: str
) -> None:
    charged.commit()
    do(charged, since)
    charged.commit()
    assert verdicts(judge(charged, compiled)) == {}


def test_a_charge_whose_payment_was_taken_away_is_a_warning(charged: Connection, compiled: gates.Gates) -> None:
    charged.commit()
    do(charged, "delete from property.payments where tenant_user_id = 'cid'")
    charged.commit()
    results = judge(charged, compiled)
    assert verdicts(results)["charges_without_any_payment_or_unit"] == "warn"
    assert results["charges_without_any_payment_or_unit"].rows == [
        {
            "tenant": "cid",
            "unit": UNPRICED_UNIT,
            "period": "2024-01",
            "cents": 75000,
            "finding": "no payment of any status",
        }
    ]


def test_an_allowed_reject_excuses_a_payment_only_while_it_is_unusable(conn: Connection, compiled: gates.Gates) -> None:
    do(conn, APPLICATION, f"{PAYMENT} ('dan', '{UNIT}', 1, 'ach', 'succeeded', '2024-13')")
    do(conn, f"{PAYMENT} ('dan', '{UNIT}', 0, 'ach', 'pending', '2024-05')")
    do(conn, "select from backfill.run('charges', '{}', 2)")
    assert verdicts(judge(conn, compiled)) == {}
    do(conn, "update property.payments set billing_period = '2024-12' where billing_period = '2024-13'")
    assert verdicts(judge(conn, compiled)) == {"payments_without_charge": "fail"}


def test_the_verdicts_are_those_of_dbt_build_on_committed_data(
    charged: Connection, compiled: gates.Gates, tmp_path: Path
) -> None:
    inside = judge(charged, compiled)
    charged.commit()
    outside = dbt_verdicts("build", ROOT / "dbt_project", tmp_path, charged)
    assert {name: outside[name] for name in inside} == dict.fromkeys(DEFECTS, ("pass", 0))
    assert {status for status, _ in outside.values()} == {"pass", "success"}  # the keys of all models hold too

    do(charged, "drop schema reconciliation cascade")  # dbt's views would hold up the defects in ours
    for statements, _ in DEFECTS.values():
        do(charged, *statements)
    inside = judge(charged, compiled)
    charged.commit()
    outside = dbt_verdicts("build", ROOT / "dbt_project", tmp_path, charged)
    assert {name: outside[name] for name in inside} == {
        name: (result.status, result.failures) for name, result in inside.items()
    }
    assert "pass" not in {result.status for result in inside.values()}


def test_models_computed_once_give_the_same_verdicts_and_rows(
    charged: Connection, compiled: gates.Gates, monkeypatch: pytest.MonkeyPatch
) -> None:
    for statements, _ in DEFECTS.values():
        do(charged, *statements)
    judged = []
    for worth in (float("inf"), 0.0):
        monkeypatch.setattr(shared_models, "WORTH", worth)
        with charged.transaction(force_rollback=True):
            judged.append({name: (r.status, r.failures, r.rows) for name, r in judge(charged, compiled).items()})
            tables = rows(charged, "select relname from pg_class where relnamespace = pg_my_temp_schema()")
        assert any("entries_by_period" in name for (name,) in tables) == (worth == 0)
    assert judged[0] == judged[1]


def test_a_project_without_a_gate_for_what_is_due_is_refused(conn: Connection) -> None:
    only_a_warning = replace(gate("select 1 where false"), severity="warn")
    with pytest.raises(gates.NoGateError, match=r"no gate guards charges: .*tag charges") as caught:
        gates.require((only_a_warning,), ["charges"])
    assert caught.value.exit_code == 3
    with pytest.raises(gates.NoGateError, match="no gate guards invoices"):
        gates.run(conn, (gate("select 1 where false"),), ["charges", "invoices"])
    gates.require((), [])


def test_only_a_sample_is_fetched_and_all_is_counted(conn: Connection) -> None:
    result = run_one(conn, "select i as cents, '50%' as share from generate_series(1, 1000) as i", sample=3)
    assert (result.status, result.failures) == ("fail", 1000)
    assert result.rows == [{"cents": cents, "share": "50%"} for cents in (1, 2, 3)]


def test_a_gate_that_cannot_run_stops_the_apply_and_leaves_the_transaction_usable(conn: Connection) -> None:
    do(conn, "create table kept (x int)")
    results = gates.run(
        conn, (gate("select * from nowhere"), gate("select 1/0 as x"), gate("select 1 where false")), ["charges"]
    )
    assert [(result.status, result.stops) for result in results] == [("error", True), ("error", True), ("pass", False)]
    assert results[0].message == 'relation "nowhere" does not exist'
    do(conn, "insert into kept values (1)")


def test_a_gate_that_takes_too_long_is_no_verdict(conn: Connection) -> None:
    """Nor is one that somebody cancels: on the next gate the same would be waiting."""
    do(conn, "set local statement_timeout = 50")
    with pytest.raises(psycopg.errors.QueryCanceled) as caught:
        run_one(conn, "select pg_sleep(10)")
    assert caught.value.__notes__ == ["gate a_gate"]


def test_a_count_that_is_no_number_is_an_error(conn: Connection) -> None:
    (result,) = gates.run(conn, (gate("select 1 as cents where false", fail_calc="sum(cents)"),), ["charges"])
    assert (result.status, result.message) == ("error", "fail_calc sum(cents) gave no number")


@pytest.mark.parametrize(
    "text",
    [
        "select 1 where false) as t; commit; create table written (x int); --",
        "select 1 where false) as t; commit; create table written (x int); select 1 from (select 1",
        "select 1) as t; rollback; create table written (x int); commit; begin; select 1 from (select 1",
        "select 1) as t; create table written (x int); select count(*) from (select 1",
    ],
)
def test_a_gate_is_one_statement_and_cannot_end_the_transaction(conn: Connection, text: str) -> None:
    do(conn, "create table kept (x int)")
    result = run_one(conn, text)
    assert (result.status, result.stops) == ("error", True)
    assert result.message in (
        "cannot insert multiple commands into a prepared statement",
        'syntax error at or near ")"',
    )
    do(conn, "insert into kept values (1)")
    conn.rollback()
    assert value(conn, "select to_regclass('kept') is null and to_regclass('written') is null")


def test_a_gate_cannot_write_and_leaves_no_setting(conn: Connection) -> None:
    do(conn, "create table kept (x int)")
    do(conn, "create function leak() returns int language sql as 'insert into kept values (1) returning x'")
    before = conn.execute("select current_setting('work_mem'), current_setting('jit')").fetchone()
    result = run_one(conn, "select leak()")
    assert (result.status, result.message) == ("error", "cannot execute INSERT in a read-only transaction")
    assert conn.execute("select current_setting('work_mem'), current_setting('jit')").fetchone() == before
    do(conn, "insert into kept values (1)")


def test_a_lock_that_is_not_to_be_had_is_no_verdict(conn: Connection, database_url: str) -> None:
    with psycopg.connect(database_url) as other:
        other.execute("lock table property.units in access exclusive mode")
        do(conn, "set local lock_timeout = 50")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            run_one(conn, "select * from property.units")


def test_a_server_that_goes_away_is_no_verdict(conn: Connection, database_url: str) -> None:
    gone = psycopg.connect(database_url)
    conn.execute("select pg_terminate_backend(%s)", [gone.info.backend_pid])
    with pytest.raises(psycopg.OperationalError):
        run_one(gone, "select 1 where false")
    gone.close()
