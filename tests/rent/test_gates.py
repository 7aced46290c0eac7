"""The gates of rent history and electricity: each finds its planted defect by name, and nothing else fails."""

from __future__ import annotations

from pathlib import Path

import pytest

from runner import gates
from runner.rent.load import load_electricity, load_rent_history
from runner.settings import Settings
from runner.systems import SYSTEMS
from tests.engine.gating import dbt_verdicts
from tests.engine.words import Connection, do, value
from tests.place import ROOT
from tests.rent.flat import BILLS, HISTORY, ODD, ask, backfill, furnish, runner

NAMES = ("rent_history", "electricity_bills")


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> gates.Gates:
    """The project's gates, in a cache of the session's own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        return gates.compile(Settings(systems=SYSTEMS))


@pytest.fixture
def done(settings: Settings, conn: Connection) -> Connection:
    """All samples loaded and applied, committed."""
    furnish(conn)
    load_rent_history(settings, HISTORY)
    load_electricity(settings, BILLS)
    for name in NAMES:
        backfill(settings, name)
    return conn


def judge(conn: Connection, compiled: gates.Gates) -> dict[str, gates.GateResult]:
    """What does not pass, by name."""
    return {result.name: result for result in gates.run(conn, compiled, NAMES) if result.status != "pass"}


UNGUARDED = "alter table rent.rent_ledger disable trigger user"
LEDGER = "insert into rent.rent_ledger (tenant, period, amount_due) values "
DEFECTS: dict[str, tuple[tuple[str, ...], str, dict[str, object]]] = {
    "ledger_rows_without_audit_fields": (
        (f"{LEDGER} ('Alma', '2020-02', 500)",), "fail", {"tenant": "Alma", "period": "2020-02"},
    ),
    "ledger_rows_that_differ_from_their_calculation": (
        (UNGUARDED, "update rent.rent_ledger set amount_due = 318700 where tenant = 'Dag' and period = '2023-02'"),
        "fail", {"tenant": "Dag", "amount_due_ore": 318700, "calculated_ore": 318600, "difference_ore": 100},
    ),
    "calculated_and_not_billed": (
        (UNGUARDED, "delete from rent.rent_ledger where tenant = 'Dag' and period = '2023-02'",
         # the others pay for it, so that the month is covered
         "alter table rent.calculation disable trigger user",
         """update rent.calculation set results = results || '{"Alma": 9558}' where version = 10""",
         "update rent.rent_ledger set amount_due = 955800 where tenant = 'Alma' and period = '2023-02'",
         "delete from staging.rent_history_share", "delete from staging.rent_history"),
        "fail", {"tenant": "Dag", "period": "2023-02", "version": 10, "calculated_ore": 318600},
    ),
    "ledger_rows_superseded": (
        ("""select rent.record_calculation('2023-03', '{"Alma": {}, "Bo": {}, "Åsa": {}, "Dag": {}}',
            '{"kallhyra": 20000, "el": 1201.98, "bredband": 500}')""",),
        "warn", {"tenant": "Alma", "amount_due_ore": 557600, "calculation_version": 1, "latest_version": 2},
    ),
    "months_below_their_cost": (
        ("insert into rent.rent_config (key, period, value) values ('gas', '2023-05', 5000)",),
        "fail", {"period": "2023-05", "billed_ore": 2390400, "cost_ore": 2395050, "missing_ore": 4650},
    ),
    "calculations_neither_kept_nor_rejected": (
        ("alter table rent.calculation disable trigger user",
         "update rent.calculation set inputs = inputs || '{\"el\": 1}' where period = '2023-02' and version = 2"),
        "fail", {"file_name": "2023_02_v2.json", "period": "2023-02", "version": 2},
    ),
    "shares_that_the_ledger_does_not_say": (
        (UNGUARDED, ("update rent.rent_ledger set days_stayed = 16, room_adjustment = 1"
                    " where tenant = 'Dag' and period = '2023-02'")),
        "fail", {"tenant": "Dag", "file_name": "2023_02_v10.json", "finding": "days, adjustment"},
    ),
    "calculations_with_remarks": (
        ("update staging.rent_history set remarks = array['odd'] where period = '2023-05'",),
        "warn", {"file_name": "2023_05_v1.json", "remarks": "odd"},
    ),
    "bills_that_are_there_twice": (
        ("alter table rent.electricity_bills drop constraint electricity_bills_provider_bill_date_key",
         ("insert into rent.electricity_bills (provider, bill_date, amount, bill_period)"
         " select provider, bill_date, 1, bill_period from rent.electricity_bills where bill_date = '2023-03-01'")),
        "fail", {"provider": "Fortum", "bills": 2, "amount_ore": 50001},
    ),
    "bills_neither_taken_nor_rejected": (
        ("update staging.electricity_bill set amount = amount + 1 where line = 7",),
        "fail", {"provider": "Vattenfall", "line": 7, "amount_ore": 70101, "kept_ore": 70100},
    ),
    "electricity_that_differs_from_its_bills": (
        ("update rent.rent_config set value = value + 101 where key = 'el' and period = '2023-02'",),
        "fail", {"period": "2023-02", "bills_ore": 120100, "config_ore": 120201, "difference_ore": -101},
    ),
    "electricity_that_differs_by_a_krona": (
        ("update rent.rent_config set value = value - 100 where key = 'el' and period = '2023-02'",),
        "warn", {"period": "2023-02", "difference_ore": 100},
    ),
    "bills_without_electricity": (
        ("delete from rent.rent_config where key = 'el' and period = '2022-12'",),
        "fail", {"period": "2022-12", "bills": 2, "bills_ore": 150000},
    ),
    "electricity_without_bills": (
        ("insert into rent.rent_config (key, period, value) values ('el', '2023-05', 90050)",),
        "warn", {"period": "2023-05", "config_ore": 90050},
    ),
    "months_of_one_provider": (
        (("insert into rent.electricity_bills (provider, bill_date, amount, bill_period)"
         " values ('Fortum', '2023-06-01', 100, '2023-05')"),
         "insert into rent.rent_config (key, period, value) values ('el', '2023-05', 100)"),
        "warn", {"period": "2023-05", "bills": 1, "providers": 1},
    ),
    "rent_reconciled_on_nothing": (
        (UNGUARDED, "alter table rent.calculation disable trigger user", "delete from rent.rent_ledger"),
        "fail", {"source": "rent.rent_ledger"},
    ),
    "electricity_reconciled_on_nothing": (
        ("delete from rent.electricity_bills", "delete from rent.rent_config where key = 'el'"),
        "fail", {"source": "rent.electricity_bills", "rows_seen": 0},
    ),
}  # fmt: skip

ALSO = {
    "ledger_rows_that_differ_from_their_calculation": set(),
    "rent_reconciled_on_nothing": {"calculated_and_not_billed"},
    "electricity_reconciled_on_nothing": {"bills_neither_taken_nor_rejected"},
    "bills_that_are_there_twice": {
        "bills_neither_taken_nor_rejected",
        "months_of_one_provider",
        "electricity_that_differs_by_a_krona",
    },
}
"""What else must fail, because the same defect breaks two rules."""


def test_every_gate_has_its_defect(compiled: gates.Gates) -> None:
    ours = {gate.name for gate in compiled if set(gate.backfills) & set(NAMES)}
    assert ours == set(DEFECTS)


@pytest.mark.parametrize("name", DEFECTS)
def test_a_planted_defect_is_found_by_its_gate_and_named(done: Connection, compiled: gates.Gates, name: str) -> None:
    statements, status, row = DEFECTS[name]
    assert judge(done, compiled) == {}
    do(done, *statements)
    found = judge(done, compiled)
    assert set(found) == {name} | ALSO.get(name, set())
    assert found[name].status == status
    assert row.items() <= found[name].rows[0].items()


def test_an_empty_system_passes(conn: Connection, compiled: gates.Gates) -> None:
    assert judge(conn, compiled) == {}


def test_a_difference_stops_the_apply_until_it_is_accepted_with_a_reason(settings: Settings, conn: Connection) -> None:
    furnish(conn)
    do(conn, f"{LEDGER} ('Dag', '2023-02', 318500), ('Alma', '2022-11', 783400)")
    conn.commit()
    load_rent_history(settings, HISTORY)
    stopped = runner(settings, "apply", "rent_history", "--yes")
    assert stopped.returncode == 3
    assert "ledger_rows_that_differ_from_their_calculation" in stopped.stdout
    assert "Dag" in stopped.stdout
    assert ask(settings, "select 1 from rent.calculation") == []
    do(conn, "select rent.accept_finding('Dag', '2023-02', 'a hundred öre, agreed')")
    conn.commit()
    applied = runner(settings, "apply", "rent_history", "--yes")
    assert applied.returncode == 0, applied.stdout + applied.stderr
    assert value(conn, "select amount_due from rent.explain('Dag', '2023-02')") == 318500
    assert "accepted as it is: a hundred öre, agreed" in value(
        conn, "select explanation from rent.explain('Dag', '2023-02')"
    )


def test_what_was_accepted_is_the_amount_of_then(done: Connection, compiled: gates.Gates) -> None:
    differs = "ledger_rows_that_differ_from_their_calculation"
    rebill = "update rent.rent_ledger set amount_due = {} where tenant = 'Dag' and period = '2023-02'"
    unguarded = "alter table rent.rent_ledger disable trigger b_guard_ledger"
    do(done, unguarded, rebill.format(318700), "select rent.accept_finding('Dag', '2023-02', 'a krona more, agreed')")
    assert judge(done, compiled) == {}
    do(done, rebill.format(318800))  # as after a reversal, when it is billed anew
    assert set(judge(done, compiled)) == {differs}
    assert "agreed" not in value(done, "select explanation from rent.explain('Dag', '2023-02')")
    do(done, "select rent.accept_finding('Dag', '2023-02', 'a krona more, agreed')")
    assert judge(done, compiled) == {}


def test_accepting_is_a_run_needs_a_row_and_a_reason(conn: Connection) -> None:
    furnish(conn)
    for sql, words in (
        ("select rent.accept_finding('Alma', '2020-02', 'x')", "nothing was billed to Alma for 2020-02"),
        (f"{LEDGER} ('Alma', '2020-02', 500); select rent.accept_finding('Alma', '2020-02', ' ')", "check"),
    ):
        with pytest.raises(Exception, match=words), conn.transaction():
            for statement in sql.split("; "):
                do(conn, statement)
    do(
        conn,
        f"{LEDGER} ('Alma', '2020-02', 500)",
        "select rent.accept_finding('Alma', '2020-02', 'older than the files')",
    )
    assert value(conn, "select table_name from backfill.change_log") == "rent.accepted_finding"


def test_a_month_that_is_neither_is_a_warning_in_the_report(settings: Settings, conn: Connection) -> None:
    furnish(conn)
    load_rent_history(settings, ODD, accept=["2021_05_v1.json"])
    applied = runner(settings, "apply", "rent_history", "--yes")
    assert applied.returncode == 0, applied.stdout + applied.stderr
    assert "calculations_with_remarks" in applied.stdout


def test_a_closed_month_with_another_el_only_warns(done: Connection, compiled: gates.Gates) -> None:
    do(
        done,
        "update rent.rent_config set value = value + 500 where key = 'el' and period = '2023-02'",
        "select rent.close_period('2023-02', 'year end')",
    )
    found = judge(done, compiled)
    assert {name: result.status for name, result in found.items()} == {"electricity_that_differs_by_a_krona": "warn"}


def test_the_verdicts_are_those_of_dbt_build_on_committed_data(
    done: Connection, compiled: gates.Gates, tmp_path: Path
) -> None:
    do(
        done,
        *DEFECTS["electricity_that_differs_from_its_bills"][0],
        *DEFECTS["ledger_rows_without_audit_fields"][0],
        *DEFECTS["calculations_with_remarks"][0],
    )
    done.commit()
    ours = {name: (result.status, result.failures) for name, result in judge(done, compiled).items()}
    assert set(ours) == {
        "electricity_that_differs_from_its_bills", "ledger_rows_without_audit_fields", "calculations_with_remarks",
    }  # fmt: skip
    done.rollback()
    said = dbt_verdicts("build", ROOT / "dbt_project", tmp_path, done)
    names = {gate.name for gate in compiled if set(gate.backfills) & set(NAMES)}
    theirs = {name: verdict for name, verdict in said.items() if name in names and verdict[0] != "pass"}
    assert theirs == ours
