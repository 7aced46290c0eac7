"""What was loaded is what is written, and the log says who did it: each forgery as the role that tries it."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest

from tests.acceptance.test_operator import INVOICES, RENT, operator, owner
from tests.place import CONFIG
from tests.story import run, sql

__all__ = ["operator", "owner"]


@pytest.fixture
def loaded(owner: str, operator: str, tmp_path: Path) -> str:
    """The invoices and electricity bills of the samples, staged by the operator."""
    [(company,)] = sql(operator, "select name from billing.companies where name <> 'Northwind Billing'")
    file = tmp_path / "runner.toml"
    file.write_text(CONFIG.read_text() + (INVOICES / "runner.toml").read_text())
    run(operator, "load", "invoices", str(INVOICES / "catalogue.csv"), "--aliases", str(INVOICES / "aliases.csv"),
        "--company", company, "--first-wins", "--allow-rejects", "2", "--config", str(file))  # fmt: skip
    run(operator, "load", "electricity", str(RENT / "bills.txt"))
    assert sql(owner, "select * from backfill.broken_seals()") == []
    return operator


def state(url: str, *statements: str) -> str | None:
    """Under which SQLSTATE the statements, in one transaction, are refused."""
    with psycopg.connect(url) as conn:
        try:
            for statement in statements:
                conn.execute(statement.encode())
            conn.commit()
        except psycopg.Error as exc:
            return exc.sqlstate
    return None


LOAD = "select backfill.begin_run('load of mine', p_mode => 'load')"
BY_HAND = "select backfill.begin_run('a correction')"
BILL = "insert into staging.electricity_bill values (repeat('a', 64), 1, 'Vattenfall', '2024-01-01', 100)"
LANDED = """select staging.land_files('mine', json_build_array(json_build_object(
    'sha256', repeat('a', 64), 'name', 'mine.csv', 'bytes', 1))::jsonb)"""

FORGERIES = {
    "a staged total": (["update staging.invoices set total_cents = total_cents + 100000000"], "42501"),
    "in a run": ([BY_HAND, "update staging.invoices set total_cents = total_cents + 100000000"], "42501"),
    "a staged invoice": ([LOAD, "insert into staging.invoices select * from staging.invoices"], "42501"),
    "a bill outside of a load": ([BILL], "BF013"),
    "a bill in a correction": ([BY_HAND, BILL], "BF013"),
    "a bill of no file": ([LOAD, BILL], "BF013"),
    "a bill taken away": ([LOAD, "delete from staging.electricity_bill"], "42501"),
    "a line of Finance's": (["insert into staging.finance_ledger_raw (ledger_id) values ('L-1')"], "BF013"),
    "a file in no load": ([BY_HAND, LANDED], "BF001"),
    "a file of another's load": (["insert into staging.file select * from staging.file"], "42501"),
    "a reject under an old run": (["insert into backfill.reject select * from backfill.reject"], "42501"),
    "a reject in no load": (["select backfill.keep_rejects('[]')"], "BF001"),
    "a reject of a backfill's": (
        ["select backfill.begin_run('charges', p_mode => 'load')", "select backfill.keep_rejects('[]')"], "BF001",
    ),
    "an apply": (["select backfill.begin_run('charges', p_mode => 'apply', p_actor => 'Grace (CFO)')"], "BF001"),
    "a reversal": (["select backfill.begin_run('charges', p_mode => 'reversal')"], "BF001"),
    "control totals": ([BY_HAND, """select backfill.finish_run('{"control_totals": []}')"""], "BF001"),
    "an approval": ([BY_HAND, """select backfill.finish_run('{"approved_by": "CFO"}')"""], "BF001"),
    "unchecked metrics": ([BY_HAND, "select backfill.close_run('{}', '[]', null, true)"], "42501"),
    "actions": (["""select backfill.begin_run('x', '{"actions": [{"action": "approved"}]}')"""], "BF001"),
    "the log": (["update backfill.backfill_log set actor = 'Grace'"], "42501"),
    "a seal": (["delete from backfill.seal"], "42501"),
    "a new seal": (["select backfill.reseal('staging.invoices', 'mine')"], "42501"),
    "a table of the load's name": (
        [LOAD, "create temp table incoming_aliases (line bigint, client text, facility text)",
         "create temp table intake_rejects (kind text, source_key text, line bigint, reason text, cents bigint)",
         "select staging.take_aliases(null)"], "BF013",
    ),
}  # fmt: skip


def test_an_operator_forges_nothing(loaded: str, owner: str) -> None:
    everything = "select md5(string_agg(x::text, ',' order by x::text)) from {} as x"
    tables = ("staging.invoices", "staging.invoice_lines", "staging.electricity_bill", "staging.file",
              "backfill.backfill_log", "backfill.reject", "backfill.seal")  # fmt: skip
    before = [sql(owner, everything.format(table)) for table in tables]
    assert {name: state(loaded, *statements) for name, (statements, _) in FORGERIES.items()} == {
        name: code for name, (_, code) in FORGERIES.items()
    }
    assert [sql(owner, everything.format(table)) for table in tables] == before


def test_an_operator_loads_by_hand_what_he_has_landed(loaded: str, owner: str) -> None:
    assert state(loaded, LOAD, LANDED, BILL, "select backfill.finish_run()") is None
    assert sql(owner, "select * from backfill.broken_seals()") == []
    [(run_id,)] = sql(owner, "select run_id::text from backfill.backfill_log where backfill = 'load of mine'")
    run(loaded, "rollback", run_id, "--yes")
    assert sql(owner, "select count(*) from backfill.seal where owner = repeat('a', 64)") == [(0,)]


def test_the_log_shows_the_login_beside_whom_somebody_claims_to_be(loaded: str, owner: str) -> None:
    login = psycopg.conninfo.conninfo_to_dict(loaded)["user"]
    name = f"Grace (CFO) via {login}"
    assert state(loaded, f"select backfill.begin_run('x', p_actor => '{name}')", "select backfill.finish_run()") is None
    assert sql(owner, "select actor, login from backfill.backfill_log where backfill = 'x'") == [
        (f"{name} (claimed) via {login}", login)
    ]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("update staging.invoices set total_cents = total_cents + 1 where invoice_number = 'INV-0002'",
         "staging.invoices: 77 rows of catalogue.csv were staged, 77 are there, not the same"),
        ("delete from staging.invoice_lines where invoice_number = 'INV-0002'",
         "staging.invoice_lines: 77 rows of catalogue.csv were staged, 76 are there"),
        ("""insert into staging.invoice_lines
            select company_id, invoice_number, 9, 'x', null, null, null, null, 1, 'USD' from staging.invoices
            limit 1""",
         "staging.invoice_lines: 0 rows of no file were staged, 1 are there"),
    ],
)  # fmt: skip
def test_a_backfill_refuses_what_is_no_longer_what_was_loaded(loaded: str, owner: str, change: str, said: str) -> None:
    [(number,)] = sql(owner, "select min(invoice_number) from staging.invoices")
    sql(owner, change.replace("INV-0002", number))
    for verb in (["--dry-run"], ["--yes"]):
        refused = run(loaded, "apply", "invoices", *verb, code=1)
        assert "what is staged is not what was loaded" in refused.text
        assert said in refused.text
    assert sql(owner, "select count(*) from billing.invoices where origin = 'backfill'") == [(0,)]
    run(loaded, "apply", "charges", "--dry-run")  # what does not come from there goes on


def test_whoever_answers_for_it_seals_it_anew(loaded: str, owner: str) -> None:
    sql(owner, "update staging.electricity_bill set amount = amount + 1 where line = 7")
    assert run(loaded, "apply", "electricity_bills", "--dry-run", code=1).code == 1
    sql(owner, "select backfill.reseal('staging.electricity_bill', 'the reader took a 1 for a 7')")
    run(loaded, "apply", "electricity_bills", "--dry-run")
    assert sql(owner, "select backfill, actor from backfill.backfill_log order by started_at desc limit 1") == [
        ("reseal staging.electricity_bill: the reader took a 1 for a 7", "postgres")
    ]


def test_a_correction_in_a_run_keeps_the_seal(loaded: str, owner: str) -> None:
    with psycopg.connect(owner) as conn:
        conn.execute("select backfill.begin_run('the reader took a 1 for a 7')")
        conn.execute("update staging.electricity_bill set amount = amount + 1")
        conn.execute("select backfill.finish_run()")
    assert sql(owner, "select * from backfill.broken_seals()") == []
    run(loaded, "apply", "electricity_bills", "--dry-run")
