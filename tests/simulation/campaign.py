"""One seed: verb, fault and the moment at which it strikes follow from it; what must be so afterwards is the same."""

from __future__ import annotations

import random
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg

from tests.simulation.faults import FAULTS, Fault, Line, Scene
from tests.simulation.ground import Ground, Known
from tests.simulation.verbs import VERBS, Verb, money
from tests.story import command, environment, lock_holders, sql, until

WRITTEN = (
    "insert into property.payments (tenant_user_id, unit_id, amount_cents, payment_method, status, billing_period)"
    " select 'beside', id, 1, 'ach', 'failed', '2024-01' from property.units limit 1"
)
SAID_NOTHING = ("nothing was changed", "Nothing of the open transaction was kept", "Nothing was changed")
SAID_DONE = ("Applied and committed.", "Rolled back and committed.")


@dataclass
class Told:
    """How a seed ended: what was disturbed, by what, with which exit code."""

    seed: int
    verb: str
    fault: str
    at: float
    code: int
    wrong: list[str] = field(default_factory=list)
    said: str = ""


def drawn(seed: int) -> tuple[Verb, Fault, float, random.Random]:
    """What a seed stands for; faults come by turns, so that as many seeds as there are faults try each."""
    dice = random.Random(f"campaign {seed}")
    return dice.choice(VERBS), FAULTS[seed % len(FAULTS)], dice.uniform(0.02, 1.0), dice


@contextmanager
def application(url: str, written: list[int]) -> Iterator[None]:
    """It writes payments all the while, each committed; a connection that is lost is opened again."""
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            try:
                with psycopg.connect(url, autocommit=True, application_name="the application") as conn:
                    conn.execute("set default_transaction_read_only = off")
                    while not stop.wait(0.02):
                        written[1] += 1
                        conn.execute(WRITTEN.encode())
                        written[0] += 1
            except psycopg.Error:
                time.sleep(0.05)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@contextmanager
def watching(url: str, verb: Verb, known: Known, halves: list[Any]) -> Iterator[None]:
    """Somebody who looks all the while: what he sees of the money is what it was, or what it will be."""
    stop = threading.Event()
    allowed = (known.before[0][0], known.after[0][0])

    def look() -> None:
        while not stop.is_set():
            try:
                with psycopg.connect(url, autocommit=True, application_name="somebody who looks") as conn:
                    while not stop.wait(0.01):
                        seen = tuple(conn.execute(
                            "select id::text, tenant_user_id, unit_id::text, type, amount_cents, billing_period"
                            " from property.charges order by id"
                        ).fetchall())  # fmt: skip
                        if seen not in allowed:
                            halves.append(len(seen))
            except psycopg.Error:
                time.sleep(0.05)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def disturb(ground: Ground, seed: int) -> Told:
    """Run the seed, look at what is left, run the command again undisturbed, and look once more."""
    verb, fault, share, dice = drawn(seed)
    known = ground.learn(verb)
    name = f"seed_{seed}"
    url = ground.copy(verb, name)
    words = ground.words(verb, url)
    told = Told(seed, verb.name, fault.name, round(share, 2), 0)
    written, halves = [0, 0], list[Any]()
    limit = f"{max(1, int(known.seconds * share * 300))}ms"
    if fault.options == ("max_time",):
        words += ["--max-time", limit]
    given = environment(url)
    if fault.options == ("statement_timeout",):
        file = ground.place(name) / "runner.toml"
        file.write_text((ground.folder / "runner.toml").read_text() + f'statement_timeout = "{limit}"\n')
        words = [*words[: words.index("--config")], "--config", str(file)]
    sql(url, *[statement.format(name=name) for statement in filter(None, [fault.before])])
    with tempfile.TemporaryDirectory(prefix="line-") as folder, application(url, written), \
            watching(url, verb, known, halves):  # fmt: skip
        line = Line(url, Path(folder)) if fault.proxy else None
        if line is not None:
            given["DATABASE_URL"] = line.url
        out = Path(fault.stdout).open("w") if fault.stdout != "pipe" else subprocess.PIPE  # noqa: SIM115 - closed below
        process = subprocess.Popen(
            command(*words), env=given, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.PIPE, text=True
        )
        scene = Scene(ground, url, process, known.seconds * share, dice, words)
        if line is not None and scene.moment():
            line.cut() if "cut" in fault.name else line.stall(1.5)
        fault.strike(scene)
        told.code, told.said = _ended(process)
        if line is not None:
            line.close()
        if out != subprocess.PIPE:
            out.close()  # type: ignore[union-attr]
    sql(url, *[part.format(name=name) for part in fault.mended.split("; ") if part])
    _judge(ground, verb, fault, known, url, told, halves, written)
    _again(ground, verb, known, url, told)
    sql(ground.server.url(), f"drop database {name} with (force)")
    return told


def _ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    if process.stdout is None or process.stdout.closed:
        assert process.stderr is not None
        with process.stderr:
            said = process.stderr.read()
        return process.wait(120), said
    out, err = process.communicate(timeout=120)
    return process.returncode, f"{err}\n{out}"


def _judge(
    ground: Ground, verb: Verb, fault: Fault, known: Known, url: str, told: Told, halves: list[Any], written: list[int]
) -> None:
    """What is there, and what was said."""
    wrong = told.wrong
    runners = "select from pg_stat_activity where datname = current_database() and application_name like 'runner%'"
    # A session that is ending is off the list before its locks are.
    until(lambda: not sql(url, runners) and not lock_holders(url), "the runner's sessions and locks to go", 40)
    if told.code not in fault.codes | {verb.code} | ({5} if verb.others else set()):
        wrong.append(f"exit code {told.code}")
    if "Traceback" in told.said:
        wrong.append("a traceback")
    if halves:
        wrong.append(f"a half was seen: {halves[:3]} charges")
    found = verb.state(url)
    kept = (known.before, known.after) if not verb.steps else None
    if kept is not None and found not in kept:
        wrong.append("neither what it was nor what it should be")
    if money(url)[0] not in (known.before[0][0], known.after[0][0]):
        wrong.append("charges that are neither those from before nor all")
    if told.code == verb.code and fault.name != "a second runner" and found != known.after:
        wrong.append("it said that it was done, and it is not")
    if any(words in told.said for words in SAID_NOTHING) and not verb.steps and fault.name != "a second runner" \
            and found != known.before:  # fmt: skip
        wrong.append("it said that nothing was changed, and something is")
    if any(words in told.said for words in SAID_DONE) and found != known.after:
        wrong.append("it said that it is committed, and it is not")
    [(there,)] = sql(url, "select count(*) from property.payments where tenant_user_id = 'beside'")
    if not written[0] <= there <= written[1]:
        wrong.append(f"the application was told {written[0]} payments, {there} are there")
    if sql(url, "select from pg_prepared_xacts"):
        wrong.append("a prepared transaction is left")


def _again(ground: Ground, verb: Verb, known: Known, url: str, told: Told) -> None:
    """The same command, undisturbed: it ends in the same state, and the audit is whole."""
    done = subprocess.run(
        command(*ground.words(verb, url)), env=environment(url), capture_output=True, text=True, check=False
    )
    if done.returncode != verb.code:
        told.wrong.append(f"again: exit code {done.returncode}: {done.stderr[-400:]}")
    if verb.state(url) != known.after:
        told.wrong.append("again: another state than undisturbed")
    if sql(url, "select to_regclass('backfill.chain') is not null") == [(True,)]:
        told.wrong += [f"the audit: {row[0]}" for row in sql(url, "select wrong from backfill.verify_chain()")]
