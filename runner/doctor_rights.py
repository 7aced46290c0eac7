"""What `runner doctor` says of owners, rights and row security."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import psycopg

from runner import history, migrations
from runner.database import Connection
from runner.findings import Finding, one
from runner.fit import fits
from runner.settings import Settings

_NOT_OURS: Final = """
    select string_agg(format('%%s of %%s', c.oid::regclass, r.rolname), ', ' order by c.oid::regclass::text),
        string_agg(distinct format('(%%L)', r.rolname), ', ')
    from pg_class as c join pg_roles as r on r.oid = c.relowner
    where c.oid in (select to_regclass(t) from unnest(%s::text[]) as t) and not r.rolsuper and r.rolname <> current_user
"""
_TRUST: Final = "insert into backfill.trusted_owner (owner) values {};"


def owners(conn: Connection, settings: Settings) -> Iterator[Finding]:
    """Whose code would run with the rights of the engine's owner, before any run is refused for it."""
    if not one(conn, "select to_regclass('backfill.trusted_owner') is not null"):
        tables = [relation for fit in fits(conn, settings.systems) for relation in fit.found]
        found, values = conn.execute(_NOT_OURS, [tables]).fetchone() or (None, None)
        if found:
            yield Finding(
                "owners", "warn",
                f"{found}: whoever owns a table has code run there with the rights of the engine's owner. First apply "
                "with systems = [] in runner.toml, which commits the engine alone; then, where they are trusted: "
                + _TRUST.format(values),
            )  # fmt: skip
        return
    owner = one(conn, "select backfill.engine_owner()")
    try:
        conn.execute("select backfill.require_trusted()")
    except psycopg.errors.DatabaseError as exc:
        if exc.sqlstate != migrations.UNTRUSTED:
            raise
        yield Finding("owners", "fail", f"{exc.diag.message_primary}. {exc.diag.message_hint}")
    else:
        yield Finding("owners", "ok", f"the engine is {owner}'s; all code on tracked tables is trusted")


def ours(conn: Connection, _settings: Settings) -> Iterator[Finding]:
    """What is ours and belongs to a superuser, or was staged by nobody."""
    if not one(conn, "select to_regclass('backfill.sealed_table') is not null"):
        return
    left = one(
        conn,
        "select string_agg(p.oid::regprocedure::text, ', ') from pg_proc as p join pg_roles as r on r.oid = p.proowner"
        " join pg_namespace as n on n.oid = p.pronamespace where p.prosecdef and r.rolsuper and (n.nspname in"
        " ('backfill', 'backfill_audit') or exists (select from backfill.baseline as b"
        " where b.relation = format('schema %I', n.nspname)))",
    ) if one(conn, "select has_table_privilege('backfill.baseline', 'select')") else None  # fmt: skip
    if left:
        yield Finding(
            "owners", "warn", f"these run with a superuser's rights: {left}. As superuser: select backfill.hand_over();"
        )
    broken = conn.execute("select relation, coalesce(source, 'no file') from backfill.broken_seals()").fetchall()
    if broken:
        listed = ", ".join(f"{relation} ({source})" for relation, source in broken)
        yield Finding("seals", "fail", f"what is staged is not what was loaded, and is refused: {listed}")
    else:
        yield Finding("seals", "ok", "what is staged is what was loaded")


def rights(conn: Connection, _settings: Settings) -> Iterator[Finding]:
    installed = one(conn, "select to_regnamespace('backfill') is not null")
    if not installed:
        create = one(conn, "select has_database_privilege(current_database(), 'create')")
        home = history.home_for_new(conn)
        tables = home and one(conn, "select has_schema_privilege(%s, 'create')", home)
        if create and tables:
            yield Finding("rights", "ok", "may create the schemas of the first apply")
        elif create:
            yield Finding(
                "rights",
                "fail",
                f"may not create yoyo's tables in schema {home or 'public'}: grant create on schema public to this "
                "role, for the first apply",
            )
        else:
            yield Finding(
                "rights", "fail", "may not create schemas: grant create on database … to this role, for the first apply"
            )
    elif one(conn, "select has_schema_privilege('backfill', 'usage')"
                    " and has_function_privilege('backfill.run(text,jsonb,int,text,text)', 'execute')"):  # fmt: skip
        yield Finding("rights", "ok", "may run and reverse backfills")
    else:
        yield Finding("rights", "fail", "may not run backfills: grant backfill_operator to this role")
    yield from _roles(conn, installed=bool(installed))


def _roles(conn: Connection, *, installed: bool) -> Iterator[Finding]:
    """The roles that the installed systems grant something to, or that the first apply would create."""
    known = one(conn, "select to_regclass('backfill.privilege') is not null") if installed else False
    kept = "union select role from backfill.privilege" if known and _may_read_privileges(conn) else ""
    roles = "array['backfill_operator', 'backfill_auditor', 'backfill_approver']"
    names = f"select r::name as role from unnest({roles}) as r {kept}"  # noqa: S608 - constant text
    missing = one(
        conn,
        f"select string_agg(x.role, ', ' order by x.role) from ({names}) as x"  # noqa: S608 - constant text
        " where not exists (select from pg_roles where rolname = x.role)",
    )
    if missing and installed:
        yield Finding(
            "roles",
            "warn",
            f"{missing} missing: who runs, reads or writes is not kept apart, and the owner may do all. Have somebody "
            "with CREATEROLE create them, then as the owner: select backfill.regrant();",
        )
    elif missing and not one(conn, "select rolcreaterole or rolsuper from pg_roles where rolname = current_user"):
        yield Finding("roles", "warn", f"{missing} will not be created: this role lacks CREATEROLE. The rest works")
    else:
        there = one(conn, f"select string_agg(x.role, ', ' order by x.role) from ({names}) as x")  # noqa: S608
        yield Finding("roles", "ok", f"{there} are there" if installed else "can be created")


def _may_read_privileges(conn: Connection) -> bool:
    return bool(one(conn, "select has_table_privilege('backfill.privilege', 'select')"))


def row_security(conn: Connection, _settings: Settings) -> Iterator[Finding]:
    hidden = one(
        conn,
        """
        select string_agg(format('%%I.%%I', n.nspname, c.relname), ', ' order by 1)
        from pg_class as c join pg_namespace as n on n.oid = c.relnamespace
        where c.relkind in ('r', 'p') and c.relrowsecurity and row_security_active(c.oid)
            and n.nspname not in ('pg_catalog', 'information_schema')
        """.replace("%%", "%"),
    )
    if hidden:
        yield Finding(
            "row security",
            "fail",
            f"policies would hide rows of {hidden}: use the owner or a role with BYPASSRLS; until then it is refused",
        )
    else:
        yield Finding("row security", "ok", "no policy hides rows from this role")
