"""What every object of the project must be, those of later systems included: pinned, private, explained, tracked."""

from __future__ import annotations

import psycopg

from tests.engine.words import rows

# Ours is what a migration makes: everything outside the system's schemas and the tests' own.
OURS = "n.nspname !~ '^pg_' and n.nspname not in ('information_schema', 'public')"
# Tables of the applications, made by a baseline where they are missing: whose columns we do not explain.
THEIRS = "format('%I.%I', n.nspname, c.relname) in (select relation from backfill.baseline)"

RULES = {
    "functions without a pinned search_path": f"""
        select p.oid::regprocedure::text from pg_proc as p join pg_namespace as n on n.oid = p.pronamespace
        where {OURS} and p.prosqlbody is null
            -- One sets the path of the statement that fires it, the other fires triggers in the path of its caller.
            and p.oid not in ('backfill.use_path'::regproc, 'backfill.fire_constraints'::regproc)
            and not coalesce('search_path=pg_catalog, pg_temp' = any (p.proconfig), false)""",
    "functions that everybody may call": f"""
        select p.oid::regprocedure::text from pg_proc as p join pg_namespace as n on n.oid = p.pronamespace
        cross join lateral aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) as a
        where {OURS} and a.grantee = 0
            -- A row-security policy is evaluated with the rights of whoever reads.
            and not exists (
                select from pg_depend as d
                where d.classid = 'pg_policy'::regclass and d.refclassid = 'pg_proc'::regclass and d.refobjid = p.oid
            )""",
    "schemas, tables, views and columns that everybody may use": f"""
        select n.nspname from pg_namespace as n cross join lateral aclexplode(n.nspacl) as a
        where {OURS} and a.grantee = 0
        union all
        select c.oid::regclass::text from pg_class as c join pg_namespace as n on n.oid = c.relnamespace
        cross join lateral aclexplode(c.relacl) as a where {OURS} and a.grantee = 0""",
    "functions of backfills that may be called outside a run": """
        select e.function_name || ' by ' || r.rolname
        from backfill.catalog as e cross join pg_roles as r
        where r.rolname in ('backfill_operator', 'backfill_auditor')
            and has_function_privilege(r.rolname, e.function_name || '(jsonb)', 'execute')""",
    "tables that an operator or auditor may write": f"""
        select c.oid::regclass::text || ' ' || p.name || ' by ' || r.rolname
        from pg_class as c join pg_namespace as n on n.oid = c.relnamespace
        cross join pg_roles as r
        cross join (values ('insert'), ('update'), ('delete'), ('truncate')) as p (name)
        where {OURS} and c.relkind in ('r', 'p') and n.nspname <> 'staging' and c.oid <> 'backfill.reject'::regclass
            and r.rolname in ('backfill_operator', 'backfill_auditor')
            and has_table_privilege(r.rolname, c.oid, p.name)""",
    "schemas without a comment": f"""
        select n.nspname from pg_namespace as n
        where {OURS} and obj_description(n.oid, 'pg_namespace') is null
            and n.nspname not in (select split_part(relation, '.', 1) from backfill.baseline)""",
    "tables and views without a comment": f"""
        select c.oid::regclass::text from pg_class as c join pg_namespace as n on n.oid = c.relnamespace
        where {OURS} and c.relkind in ('r', 'v', 'm', 'p', 'f') and obj_description(c.oid, 'pg_class') is null
            and not {THEIRS}""",
    "columns without a comment": f"""
        select c.oid::regclass::text || '.' || a.attname
        from pg_attribute as a join pg_class as c on c.oid = a.attrelid join pg_namespace as n on n.oid = c.relnamespace
        where {OURS} and n.nspname <> 'backfill_audit' and c.relkind in ('r', 'v', 'm', 'p', 'f')
            and a.attnum > 0 and not a.attisdropped and col_description(c.oid, a.attnum) is null and not {THEIRS}
            -- A view passes a table's column on under its name, with its comment.
            and not exists (
                select from pg_rewrite as w
                join pg_depend as d on d.objid = w.oid and d.classid = 'pg_rewrite'::regclass and d.refobjsubid > 0
                join pg_attribute as x on x.attrelid = d.refobjid and x.attnum = d.refobjsubid
                where w.ev_class = c.oid and x.attrelid <> c.oid and x.attname = a.attname
                    and col_description(x.attrelid, x.attnum) is not null
            )""",
    "functions without a comment": f"""
        select p.oid::regprocedure::text from pg_proc as p join pg_namespace as n on n.oid = p.pronamespace
        where {OURS} and obj_description(p.oid, 'pg_proc') is null""",
    "definer functions that trust the caller's settings": f"""
        select p.oid::regprocedure::text from pg_proc as p join pg_namespace as n on n.oid = p.pronamespace
        where {OURS} and p.prosecdef and p.prosqlbody is null and p.proconfig is null""",
    "money that is not a whole number of cents": f"""
        select c.oid::regclass::text || '.' || a.attname || ' is ' || format_type(a.atttypid, a.atttypmod)
        from pg_attribute as a join pg_class as c on c.oid = a.attrelid join pg_namespace as n on n.oid = c.relnamespace
        where {OURS} and c.relkind in ('r', 'v', 'p') and n.nspname <> 'backfill_audit' and not a.attisdropped
            and a.attname ~ '(^|_)cents(_|$)' and a.atttypid not in ('bigint'::regtype, 'bigint[]'::regtype)""",
    "tables of backfills that are not tracked": """
        select e.backfill || ': ' || t.name from backfill.catalog as e cross join lateral unnest(e.tables) as t (name)
        where not exists (select from backfill.tracked where table_name = t.name and active)""",
    "triggers of the capture that are missing or disabled": """
        select t.table_name || ' ' || x.name
        from backfill.tracked as t
        cross join (values ('capture_insert'), ('capture_update'), ('capture_delete'), ('refuse_truncate')) as x (name)
        where t.active and not exists (
            select from pg_trigger as g
            where g.tgrelid = t.table_name::regclass and g.tgname = 'backfill_' || x.name and g.tgenabled = 'A')""",
    "tables of the audit that are not append-only": """
        select c.oid::regclass::text from pg_class as c
        where c.relkind = 'r' and (c.relnamespace = 'backfill_audit'::regnamespace
                or c.oid in ('backfill.backfill_log'::regclass, 'backfill.reject'::regclass))
            and (
                select bit_or(g.tgtype) & 56 from pg_trigger as g
                where g.tgrelid = c.oid
                    and g.tgfoid in ('backfill.refuse_change'::regproc, 'backfill.guard_log'::regproc)
            ) is distinct from 56""",
}


def test_every_object_keeps_every_rule(conn: psycopg.Connection) -> None:
    found = {rule: sorted(str(row[0]) for row in rows(conn, query)) for rule, query in RULES.items()}
    broken = {rule: [name for name in names if "yoyo" not in name] for rule, names in found.items()}
    assert {rule: names for rule, names in broken.items() if names} == {}
