-- Who owns the engine, and whose tables it trusts: what hangs on a table of the application (triggers, defaults, checks, types) runs
-- with the rights of whoever writes there, and that is the engine's owner.
-- Safe: where a superuser applies this, a role without login or superuser is made and what is ours is handed to it; anybody else
-- owns what he has created. Nothing of the applications changes its owner.
-- depends: 0026_backfill_seals

do $$
begin
    if not (select rolsuper from pg_roles where rolname = current_user) then
        return;  -- whoever applies this owns it all
    end if;
    if not exists (select from pg_roles where rolname = 'backfill_owner') then
        create role backfill_owner nologin bypassrls;
        comment on role backfill_owner is 'Owns the engine of backfills: its functions read and write with this role''s rights. Nobody logs in as it.';
        -- Whatever the application's own superuser let its triggers and backfills reach. Take it away, and grant by table instead, where that is too much.
        grant pg_read_all_data, pg_write_all_data to backfill_owner;
    elsif exists (select from pg_roles where rolname = 'backfill_owner' and (rolcanlogin or rolsuper or rolcreaterole)) then
        raise exception 'role backfill_owner may log in, create roles, or is a superuser: it cannot own the engine'
            using errcode = 'BF014', hint = 'alter role backfill_owner nologin nosuperuser nocreaterole;';
    end if;
    if not has_database_privilege('backfill_owner', current_database(), 'temporary') then
        execute format('grant temporary on database %I to backfill_owner', current_database());
    end if;
exception
    when duplicate_object or unique_violation then
        raise notice 'role backfill_owner is being created by another session';
end;
$$;

create table backfill.trusted_owner (
    owner name primary key,
    reason text,
    trusted_by name not null default session_user,
    trusted_at timestamptz not null default now()
);

comment on table backfill.trusted_owner is
'Owners of tables of the application, beside superusers and the engine''s owner, whose code (triggers, defaults, checks, types) may run with
the rights of the engine''s owner. Written by him alone: insert into backfill.trusted_owner (owner) values (''shop'');';
comment on column backfill.trusted_owner.owner is 'The role that owns tables.';
comment on column backfill.trusted_owner.reason is 'Why.';
comment on column backfill.trusted_owner.trusted_by is 'Who logged in to say so.';
comment on column backfill.trusted_owner.trusted_at is 'When.';

create function backfill.engine_owner() returns name
language sql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
    select r.rolname from pg_namespace as n join pg_roles as r on r.oid = n.nspowner where n.nspname = 'backfill';
$$;

comment on function backfill.engine_owner() is 'The role with whose rights the engine''s functions write: it owns schema backfill.';

create function backfill.fires_for_another() returns boolean
language sql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
    -- Before PostgreSQL 18 what was deferred runs as whoever fires it, and not as who caused it.
    select current_user = backfill.engine_owner() and session_user <> current_user
        and not (select r.rolsuper from pg_roles as r where r.rolname = session_user);
$$;

comment on function backfill.fires_for_another() is 'Would what the session has deferred run with the rights of the engine''s owner, without being his?';

create function backfill.is_strange(p_schema oid, p_constraint name) returns boolean
language sql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
    select exists (
        select 1 from pg_constraint as c
        join pg_class as k on k.oid = c.conrelid
        join pg_roles as r on r.oid = k.relowner
        where c.connamespace = p_schema and c.conname = p_constraint and c.contype = 't' and r.rolname <> backfill.engine_owner()
            and not exists (select 1 from backfill.tracked as t where t.relation = c.conrelid and t.active));
$$;

comment on function backfill.is_strange(oid, name) is
'Is a constraint trigger of this name on a table that is neither tracked nor ours? The engine''s functions do not fire it for anybody.';

create function backfill.welcome_owner() returns trigger
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
    v_privilege text;
begin
    foreach v_privilege in array array['usage on schema backfill, backfill_audit', 'execute on function '
        'backfill.track(regclass, text[], text, text, text[], name[], text[]), backfill.untrack(regclass), backfill.put_triggers(regclass), '
        'backfill.capture_own_table(regclass, text[], text, text, text[], name[], text[]), backfill.release_table(regclass, boolean), backfill.guard_children(), '
        'backfill.trigger_statements(regclass), backfill.guarded_children(), backfill.refuse_truncate(), backfill.use_path(), '
        'backfill.mark_cascade(), backfill.refuse_cascade()']
    loop
        if tg_op = 'INSERT' then
            perform backfill.grant_to(new.owner, v_privilege);
        else
            perform backfill.revoke_from(old.owner, v_privilege);
        end if;
    end loop;
    return null;
end;
$$;

comment on function backfill.welcome_owner() is
'Trigger of trusted_owner: who is trusted may call backfill.track() and untrack() on his tables, since only an owner may put triggers on them.';

create trigger welcome_owner after insert or delete on backfill.trusted_owner
for each row execute function backfill.welcome_owner();

create function backfill.to_hand_over(p_created boolean) returns table (what text)
language sql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
    with ours as (
        select n.oid, n.nspname in ('backfill', 'backfill_audit', 'staging') as whole
        from pg_namespace as n
        where n.nspname in ('backfill', 'backfill_audit') or exists (
            select 1 from backfill.baseline as b where b.relation = format('schema %I', n.nspname))
    ),
    object (class, oid, namespace, owner, what) as (
        select 'pg_class'::regclass, c.oid, c.relnamespace, c.relowner, case c.relkind when 'v' then 'view ' when 'm' then 'materialized view '
            when 'S' then 'sequence ' else 'table ' end || c.oid::regclass
        from pg_class as c
        where c.relkind in ('r', 'p', 'v', 'm') or (c.relkind = 'S' and not exists (
            select 1 from pg_depend as d where d.classid = 'pg_class'::regclass and d.objid = c.oid and d.deptype in ('a', 'i')))
        union all
        select 'pg_proc'::regclass, p.oid, p.pronamespace, p.proowner, 'routine ' || p.oid::regprocedure from pg_proc as p
        union all
        select 'pg_type'::regclass, t.oid, t.typnamespace, t.typowner, 'type ' || t.oid::regtype
        from pg_type as t where t.typtype in ('d', 'e', 'r') or (t.typtype = 'c' and exists (
            select 1 from pg_class as c where c.oid = t.typrelid and c.relkind = 'c'))
    )
    select 'schema ' || n.oid::regnamespace
    from ours as o join pg_namespace as n on n.oid = o.oid join pg_roles as r on r.oid = n.nspowner and r.rolsuper
    union all
    select b.what
    from object as b
    join pg_namespace as n on n.oid = b.namespace and n.nspname !~ '^(pg_|information_schema$)'
    join pg_roles as r on r.oid = b.owner and r.rolsuper
    left join ours as o on o.oid = b.namespace
    where b.what !~ '_?yoyo_' and (o.whole or ((p_created or o.oid is not null) and exists (
        -- Made in this transaction: its bond to its schema is; a grant or an altered column makes none.
        select 1 from pg_depend as d where d.classid = b.class and d.objid = b.oid and d.refclassid = 'pg_namespace'::regclass and backfill.is_own(d.xmin))));
$$;

comment on function backfill.to_hand_over(boolean) is
'What superusers own of the engine''s schemas, and of what this transaction has made in the schemas that the engine created, or (created) anywhere.';

create function backfill.hand_over(p_created boolean default false) returns bigint
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
    v_owner name := backfill.engine_owner();
    v_what text;
    v_count bigint := 0;
begin
    if not (select r.rolsuper from pg_roles as r where r.rolname = current_user) then
        return 0;
    elsif (select r.rolsuper from pg_roles as r where r.rolname = v_owner) then
        select r.rolname into v_owner from pg_roles as r where r.rolname = 'backfill_owner';
    end if;
    if v_owner is null then
        return 0;
    end if;
    foreach v_what in array array(select h.what from backfill.to_hand_over(p_created) as h) loop
        execute format('alter %s owner to %I', v_what, v_owner);
        v_count := v_count + 1;
    end loop;
    return v_count;
end;
$$;

comment on function backfill.hand_over(boolean) is
'Hands what superusers own of ours to the engine''s owner (backfill_owner), so that none of it runs with a superuser''s rights; created: also what this
transaction made in other schemas. The runner calls it after migrations. How many objects; for a superuser, for others nothing.';

revoke execute on function
backfill.engine_owner(),
backfill.fires_for_another(),
backfill.is_strange(oid, name),
backfill.welcome_owner(),
backfill.to_hand_over(boolean),
backfill.hand_over(boolean)
from public;

do $do$
begin
    perform backfill.grant_to('backfill_auditor', 'select on backfill.trusted_owner');
    perform backfill.grant_to('backfill_auditor', 'execute on function backfill.engine_owner(), backfill.is_own(xid), '
        'backfill.fires_for_another(), backfill.is_strange(oid, name)');
    perform backfill.hand_over(true);
end;
$do$;
