-- Whose code hangs on a table, as far as the server knows: before a run it has to be somebody's who is trusted.
-- Safe: functions that only read.
-- depends: 0027_backfill_owner

create function backfill.untrusted_code(p_relations oid[]) returns table (relation oid, owner name, what text)
language sql stable
security definer
set search_path = pg_catalog, pg_temp
-- A few rows each time, by their indexes: a server that has never analyzed its catalogs would read all of them for each step.
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set jit = off
as $$
    with recursive watched (relation, object) as (
        select o, o from unnest(p_relations) as o
        union
        select w.relation, i.inhrelid from watched as w join pg_inherits as i on i.inhparent = w.object
    ),
    -- What runs, or may, when rows of a table are written or read; and from there on what pg_depend knows of it. What came with the
    -- server has no entries there.
    used (relation, class, object, of) as (
        select w.relation, u.class, u.object, u.of
        from watched as w
        cross join lateral (
            select 'pg_trigger'::regclass as class, oid as object, format(' of its trigger %I', tgname) as of from pg_trigger
            where tgrelid = w.object and not tgisinternal and tgenabled <> 'D'
            union all
            select 'pg_attrdef'::regclass, oid, ', which it calls' from pg_attrdef where adrelid = w.object
            union all
            select 'pg_constraint'::regclass, oid, ', which it calls' from pg_constraint where conrelid = w.object
            union all
            select 'pg_class'::regclass, indexrelid, ', which it calls' from pg_index where indrelid = w.object
            union all
            select 'pg_policy'::regclass, oid, ', which it calls' from pg_policy where polrelid = w.object
            union all
            select 'pg_rewrite'::regclass, oid, format(' of its rule %I', rulename) from pg_rewrite where ev_class = w.object
            union all
            select 'pg_type'::regclass, atttypid, format(' of its column %I', attname) from pg_attribute
            where attrelid = w.object and attnum > 0 and not attisdropped and atttypid >= 16384
        ) as u
        union
        select u.relation, n.class, n.object, case when u.class = 'pg_class'::regclass or n.class = 'pg_proc'::regclass and u.of like ' of its column%'
            then ', which it calls' else u.of end
        from used as u
        cross join lateral (
            select d.refclassid as class, d.refobjid as object from pg_depend as d
            where d.classid = u.class and d.objid = u.object and d.refobjid >= 16384 and (d.refclassid in (
                    'pg_proc'::regclass, 'pg_type'::regclass, 'pg_operator'::regclass, 'pg_opclass'::regclass, 'pg_opfamily'::regclass)
                or d.refclassid = 'pg_class'::regclass and exists (select 1 from pg_class where oid = d.refobjid and relkind in ('v', 'c')))
                -- What a function calls is its owner's to answer for; an aggregate is made of others.
                and (u.class <> 'pg_proc'::regclass or exists (select 1 from pg_proc where oid = u.object and prokind = 'a'))
            union all
            select 'pg_constraint'::regclass, oid from pg_constraint where u.class = 'pg_type'::regclass and contypid = u.object
            union all
            select 'pg_class'::regclass, typrelid from pg_type where u.class = 'pg_type'::regclass and oid = u.object and typrelid <> 0
            union all
            select 'pg_rewrite'::regclass, oid from pg_rewrite where u.class = 'pg_class'::regclass and ev_class = u.object
            union all
            select 'pg_operator'::regclass, amopopr from pg_amop where u.class = 'pg_opfamily'::regclass and amopfamily = u.object
            union all
            select 'pg_proc'::regclass, amproc from pg_amproc where u.class = 'pg_opfamily'::regclass and amprocfamily = u.object
        ) as n
    ),
    code (relation, owner, what) as (
        select w.relation, c.relowner, case when w.object = w.relation then 'owns it' else format('owns %s, a part of it', c.oid::regclass) end
        from watched as w join pg_class as c on c.oid = w.object
        union all
        select u.relation, p.proowner, format('owns function %s%s', p.oid::regprocedure, u.of)
        from used as u join pg_proc as p on u.class = 'pg_proc'::regclass and p.oid = u.object and not p.prosecdef and p.oid >= 16384
        union all
        select u.relation, t.typowner, format('owns type %s%s', t.oid::regtype, u.of)
        from used as u join pg_type as t on u.class = 'pg_type'::regclass and t.oid = u.object
    )
    select distinct on (c.relation, r.rolname) c.relation, r.rolname, c.what
    from code as c
    join pg_roles as r on r.oid = c.owner
    where not r.rolsuper and r.rolname <> backfill.engine_owner()
        and not exists (select 1 from backfill.trusted_owner as t where t.owner = r.rolname)
    order by c.relation, r.rolname, c.what;
$$;

comment on function backfill.untrusted_code(oid[]) is
'Who, beside superusers, the engine''s owner and those in backfill.trusted_owner, has code on these tables that would run with the rights of
the engine''s owner: the table itself, functions that it calls, types of its columns. SECURITY DEFINER functions run as their own.';

create function backfill.refuse_untrusted(p_relations oid[]) returns void
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
    v_listed text;
    v_insert text;
begin
    select string_agg(format('%s: %s %s', u.relation::regclass, u.owner, u.what), e'\n' order by u.relation::regclass::text, u.owner) into v_listed
    from backfill.untrusted_code(p_relations) as u;
    if v_listed is null then
        return;
    end if;
    select format('insert into backfill.trusted_owner (owner) values %s;', string_agg(format('(%L)', x.owner), ', ' order by x.owner)) into v_insert
    from (select distinct u.owner from backfill.untrusted_code(p_relations) as u) as x;
    raise exception 'code of roles that nobody has trusted would run with the rights of %: %', backfill.engine_owner(), v_listed
        using errcode = 'BF014', hint = concat_ws(' ', 'Nothing was changed.',
            -- An engine that is not committed holds no row that could be.
            case when exists (select 1 from pg_class as c where c.oid = 'backfill.trusted_owner'::regclass and backfill.is_own(c.xmin))
                then 'First commit the engine alone: systems = [] in runner.toml, and runner apply. Then,' else 'Where they are to be trusted,' end,
            format('as %s or a superuser: %s', backfill.engine_owner(), v_insert));
end;
$$;

comment on function backfill.refuse_untrusted(oid[]) is
'Refuses (BF014), before anything is written, tables whose owner, functions or types belong to a role that nobody has trusted; and
prints the insert that would trust it.';

create function backfill.require_trusted() returns void
language sql stable
security definer
set search_path = pg_catalog, pg_temp
as $$
    select backfill.refuse_untrusted(array(select t.relation from backfill.tracked as t where t.active));
$$;

comment on function backfill.require_trusted() is
'refuse_untrusted() for all tracked tables: before a run, and before what is due is counted.';

revoke execute on function backfill.untrusted_code(oid[]), backfill.refuse_untrusted(oid[]), backfill.require_trusted()
from public;

do $do$
begin
    perform backfill.grant_to('backfill_auditor',
        'execute on function backfill.untrusted_code(oid[]), backfill.refuse_untrusted(oid[]), backfill.require_trusted()');
    perform backfill.hand_over(true);  -- track() calls them, as their owner
end;
$do$;
