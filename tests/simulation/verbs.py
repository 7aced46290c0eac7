"""What is disturbed: verbs of the runner, each with the state that it is judged by."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.story import last_run, sql

State = tuple[Any, ...]


def money(url: str) -> State:
    """The application's rows, without those that it writes beside the verb, each as it is known."""
    return (
        tuple(sql(url, "select id::text, tenant_user_id, unit_id::text, type, amount_cents, billing_period"
                       " from property.charges order by id")),
        tuple(sql(url, "select tenant_user_id, amount_cents, status, billing_period from property.payments"
                       " where tenant_user_id <> 'beside' order by 1, 4, 2, 3")),
    )  # fmt: skip


SEEN = {
    "public._yoyo_migration": "select migration_id from public._yoyo_migration order by 1",
    # What a load writes down of itself (when, in which run) is part of its digest.
    "backfill.backfill_log": "select backfill, mode, status, case when mode <> 'load' then digest end,"
    " metrics -> 'tables' from backfill.backfill_log order by 1, 2, 3, 4",
    "backfill.change_log": "select table_name, operation, count(*), currency_after, sum(amount_after)"
    " from backfill.change_log where table_name not like 'backfill.%' group by 1, 2, 4 order by 1, 2, 4",
    "staging.file": "select loader, sha256 from staging.file order by 1, 2",
    "rent.electricity_bills": "select count(*), sum(amount) from rent.electricity_bills",
}


def engine(url: str) -> State:
    """Migrations, runs with their digests, images, files and bills, as far as their tables are there."""
    return tuple(
        tuple(sql(url, query)) if sql(url, f"select to_regclass('{table}') is not null") == [(True,)] else None
        for table, query in SEEN.items()
    )


def whole(url: str) -> State:
    return (money(url), engine(url))


@dataclass(frozen=True)
class Verb:
    """A command: where it begins, its words (database, folder of the ground, folder of its own), how it ends."""

    name: str
    start: str
    words: Callable[[str, Path, Path], list[str]]
    writes: bool
    """Whether anything of the state differs afterwards."""
    steps: bool = False
    """Whether it commits as it goes, so that what stands in between is no half."""
    state: Callable[[str], State] = whole
    code: int = 0
    others: bool = False
    """Whether the application may have to wait longer than the lock budget, which ends the command (exit code 5)."""


VERBS = (
    Verb("first apply", "bare", lambda url, ground, own: ["apply", "--yes"], True, others=True),
    Verb("apply", "ready", lambda url, ground, own: ["apply", "charges", "--yes"], True),
    Verb("apply of bills", "loaded", lambda url, ground, own: ["apply", "electricity_bills", "--yes"], True),
    Verb("rehearsal", "ready", lambda url, ground, own: ["apply", "--dry-run"], False),
    Verb("rollback", "applied", lambda url, ground, own: ["rollback", undone(url), "--yes"], True),
    Verb("rehearsed rollback", "applied", lambda url, ground, own: ["rollback", undone(url), "--dry-run"], False),
    Verb("load", "ready", lambda url, ground, own: ["load", "electricity", str(ground / "bills.txt")], True),
    Verb("migrate", "bare", lambda url, ground, own: ["migrate"], True, steps=True),
    Verb("gates", "applied", lambda url, ground, own: ["gates"], False),
    Verb("snapshot", "applied", lambda url, ground, own: ["snapshot", "--directory", str(own)], False),
    Verb("verify", "applied", lambda url, ground, own: ["verify", "audit"], False),
    Verb("export", "applied", lambda url, ground, own: ["audit", "export", "--before", "2100-01-01", "--yes",
                                                          "--directory", str(own)], True, steps=True),
)  # fmt: skip


def undone(url: str) -> str:
    """The run of charges, of which there is one."""
    return last_run(url)
