"""Who may use what: every function and table of the engine and its systems, by role. What is not in the list fails.

The list is who_may.txt beside this file. A new function or table is added to it by a person who has thought about it:
`WHO_MAY=write pytest tests/engine/test_who_may.py` writes it anew, and the difference is what a review reads.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from pathlib import Path

import psycopg

from tests.engine.words import rows

IMAGES = re.compile(r"^(table|view|function) backfill_audit[.].*")

LIST = Path(__file__).with_name("who_may.txt")

ROLES = {
    "public": "everybody",
    "backfill_auditor": "reads",
    "backfill_operator": "runs and undoes backfills; all that the auditor may as well",
    "lending_admin": "links schedules; all that the operator may as well",
    "billing_tenant": "nothing until enable_rls()",
    "billing_service": "the application's services",
    "billing_readonly": "reports",
}

FUNCTIONS = """
    select coalesce(r.name, 'owner'), 'function ' || p.oid::regprocedure, 'execute'
    from pg_proc as p
    join pg_namespace as n on n.oid = p.pronamespace
    left join unnest(%s::text[]) as r (name) on case when r.name = 'public' then exists (
            select from aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) as a
            where a.grantee = 0 and a.privilege_type = 'EXECUTE')
        else has_function_privilege(r.name, p.oid, 'execute') end
    where n.nspname = any (%s)
"""

TABLES = """
    select coalesce(r.name, 'owner'), k.kind || c.oid::regclass, coalesce(r.verbs, 'all')
    from pg_class as c
    join pg_namespace as n on n.oid = c.relnamespace
    cross join lateral (
        select case c.relkind when 'v' then 'view ' when 'S' then 'sequence ' else 'table ' end) as k (kind)
    left join lateral (
        select x.name, string_agg(lower(x.verb), ', ' order by x.verb) as verbs
        from (
            select x.name, v.verb
            from unnest(%s::text[]) as x (name)
            cross join unnest(
                array['select', 'insert', 'update', 'delete', 'truncate', 'trigger', 'references']) as v (verb)
            where c.relkind <> 'S' and case when x.name = 'public' then exists (
                    select from aclexplode(c.relacl) as a where a.grantee = 0 and lower(a.privilege_type) = v.verb)
                else has_table_privilege(x.name, c.oid, v.verb) or (
                    v.verb in ('select', 'insert', 'update') and has_any_column_privilege(x.name, c.oid, v.verb)) end
            union all
            select x.name, v.verb
            from unnest(%s::text[]) as x (name) cross join unnest(array['usage', 'select', 'update']) as v (verb)
            where c.relkind = 'S' and x.name <> 'public' and has_sequence_privilege(x.name, c.oid, v.verb)
        ) as x
        group by x.name
    ) as r on true
    where n.nspname = any (%s) and c.relkind in ('r', 'p', 'v', 'm', 'S')
"""


def found(conn: psycopg.Connection) -> list[str]:
    """A line for each object: who may do what with it, beyond the owner."""
    conn.execute("set local search_path = pg_catalog")
    schemas = [
        row[0]
        for row in rows(
            conn,
            "select nspname from pg_namespace where nspname in ('backfill', 'backfill_audit', 'staging') or nspname in"
            " (select substr(relation, 8) from backfill.baseline where relation like 'schema %%') order by 1",
            [],
        )
    ]
    roles = list(ROLES)
    may: dict[str, dict[str, str]] = defaultdict(dict)
    for role, what, verbs in [
        *rows(conn, FUNCTIONS, [roles, schemas]),
        *rows(conn, TABLES, [roles, roles, schemas]),
    ]:
        may[what][role] = verbs
    # Tables of images are many, and one as the other.
    names = {what: IMAGES.sub(r"\1 backfill_audit.<of a table>", what) for what in may}
    return sorted({f"{names[what]}: {said(may[what])}" for what in may})


def said(may: dict[str, str]) -> str:
    """What stands behind an object. Whoever has what the one below him has is not named again."""
    ranks = ["public", "backfill_auditor", "backfill_operator", "lending_admin"]
    words = []
    for role in [*ROLES, "owner"]:
        if role not in may or (role == "owner" and may[role] != "all" and len(may) > 1):
            continue
        below = ranks[ranks.index(role) - 1] if role in ranks[1:] else None
        if below is None or may.get(below) != may[role]:
            words.append(role if may[role] in ("execute", "all") else f"{role} {may[role]}")
    return "; ".join(words)


def test_everybody_may_use_what_the_list_says_and_nothing_else(conn: psycopg.Connection) -> None:
    now = found(conn)
    if os.environ.get("WHO_MAY") == "write":
        LIST.write_text("".join(f"{line}\n" for line in now), encoding="utf-8")
    listed = LIST.read_text(encoding="utf-8").splitlines()
    assert {
        "not in the list": sorted(set(now) - set(listed)),
        "in the list, and not so": sorted(set(listed) - set(now)),
    } == {"not in the list": [], "in the list, and not so": []}


def test_nobody_but_a_trigger_or_a_reading_function_is_public(conn: psycopg.Connection) -> None:
    """PUBLIC may use nothing of ours at all."""
    assert [line for line in found(conn) if ": public" in line] == []


def test_the_auditor_only_reads(conn: psycopg.Connection) -> None:
    """No table can be written, and what he may call that is VOLATILE makes temporary tables of its own."""
    assert [
        line
        for line in found(conn)
        if "auditor" in line and ": backfill_auditor select" not in line and "function" not in line
    ] == []
    writing = rows(
        conn,
        "select oid::regprocedure::text from pg_proc where provolatile = 'v' and pronamespace >= 16384"
        " and has_function_privilege('backfill_auditor', oid, 'execute') order by 1",
    )
    assert [row[0] for row in writing] == [
        "backfill.check_chain()",
        "backfill.verify_chain(text)",
        "staging.begin_comparison()",
        "staging.compare_finance_ledger(text,numeric,date,date,uuid,date)",
    ]
