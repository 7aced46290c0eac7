"""`runner gates`: all gates of what is selected, on committed data, in a snapshot that nothing can write."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest

from runner import gates
from runner.errors import RunnerError
from runner.settings import Settings
from tests.engine.words import Connection, do, value

OWN = """
    create schema app;
    create table app.limits (id uuid primary key, cents bigint);
    create view app.limits_due as select id, 10::bigint as cents from app.limits where cents is null;
    create function app.set_limits(p jsonb) returns jsonb language sql as $$ select '{}'::jsonb $$;
    select backfill.track('app.limits');
    select backfill.register('limits', 'app', 'Limits', 1000, 'app.limits_due', 'app.set_limits', '{app.limits}');
"""


@pytest.fixture(scope="module", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An own project of three gates, one of which only warns, and one of which writes."""
    own = tmp_path_factory.mktemp("own")
    (own / "dbt_project.yml").write_text("name: mine\n")
    (own / "tests" / "limits").mkdir(parents=True)
    for name, text in {
        "limits_above_ten": "select id from app.limits where cents > 10",
        "limits_of_nothing": "{{ config(severity='warn') }} select id from app.limits where cents = 0",
        "limits_that_it_writes": "select app.remember() as id where exists (select from app.limits where cents = 7)",
    }.items():
        (own / "tests" / "limits" / f"{name}.sql").write_text(text)
    return own


@pytest.fixture
def used(settings: Settings, conn: Connection, project: Path) -> Settings:
    """A database with all systems, of which none is selected, and with a backfill of the project's own."""
    do(conn, *filter(str.strip, OWN.split(";\n")))
    do(conn, "create function app.remember() returns int language sql as 'insert into app.limits (id) select"
       " gen_random_uuid() returning 1'")  # fmt: skip
    conn.commit()
    return replace(settings, systems=(), dbt_project=project)


def verdicts(check: gates.GateCheck) -> dict[str, str]:
    return {result.name: result.status for result in check.gates}


def test_what_is_selected_and_the_own_is_judged_and_nothing_else(used: Settings) -> None:
    found = gates.check(used)
    assert verdicts(found) == dict.fromkeys(("limits_above_ten", "limits_of_nothing", "limits_that_it_writes"), "pass")
    assert (found.unguarded, found.exit_code) == ((), 0)
    both = gates.check(replace(used, systems=("charges",)))
    assert set(verdicts(both)) > {*verdicts(found), "payments_without_charge"}
    assert (both.stopped, both.exit_code) == ((), 0)


def test_a_failing_gate_is_exit_3_and_a_warning_is_not(used: Settings, conn: Connection) -> None:
    do(conn, "insert into app.limits select gen_random_uuid(), 0")
    conn.commit()
    assert (verdicts(gates.check(used))["limits_of_nothing"], gates.check(used).exit_code) == ("warn", 0)
    do(conn, "insert into app.limits select gen_random_uuid(), 11 from generate_series(1, 30)")
    conn.commit()
    found = gates.check(used, sample=3)
    assert found.exit_code == 3
    (stopped,) = found.stopped
    assert (stopped.name, stopped.failures, len(stopped.rows)) == ("limits_above_ten", 30, 3)


def test_a_gate_that_would_write_is_an_error_and_writes_nothing(used: Settings, conn: Connection) -> None:
    do(conn, "insert into app.limits select gen_random_uuid(), 7")
    conn.commit()
    found = gates.check(used)
    assert (verdicts(found)["limits_that_it_writes"], found.exit_code) == ("error", 3)
    assert value(conn, "select count(*) from app.limits") == 1


def test_a_backfill_without_a_gate_is_exit_3_and_those_left_out_need_none(used: Settings) -> None:
    found = gates.check(replace(used, dbt_project=None))
    assert (found.gates, found.unguarded, found.exit_code) == ((), ("limits",), 3)


def test_where_nothing_is_installed_it_says_so(empty_settings: Settings, used: Settings) -> None:
    with pytest.raises(RunnerError, match=r"the engine is not installed in this database; runner apply"):
        gates.check(replace(empty_settings, systems=("charges",)))
    with psycopg.connect(used.conninfo) as conn:
        conn.execute("delete from backfill.catalog where system = 'charges'")
    with pytest.raises(RunnerError, match=r"^charges: not installed in this database; runner apply, or select"):
        gates.check(replace(used, systems=("charges", "rent")))
