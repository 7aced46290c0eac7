"""The command line itself: help, documentation, imports, exit codes, what goes to which stream."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from runner import cli
from runner.cli import EXAMPLES, app
from runner.errors import CODES, RunnerError
from runner.result import EXIT_CODES
from runner.terminal import complete
from tests.place import ROOT
from tests.story import SAMPLE_CHARGES, adopt, command, config, environment, holding, last_run, run, shell, sql

DOCUMENTS = (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))


def commands(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Every verb with its whole name, those of nested groups among them."""
    for name, found in group.commands.items():
        if hasattr(found, "commands"):
            yield from commands(found, (*path, name))
        else:
            yield " ".join((*path, name)), found


VERBS = dict(commands(typer.main.get_command(app)))
DOCUMENTED = "\n".join(file.read_text(encoding="utf-8") for file in DOCUMENTS)


@pytest.mark.parametrize("verb", sorted(VERBS))
def test_each_verb_and_option_has_help(verb: str) -> None:
    found = VERBS[verb]
    assert found.help
    for parameter in found.params:
        assert getattr(parameter, "help", None) or parameter.name == "help", parameter.opts
    assert f"Usage: runner {verb}" in run("", *verb.split(), "--help").out


@pytest.mark.parametrize("verb", sorted(VERBS))
def test_each_verb_and_option_is_documented(verb: str) -> None:
    """In the README or below docs/: `runner <verb>`, and each option by its name."""
    assert re.search(rf"\brunner {verb}\b", DOCUMENTED), f"runner {verb} is in no document"
    options = {option for parameter in VERBS[verb].params for option in parameter.opts if option.startswith("--")}
    missing = sorted(option for option in options - {"--help"} if not re.search(rf"{option}\b", DOCUMENTED))
    assert missing == [], f"runner {verb}: no document names {', '.join(missing)}"


def test_every_exit_code_is_documented_and_no_other_is_used() -> None:
    table = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
    documented = {int(code) for code in re.findall(r"^\| (\d) \|", table, re.MULTILINE)}
    classes = [RunnerError]
    for found in classes:
        classes += found.__subclasses__()
    assert documented == {0, 1, 2, 3, 4, 5, 6}
    of_codes = {code.exit_code for code in CODES.values()}
    assert {found.exit_code for found in classes} | of_codes | set(EXIT_CODES.values()) == documented
    assert all(f"{code} " in (app.info.epilog or "") for code in documented)


def test_the_table_of_our_own_sqlstates_is_the_codes() -> None:
    table = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| BF\d+ \|.*$", table, re.MULTILINE)
    assert rows == [f"| {state} | {code.meaning} | {code.exit_code} |" for state, code in CODES.items()]


def test_each_exit_code_is_reached(database_url: str, tmp_path: Path) -> None:
    """All but 4, and 3 by a gate: those are in test_stopped."""
    url = adopt(database_url)
    run(url, "apply", code=2)
    run(url, "apply", "--dry-run", code=0)
    run("host=/nosuch", "status", code=1)
    run(url, "nosuch", code=2)
    run(url, "apply", "--nosuch", code=2)
    run(url, "apply", "--allow-rejects", "-1", code=2)
    run(url, "apply", "nosuch", code=2)
    run(url, "status", "--config", str(tmp_path / "none.toml"), code=2)
    run(url, "status", *config(tmp_path, lock_timout=5), code=2)
    sql(url, "insert into property.payments (tenant_user_id, unit_id, amount_cents, payment_method, status,"
             " billing_period) select 'x', id, 1, 'ach', 'pending', 'never' from property.units limit 1")  # fmt: skip
    run(url, "apply", "--yes", code=3)
    with holding(url, "select pg_advisory_xact_lock(hashtextextended('backfill', 0))"):
        run(url, "apply", "--yes", *config(tmp_path, lock_wait="100ms"), code=5)
    run(url, "apply", "--yes", "--allow-rejects", "1", code=0)
    sql(url, "update property.charges set amount_cents = 1 where tenant_user_id = 'ada' and created_by is null")
    run(url, "rollback", last_run(url), "--yes", code=6)


def test_help_loads_neither_driver_nor_dbt_nor_yoyo_nor_rich() -> None:
    script = (
        "import sys\nfrom runner.cli import app\n"
        "try:\n    app(['--help'], prog_name='runner')\nexcept SystemExit:\n    pass\n"
        "heavy = {'psycopg', 'psycopg_binary', 'rich', 'yoyo', 'dbt', 'jinja2', 'sqlparse', 'httpx', 'fsspec'}\n"
        "print(sorted(heavy & {name.partition('.')[0] for name in sys.modules}), file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"
    assert "Exit codes" in done.stdout


def test_no_arguments_show_the_help() -> None:
    done = run("", code=None)
    assert "Usage: runner" in done.text


def test_results_go_to_stdout_and_messages_to_stderr(database_url: str) -> None:
    url = adopt(database_url)
    done = shell(url, "apply", "--dry-run", "--json")
    assert done.json["verdict"] == "rehearsed"
    assert "rehearsing: gates" in done.err
    assert done.err.isprintable() or "\x1b" not in done.err
    failed = shell(url, "apply", "nosuch", "--json", code=2)
    assert failed.json == {"error": "there is no backfill nosuch; there are: " + failed.json["error"].split(": ")[1],
                           "exit_code": 2, "schema_version": 1}  # fmt: skip
    assert failed.json["error"] in failed.err


def test_a_reader_that_has_seen_enough_does_not_stop_the_apply(database_url: str) -> None:
    """`runner apply --yes --all | head -1`: the rows are streamed while the transaction is open."""
    url = adopt(database_url)
    sql(url, "insert into property.payments (tenant_user_id, unit_id, amount_cents, payment_method, status,"
             " billing_period) select 'tenant ' || n, (select id from property.units limit 1), 5, 'ach', 'succeeded',"
             " '2020-01' from generate_series(1, 5000) as n")  # fmt: skip
    line = f"set -o pipefail; {' '.join(command('apply', '--yes', '--all'))} | head -1"
    done = subprocess.run(["bash", "-c", line], env=environment(url), stdin=subprocess.DEVNULL, capture_output=True,
                          text=True, check=False)  # fmt: skip
    assert "Traceback" not in done.stderr
    assert "BrokenPipe" not in done.stderr
    assert done.returncode == 0, done
    assert done.stdout.startswith("insert  ")
    assert sql(url, "select count(*) from backfill.charges_due") == [(0,)]


def test_a_terminal_that_cannot_write_every_character_still_gets_its_report(database_url: str) -> None:
    url = adopt(database_url)
    sql(url, "update property.payments set tenant_user_id = 'żółw' where tenant_user_id = 'ada'")
    for encoding in ("ascii", "latin-1"):
        done = subprocess.run(
            command("apply", "--dry-run"), env=environment(url, PYTHONIOENCODING=encoding, PYTHONUTF8="0"),
            stdin=subprocess.DEVNULL, capture_output=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert b"Rehearsed and rolled back" in done.stdout


def test_a_traceback_only_with_debug(database_url: str) -> None:
    assert "Traceback" not in shell(database_url, "apply", "nosuch", code=2).err
    done = shell(database_url, "apply", "nosuch", "--debug", code=None)
    assert "Traceback" in done.err
    assert done.code != 0


def test_every_answer_fits_a_terminal(database_url: str, dump: Callable[..., str]) -> None:
    url = adopt(database_url)
    answers = [run(url, "apply", "--dry-run"), run(url, "apply", "--yes"), run(url, "apply")]
    answers += [run(url, verb) for verb in ("status", "log", "doctor")]
    answers += [run(url, "log", last_run(url)), run(url, "rollback", last_run(url), "--dry-run"), run(url, "--help")]
    answers += [run(url, *verb.split(), "--help") for verb in VERBS]
    for answer in answers:
        assert max(map(len, answer.out.splitlines())) <= 100
        assert "None" not in answer.out


SYSTEM_VERBS = {
    "invoices": ["load invoices none.csv", "statement"],
    "rent": [f"{verb} {what} none" for verb in ("load", "verify") for what in ("rent-history", "electricity")],
    "reconciliation": ["reconcile"],
    "lending": [
        "fetch rotessa --from 2024-01-01",
        "schedules list",
        "schedules link 1 M-1",
        "schedules unlink 1 --reason wrong",
        "ledger push",
        "ledger verify",
    ],
}


@pytest.mark.parametrize("system", SYSTEM_VERBS)
def test_a_verb_of_a_system_that_is_not_selected_ends_before_it_connects(system: str, tmp_path: Path) -> None:
    """It stays in --help, so that one learns how to have it."""
    for words in SYSTEM_VERBS[system]:
        failed = shell("host=/nosuch", *words.split(), *config(tmp_path, systems=["charges"]), "--json", code=2)
        assert failed.json["error"].startswith(
            f"{system} is not selected: add it to systems in runner.toml: systems = ["
        )
        assert f'"{system}"]' in failed.err


def test_each_verb_belongs_to_the_engine_or_says_its_system() -> None:
    """The verbs above are all that the systems bring."""
    named = {next(verb for verb in VERBS if words.startswith(verb)) for each in SYSTEM_VERBS.values() for words in each}
    assert {verb for verb, found in cli.VERBS.items() if not found.__module__.startswith("runner.terminal.")} == named


def test_all_rows_as_json_are_the_one_key_changes(database_url: str) -> None:
    url = adopt(database_url)
    assert len(run(url, "apply", "charges", "--dry-run", "--all", "--json").json["changes"]) == SAMPLE_CHARGES
    run(url, "apply", "charges", "--yes")
    done = run(url, "log", last_run(url), "--all", "--json")
    assert done.out.count('"changes": [') == 1
    assert len(done.json["changes"]) == SAMPLE_CHARGES


def test_the_modules_run_as_the_console_script_does() -> None:
    helps = [
        subprocess.run([sys.executable, "-m", module, "--help"], capture_output=True, text=True, check=True).stdout
        for module in ("runner", "runner.cli")
    ]
    assert helps[0] == helps[1].replace("python -m runner.cli", "python -m runner")
    script = Path(sys.executable).with_name("runner")
    if not script.exists():
        pytest.skip("the console script is not installed beside this interpreter")
    done = subprocess.run([script, "--help"], capture_output=True, text=True, check=True, env={**os.environ})
    assert done.stdout == helps[0].replace("python -m runner", "runner")


@pytest.mark.parametrize(
    "words",
    [
        ("apply", "--limit", "--json"), ("log", "--json", "--limit", "x"), ("load", "nothing", "--json"),
        ("--json", "apply"), ("schedules", "link", "--json"), ("aply", "--json"),
    ],
    ids=" ".join,
)  # fmt: skip
def test_what_is_no_command_line_is_an_object_too(words: tuple[str, ...]) -> None:
    done = run("", *words, code=2)
    assert done.json.keys() == {"error", "exit_code", "schema_version"}
    assert done.json["exit_code"] == 2
    assert done.json["error"] in done.text
    assert "{" not in run("", *(word for word in words if word != "--json"), "--nonsense", code=2).out


@pytest.mark.parametrize("verb", EXAMPLES)
def test_the_examples_of_a_verb_are_command_lines_of_it(verb: str) -> None:
    """Each option of theirs is one, and its --help shows them."""
    for rest in EXAMPLES[verb]:
        shown = run("", *verb.split(), *shlex.split(rest), "--help").out
        assert f"runner {verb} {rest}".rstrip() in shown
        assert "[[" not in shown


def test_a_shell_is_offered_backfills_and_runs(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    url = adopt(database_url)
    monkeypatch.setenv("DATABASE_URL", url)
    assert ("charges", "Rent charges for payments that were taken before charges existed") in complete.backfills("ch")
    assert complete.backfills("nothing") == []
    sql(url, "select backfill.run('charges')")
    [(beginning, words)] = complete.runs("")
    assert last_run(url).startswith(beginning)
    assert words.startswith("charges succeeded, ")
    monkeypatch.setenv("DATABASE_URL", "host=/nowhere dbname=x")
    assert complete.runs("") == []
