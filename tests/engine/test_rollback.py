"""`runner rollback`: tried, shown, and only then done; refused where a row is no longer what the run left."""

from __future__ import annotations

from collections.abc import Callable

import psycopg
import pytest

from runner import rollback as rollback_
from runner.errors import DigestError
from runner.result import Reversal
from runner.settings import Settings
from runner.systems import SYSTEMS
from tests.engine.words import do, value
from tests.story import SAMPLE_CHARGES, SAMPLE_TOTAL, UNIT, adopt, charges, last_run, run, sql


@pytest.fixture
def url(database_url: str) -> str:
    """The sample with its charges applied."""
    run(adopt(database_url), "apply", "--yes")
    return database_url


def test_it_is_shown_first_and_changes_nothing_until_it_is_wanted(url: str, dump: Callable[..., str]) -> None:
    before = dump(url, "--inserts")
    for options, code in ((["--dry-run"], 0), ([], 2)):
        done = run(url, "rollback", last_run(url), *options, code=code)
        assert f"-{SAMPLE_TOTAL}" in done.out
        assert "restored" in done.out
        assert dump(url, "--inserts") == before
    assert "Not undone: nobody was asked (no terminal): give --yes. Nothing was changed." in done.out


def test_the_object_it_prints(url: str) -> None:
    run_id = last_run(url)
    shown = run(url, "rollback", run_id, "--dry-run", "--json").json
    assert sorted(shown) == [
        "approvals", "backfill", "chain", "counts", "dimensions", "reversal_id", "run_id", "sample", "schema_version",
        "seconds", "stamped", "tables", "verdict", "where",
    ]  # fmt: skip
    assert (shown["verdict"], shown["reversal_id"], shown["chain"]) == ("rehearsed", None, "")
    assert shown["counts"] == [["property.charges", "restored", SAMPLE_CHARGES]]
    done = run(url, "rollback", run_id, "--yes", "--json", "--actor", "maria").json
    assert (done["verdict"], done["run_id"]) == ("reversed", run_id)
    assert done["chain"] == run(url, "log", "--json").json["head"]
    [table] = done["tables"]
    assert table == {
        "table": "property.charges",
        "inserted": 0,
        "updated": 0,
        "deleted": SAMPLE_CHARGES,
        "money": {"amounts": -12_350_150},
        "finer": 0,
    }
    again = run(url, "rollback", run_id, "--yes", "--json").json
    assert (again["verdict"], again["reversal_id"]) == ("already reversed", done["reversal_id"])
    assert sql(url, "select mode, actor from backfill.backfill_log order by started_at") == [
        ("apply", "postgres"), ("reversal", "maria (claimed) via postgres"),
    ]  # fmt: skip


def test_an_undo_can_be_undone(url: str) -> None:
    """Invariant 16: a reversal is itself a run; undoing it brings back byte-identical rows."""
    before = sql(url, "select record_send(c) from property.charges as c order by id")
    reversal = run(url, "rollback", last_run(url), "--yes", "--json").json["reversal_id"]
    assert charges(url) == []
    run(url, "rollback", reversal, "--yes")
    assert sql(url, "select record_send(c) from property.charges as c order by id") == before
    assert sql(url, "select count(*) from backfill.charges_due") == [(0,)]


def test_a_row_that_refers_to_one_is_a_conflict_not_a_cascade(url: str, dump: Callable[..., str]) -> None:
    sql(
        url,
        "create table public.dispute (charge uuid references property.charges (id) on delete cascade)",
        "insert into public.dispute select id from property.charges where tenant_user_id = 'ada'"
        " and billing_period = '2023-07'",
    )
    before = dump(url, "--inserts")
    done = run(url, "rollback", last_run(url), "--yes", code=6)
    assert "dispute" in done.err
    assert dump(url, "--inserts") == before


def test_what_somebody_already_took_back_is_no_conflict(url: str) -> None:
    sql(url, f"delete from property.charges where tenant_user_id = 'ada' and unit_id = '{UNIT}'")
    done = run(url, "rollback", last_run(url), "--yes", "--json").json
    assert sorted(done["counts"]) == [
        ["property.charges", "already original", 24], ["property.charges", "restored", SAMPLE_CHARGES - 24],
    ]  # fmt: skip


def test_an_undo_that_is_no_longer_the_one_shown_is_not_done(url: str) -> None:
    """Exit 4, as for an apply."""

    def meanwhile(shown: Reversal) -> bool:
        sql(url, "delete from property.charges where tenant_user_id = 'ada' and billing_period = '2023-01'")
        return True

    with pytest.raises(DigestError, match="would differ from the one shown: nothing was changed") as caught:
        rollback_.rollback(Settings(conninfo=url, systems=SYSTEMS), last_run(url), dry_run=False, confirm=meanwhile,
                           progress=lambda step: None)  # fmt: skip
    assert caught.value.exit_code == 4
    assert len(charges(url)) == SAMPLE_CHARGES - 1


def correct(url: str, title: str, statement: str) -> str:
    """A correction by hand as a committed run; its id."""
    with psycopg.connect(url) as conn:
        run_id = value(conn, "select backfill.begin_run(%s)", [title])
        do(conn, statement, "select backfill.finish_run()")
    return str(run_id)


def test_several_runs_are_undone_in_one_preview_and_one_commit(url: str, dump: Callable[..., str]) -> None:
    applied = last_run(url)
    later = correct(url, "dearer", "update property.charges set amount_cents = amount_cents + 1 where type = 'rent'")
    correct(url, "nothing", "select 1")
    before = dump(url, "--inserts")
    for options, code in ((["--dry-run"], 0), ([], 2)):
        shown = run(url, "rollback", "--since", applied[:8], *options, code=code)
        assert shown.out.index(f"Undo of run {later} (dearer)") < shown.out.index(f"Undo of run {applied} (charges)")
        assert "3 runs, the newest first, all of them or none." in shown.out
        assert dump(url, "--inserts") == before
    assert "Not undone: nobody was asked (no terminal): give --yes. Nothing was changed." in shown.out
    done = run(url, "rollback", "--since", applied, "--yes", "--json", "--actor", "maria").json
    assert (done["verdict"], done["since"]) == ("reversed", applied)
    assert [one["backfill"] for one in done["reversals"]] == ["nothing", "dearer", "charges"]
    assert [one["counts"] for one in done["reversals"][::2]] == [[], [["property.charges", "restored", SAMPLE_CHARGES]]]
    assert len({one["reversal_id"] for one in done["reversals"]} - {None}) == 3
    assert charges(url) == []
    assert sql(url, "select distinct actor from backfill.backfill_log where mode = 'reversal'") == [
        ("maria (claimed) via postgres",)
    ]
    again = run(url, "rollback", "--since", applied, "--yes")
    assert "were undone already: nothing to do" in again.out


def test_one_refusal_keeps_all_of_them(url: str, dump: Callable[..., str]) -> None:
    applied = last_run(url)
    correct(url, "dearer", "update property.charges set amount_cents = amount_cents + 1 where type = 'rent'")
    sql(url, "update property.charges set description = 'theirs' where tenant_user_id = 'ada'")
    before = dump(url, "--inserts")
    refused = run(url, "rollback", "--since", applied, "--yes", code=6)
    assert "no longer what it left" in refused.err
    assert dump(url, "--inserts") == before


def test_one_run_is_named_one_way(url: str) -> None:
    for arguments in ([], [last_run(url), "--since", last_run(url)]):
        assert "name one run" in run(url, "rollback", *arguments, "--yes", code=2).err
