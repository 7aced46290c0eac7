"""What stops an apply: a gate, a reject, a difference from the rehearsal. Nothing is left behind."""

from __future__ import annotations

import os
import pty
import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.story import (
    SAMPLE_CHARGES,
    SAMPLE_TOTAL,
    UNIT,
    adopt,
    charges,
    config,
    ended,
    last_run,
    lock_holders,
    progress,
    run,
    shell,
    sql,
    start,
)

PAYMENT = (
    "insert into property.payments (tenant_user_id, unit_id, amount_cents, payment_method, status, billing_period)"
    f" values ('ada', '{UNIT}', 5, 'ach', 'succeeded', %s)"
)


def payment(period: str) -> str:
    """A payment that the application takes."""
    return PAYMENT.replace("%s", f"'{period}'")


DISCOUNT = """
    create function public.discount() returns trigger language plpgsql as $$
    begin
        if new.tenant_user_id = 'dmitri' and new.billing_period = '2024-02' then
            new.amount_cents := new.amount_cents - 100;
        end if;
        return new;
    end; $$;
    create trigger discount before insert on property.charges for each row execute function public.discount();
"""


@pytest.fixture
def url(database_url: str) -> str:
    return adopt(database_url)


@pytest.mark.parametrize("way", ["--dry-run", "--yes"])
def test_a_gate_that_fails_names_the_row_and_leaves_nothing(url: str, way: str, dump: Callable[..., str]) -> None:
    """A trigger of the application alters one amount: the gate sees the row as it was really written. Exit 3."""
    sql(url, DISCOUNT)
    before = dump(url, "--inserts")
    done = shell(url, "apply", way, code=3)
    assert "charges_that_break_the_rule" in done.out
    assert "tenant dmitri" in done.text
    assert "period 2024-02, amount 879.00, expected 880.00" in done.text
    assert "Stopped by a gate: nothing was changed." in done.out
    assert "trigger that fires on these tables: discount on property.charges" in done.text
    assert dump(url, "--inserts") == before
    assert lock_holders(url) == []


def test_a_gate_that_fails_only_in_the_apply_leaves_nothing(url: str, dump: Callable[..., str]) -> None:
    """A second rent charge, which the gates see, comes between rehearsal and apply."""
    sql(url, "drop index property.charges_one_rent_per_period")
    with asked(url) as (process, answer):
        sql(
            url,
            "insert into property.charges (tenant_user_id, unit_id, type, description, amount_cents, billing_period,"
            " created_by) select tenant_user_id, unit_id, type, description, amount_cents, billing_period, 'twice'"
            " from property.charges where tenant_user_id = 'chiara' and type = 'rent'",
        )
        before = dump(url, "--inserts")
        answer("y")
        done = ended(process)
    assert done.code == 3
    assert "more_than_one_rent_charge" in done.out
    assert "tenant chiara" in done.out
    assert dump(url, "--inserts") == before


@contextmanager
def asked(url: str, *arguments: str) -> Iterator[tuple[subprocess.Popen[str], Callable[[str], None]]]:
    """An apply that has rehearsed and waits for its answer from a terminal, and the way to answer."""
    ours, theirs = pty.openpty()
    try:
        with start(url, "apply", *arguments, stdin=theirs) as process:
            assert process.stderr is not None
            progress(process, "rehearsing: gates")
            seen = ""
            while "? [y/N]" not in seen:
                character = process.stderr.read(1)
                assert character, seen
                seen += character

            def answer(words: str) -> None:
                os.write(ours, f"{words}\n".encode())

            yield process, answer
    finally:
        os.close(ours)
        os.close(theirs)


def test_a_payment_between_rehearsal_and_apply_stops_it(url: str, dump: Callable[..., str]) -> None:
    """The apply must do what was shown, no more and no less. Exit 4, nothing left."""
    with asked(url) as (process, answer):
        assert lock_holders(url) == []  # a person may take long to answer
        sql(url, payment("2031-01"))
        before = dump(url, "--inserts")
        answer("y")
        done = ended(process)
    assert done.code == 4
    assert "The apply differed from the rehearsal: nothing was changed." in done.text
    assert f"{SAMPLE_CHARGES} rows in the rehearsal, {SAMPLE_CHARGES + 1} in the apply" in done.text
    assert dump(url, "--inserts") == before
    assert lock_holders(url) == []
    run(url, "apply", "--yes")
    assert len(charges(url)) == SAMPLE_CHARGES + 1


def test_an_amount_that_changed_in_between_stops_it_though_the_count_is_the_same(url: str) -> None:
    with asked(url) as (process, answer):
        sql(url, f"update property.units set rent_amount_cents = 1 where id = '{UNIT}'")
        answer("y")
        done = ended(process)
    assert done.code == 4
    assert f"{SAMPLE_CHARGES} rows in the rehearsal, {SAMPLE_CHARGES} in the apply; digest" in done.text
    assert charges(url) == []


def test_yes_at_the_terminal_applies_and_no_does_not(url: str, dump: Callable[..., str]) -> None:
    before = dump(url, "--inserts")
    with asked(url) as (process, answer):
        answer("n")
        done = ended(process)
    assert (done.code, dump(url, "--inserts")) == (0, before)
    assert "Not applied: you said no. Nothing was changed." in done.text
    with asked(url) as (process, answer):
        answer("y")
        done = ended(process)
    assert done.code == 0
    assert len(charges(url)) == SAMPLE_CHARGES
    # What was shown before the question is not shown twice.
    assert done.out.count("  insert  ") == 20


def test_without_a_terminal_and_without_yes_it_is_usage(url: str, dump: Callable[..., str]) -> None:
    before = dump(url, "--inserts")
    for arguments in (["apply"], ["apply", "--json"]):
        done = shell(url, *arguments, code=2)
        assert "Nobody was asked (no terminal): give --yes" in done.err
        assert "not asked" in done.out or "Not applied: nobody was asked" in done.out
        assert dump(url, "--inserts") == before


def test_rejects_stop_the_run_listing_them_unless_they_are_allowed(url: str, dump: Callable[..., str]) -> None:
    """Invariant 17: every source row ends in one bucket. Rejects are exit 3; allowed ones are kept with reason."""
    sql(url, payment("2024-13"), payment("January").replace("5, 'ach'", "700, 'ach'"))
    sql(url, payment("2030-01").replace("5, 'ach'", "-5, 'ach'"))
    before = dump(url, "--inserts")
    for arguments in (["--dry-run"], ["--yes"], ["--yes", "--allow-rejects", "2"]):
        done = run(url, "apply", *arguments, code=3)
        assert "3 source rows cannot be taken" in done.err
        for reason in ("'2024-13'", "'January'", "amount is not positive: -5 cents"):
            assert reason in done.err
        assert "--allow-rejects N" in done.err
        assert dump(url, "--inserts") == before
    done = run(url, "apply", "--yes", "--allow-rejects", "3")
    assert "Left out: 3 source rows that cannot be taken" in done.out
    for text in (done.out, run(url, "log", last_run(url)).out):
        assert re.search(r"property.payments .*'January' +7.00$", text, re.MULTILINE)
    buckets = dict(sql(url, "select 'charged', count(*) from property.charges where created_by is null"
                            " union all select 'rejected', count(*) from backfill.reject"))  # fmt: skip
    assert buckets == {"charged": SAMPLE_CHARGES, "rejected": 3}
    # They were decided on: a second run has nothing to ask.
    assert "Nothing is due." in run(url, "apply", "--yes").out


def test_what_is_left_out_stands_on_the_page_and_in_the_object(url: str, tmp_path: Path) -> None:
    sql(url, *(payment(f"2024-{month}") for month in range(13, 35)))
    allowed = ("--allow-rejects", "22")
    done = run(url, "apply", "--dry-run", *allowed, "--html", str(tmp_path / "page.html"))
    assert "… 2 more rows: --all shows every one" in done.out
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "22 of 22 source rows that cannot be taken" in page
    assert page.count('">property.payments ') == 22
    [backfill] = run(url, "apply", "--yes", *allowed, "--json").json["attempt"]["backfills"]
    assert backfill["rejects"] == 22
    assert [row["money"] for row in backfill["left_out"]] == [{"amounts": 5}] * 20
    log = run(url, "log", last_run(url), "--json").json
    assert (log["rejects"], len(log["left_out"])) == (22, 20)
    assert log["left_out"][0].keys() == {"source", "source_key", "line", "reason", "money"}
    assert len(run(url, "log", last_run(url), "--json", "--all").json["left_out"]) == 22


def test_each_payment_ends_in_exactly_one_bucket(url: str) -> None:
    """Invariant 17: charged now, charged before, not paid, or rejected; rows and cents sum to the source's."""
    sql(url, payment("2024-13"))
    source = sql(url, "select count(*), sum(amount_cents) from property.payments")
    run(url, "apply", "--yes", "--allow-rejects", "1")
    buckets = sql(
        url,
        """
        select bucket, count(*), sum(amount_cents)::bigint from (
            select p.amount_cents, concat_ws('+',
                case when c.created_by is null and c.id is not null then 'created' end,
                case when c.created_by is not null then 'matched' end,
                case when p.status = 'failed' and c.id is null then 'skipped' end,
                case when r.run_id is not null then 'rejected' end) as bucket
            from property.payments as p
            left join property.charges as c on c.type = 'rent' and (c.tenant_user_id, c.unit_id, c.billing_period)
                = (p.tenant_user_id, p.unit_id, p.billing_period)
            left join backfill.reject as r on r.source_key = p.id::text
        ) as x group by 1 order by 1
        """,
    )
    assert [name for name, _, _ in buckets] == ["created", "matched", "rejected", "skipped"]
    assert [(sum(row[1] for row in buckets), sum(row[2] for row in buckets))] == source


def test_control_totals_prove_each_money_table(url: str) -> None:
    """Invariant 4: before + changes = after for each table of the plan; the others are not counted."""
    tables = sql(url, "select table_name from backfill.tracked where active order by 1")
    money = "select count(*), coalesce(sum(amount_cents), 0)::bigint from property."
    before = {name: sql(url, money + name)[0] for name in ("charges", "payments")}
    report = run(url, "apply", "--yes", "--json").json
    totals = {total["table"]: total for total in report["attempt"]["totals"]}
    assert sorted(totals) == [name for (name,) in tables]
    for name, total in totals.items():
        if name != "property.charges":
            assert (total["rows_changed"], total["rows_updated"], total["money_changed"] or {}) == (0, 0, {})
            assert total["rows_before"] is total["rows_after"] is total["money_after"] is None
    total = totals["property.charges"]
    assert total["rows_before"] + total["rows_changed"] == total["rows_after"]
    was, change, left = (total[key].get("amounts", 0) for key in ("money_before", "money_changed", "money_after"))
    assert was + change == left
    assert (total["rows_before"], was) == before["charges"]
    assert (total["rows_after"], left) == sql(url, money + "charges")[0]
    assert sql(url, money + "payments")[0] == before["payments"]
    assert change == int(SAMPLE_TOTAL.replace(",", "").replace(".", ""))


def test_money_that_moves_in_replica_mode_is_captured_all_the_same(url: str, dump: Callable[..., str]) -> None:
    """What a trigger pays past ordinary triggers is in the report, in the run's images, and undone with them.

    Its id is another each time, but an id that the database assigns is no part of the digest (decision 0007).
    """
    run(url, "migrate")
    sql(
        url,
        "create function public.pay() returns trigger language plpgsql security definer as $$ begin"
        f" set local session_replication_role = replica; {payment('2024-01')};"
        " set local session_replication_role = origin; return null; end; $$",
        "create trigger pay after insert on property.charges for each statement execute function public.pay()",
    )
    count = "select count(*) from property.payments"
    before = sql(url, count)
    rows = sql(url, "select * from property.payments order by id")
    rehearsed = run(url, "apply", "--dry-run", code=None)
    assert "property.payments" in rehearsed.out
    assert sql(url, count) == before
    run(url, "apply", "--yes")
    written = "select count(*) from backfill.change_log where table_name = 'property.payments'"
    assert sql(url, written) == [(1,)]
    assert sql(url, count) == [(before[0][0] + 1,)]
    run(url, "rollback", last_run(url), "--yes")
    assert sql(url, "select * from property.payments order by id") == rows


LIMITS = (
    "create table public.limits (tenant text primary key, cents bigint not null)",
    "create view public.limits_due as select 10::bigint as cents where not exists (select from public.limits)",
    """create function public.set_limits(p jsonb) returns jsonb language sql as $$
        insert into public.limits select 'ada', cents from public.limits_due; select '{}'::jsonb
    $$""",
    "select backfill.track('public.limits')",
    """select backfill.register(
        'limits', 'own', 'Limits', 1000, 'public.limits_due', 'public.set_limits', '{public.limits}'
    )""",
)


def test_a_backfill_without_a_gate_is_refused(url: str, tmp_path: Path, dump: Callable[..., str]) -> None:
    sql(url, *LIMITS)
    tests = tmp_path / "own" / "tests" / "limits"
    tests.mkdir(parents=True)
    (tmp_path / "own" / "dbt_project.yml").write_text("name: mine\n")
    (tests / "only_a_warning.sql").write_text("{{ config(severity='warn') }} select 1 as x where false\n")
    options = config(tmp_path, dbt_project="own")
    before = dump(url, "--inserts")
    done = run(url, "apply", "--yes", *options, code=3)
    assert "no gate guards limits" in done.err
    assert dump(url, "--inserts") == before
    (tests / "limits_above_ten.sql").write_text("select cents from public.limits where cents > 10\n")
    run(url, "apply", "--yes", *options)
    assert sql(url, "select cents from public.limits") == [(10,)]
