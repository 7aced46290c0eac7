-- What the engine is made of, as sha256 of each function, trigger, constraint and view: sealed by a link of the chain when migrations made it,
-- and compared with what is there.
-- Safe: functions that read, and one that adds a link.
-- depends: 0031_backfill_chain

create function backfill.definitions() returns table (object text, sha256 text)
language sql stable
security definer
set search_path = pg_catalog, pg_temp
as $$
    -- Without oids, owners and grants, and but for views in no words of the server's own, so that a dump and restore into another
    -- version changes nothing.
    select 'function ' || p.oid::regprocedure, encode(sha256(convert_to(concat_ws(e'\x1f', pg_get_function_arguments(p.oid), pg_get_function_result(p.oid),
        l.lanname, p.prokind, p.provolatile, p.proisstrict, p.prosecdef, p.proleakproof, p.proparallel,
        replace(array_to_string(array(select c from unnest(p.proconfig) as c order by c), e'\x1e'), '"', ''), p.prosrc,
        regexp_replace(pg_get_function_sqlbody(p.oid), '[\s()]+', '', 'g')), 'UTF8')), 'hex')
    from pg_proc as p
    join pg_language as l on l.oid = p.prolang
    -- Written anew whenever a table is tracked: compared with what it would be now.
    where p.pronamespace = 'backfill'::regnamespace and p.proname <> 'written_tables'
    union all
    select format('trigger %s on %s', quote_ident(g.tgname), g.tgrelid::regclass),
        encode(sha256(convert_to(concat_ws(e'\x1f', g.tgenabled, pg_get_triggerdef(g.oid)), 'UTF8')), 'hex')
    from pg_trigger as g
    join pg_class as c on c.oid = g.tgrelid
    where c.relnamespace = 'backfill'::regnamespace and not g.tgisinternal
    union all
    select format('constraint %s on %s', quote_ident(o.conname), o.conrelid::regclass), encode(sha256(convert_to(concat_ws(e'\x1f', o.contype, o.convalidated,
        o.condeferrable, case when o.contype <> 'c' then pg_get_constraintdef(o.oid) end), 'UTF8')), 'hex')
    from pg_constraint as o
    where o.connamespace = 'backfill'::regnamespace and o.contype in ('p', 'u', 'f', 'c') and o.conrelid <> 0
    union all
    -- A due view decides what is written. How it is shown is the server's way: its version goes with it.
    select format('view %s (PostgreSQL %s)', c.oid::regclass, current_setting('server_version_num')::integer / 10000),
        encode(sha256(convert_to(pg_get_viewdef(c.oid), 'UTF8')), 'hex')
    from pg_class as c
    where c.relnamespace = 'backfill'::regnamespace and c.relkind = 'v' and c.relname <> 'change_log';
$$;

comment on function backfill.definitions() is
'Functions, triggers, constraints and views of the schema backfill with the sha256 of what they are. Equal after a restore, but for views into another
version, whose names say it.';

create function backfill.sealed() returns table (object text, sha256 text, link bigint)
language sql stable
security definer
set search_path = pg_catalog, pg_temp
as $$
    select distinct on (x.object) x.object, x.sha256, c.link
    from backfill.chain as c
    cross join lateral (
        select key as object, value as sha256 from jsonb_each_text(c.detail -> 'made')
        union all
        select value, null from jsonb_array_elements_text(c.detail -> 'gone')
    ) as x
    where c.kind = 'engine'
    order by x.object, c.link desc;
$$;

comment on function backfill.sealed() is 'What the engine is made of as its seals say, each object with the last link that says so; sha256 null: gone since.';

create function backfill.changed_since_seal(p_all boolean default false)
returns table (object text, sha256 text, was text, link bigint)
language sql stable
security definer
set search_path = pg_catalog, pg_temp
as $$
    with sealed as materialized (
        select x.*, substring(x.object from ' \(PostgreSQL ([0-9]+)\)$') as version from backfill.sealed() as x
    )
    select coalesce(d.object, s.object), d.sha256, s.sha256, s.link
    from (select x.*, substring(x.object from ' \(PostgreSQL ([0-9]+)\)$') as version from backfill.definitions() as x) as d
    full join sealed as s on s.object = d.object
    where d.sha256 is distinct from s.sha256
        -- How another version showed its views is not compared, nor views where none was sealed in this one: after a restore into it.
        and (s.version is null or s.version = (current_setting('server_version_num')::integer / 10000)::text)
        and (p_all or d.version is null or d.version in (select v.version from sealed as v));
$$;

comment on function backfill.changed_since_seal(boolean) is
'Objects of the engine that are not what the seals say: sha256 now, and was; null where there is, or was, none. All: views, too, that none was sealed of.';

create function backfill.seal_engine(p_why text) returns backfill.chain
language plpgsql volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_made jsonb;
    v_gone jsonb;
begin
    if btrim(coalesce(p_why, '')) = '' then
        raise exception 'the engine is sealed for a reason' using errcode = 'BF018', hint = 'select backfill.seal_engine(''migrations of release 2'');';
    end if;
    select coalesce(jsonb_object_agg(object, sha256) filter (where sha256 is not null), '{}'), coalesce(jsonb_agg(object) filter (where sha256 is null), '[]')
    into v_made, v_gone from backfill.changed_since_seal(true);
    if v_made = '{}' and v_gone = '[]' then
        return null;
    end if;
    return backfill.add_link('engine', null, null, jsonb_build_object('why', p_why, 'made', v_made, 'gone', v_gone,
        'server', current_setting('server_version')), session_user);
end;
$$;

comment on function backfill.seal_engine(text) is
'Says by a link of the chain what functions, triggers and views of the schema backfill are from now on, as far as they changed. The runner does it
after migrations; who changes one otherwise is found by verify_chain(), and whoever seals that leaves this link. For the owner alone.';

create function backfill.wrong_captures() returns setof text
language plpgsql stable
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_table backfill.tracked;
    v_operation text;
    v_found record;
    v_name text;
begin
    for v_table in select * from backfill.tracked where active order by table_name loop
        v_name := v_table.table_name;
        v_table.table_name := v_table.captured;  -- written for the name that it had
        foreach v_operation in array '{insert,update,delete}'::text[] loop
            select count(g.oid) as triggers, min(p.prosrc) is distinct from backfill.capture_body(v_table, v_operation) as body,
                not coalesce(bool_and(p.prosecdef and 'search_path=pg_catalog, pg_temp' = any (p.proconfig)), false) as rights,
                not coalesce(bool_and(g.tgenabled = 'A'), true) as disabled,
                not coalesce(bool_and(pg_get_triggerdef(g.oid) ~ format('^CREATE TRIGGER backfill_capture_%s AFTER %s ON .* REFERENCING .* FOR EACH STATEMENT '
                    'WHEN \(\(to_regclass\(''pg_temp.backfill_open_run''::text\) IS NOT NULL\)\) EXECUTE FUNCTION', v_operation, upper(v_operation))), true) as other
            into v_found
            from pg_proc as p
            left join pg_trigger as g on g.tgfoid = p.oid
            where p.pronamespace = 'backfill_audit'::regnamespace and p.proname = v_table.pack_name || '_' || v_operation;
            if v_found.triggers = 0 and to_regclass(v_name) is null then
                continue;  -- the table is gone
            elsif v_found.body or v_found.rights then
                return next format('function backfill_audit.%I() is not what backfill.track() writes', v_table.pack_name || '_' || v_operation);
            end if;
            if v_found.triggers <> 1 then
                return next format('%s triggers capture each %s of %s: it must be one', v_found.triggers, v_operation, v_name);
            elsif v_found.disabled then
                return next format('the trigger that captures each %s of %s is not ENABLE ALWAYS', v_operation, v_name);
            elsif v_found.other then
                return next format('the trigger that captures each %s of %s is not what backfill.track() makes', v_operation, v_name);
            end if;
        end loop;
    end loop;
end;
$$;

comment on function backfill.wrong_captures() is 'Trigger functions and triggers of tracked tables that are not what backfill.track() makes of the register.';

create function backfill.wrong_guards() returns setof text
language sql stable
security definer
set search_path = pg_catalog, pg_temp
as $$
    select format('trigger %s of backfill_audit.%I is missing, disabled or another one: its rows could be altered', x.name, c.relname)
    from pg_class as c
    cross join (values ('refuse_change', 26), ('refuse_truncate', 34)) as x (name, events)
    where c.relnamespace = 'backfill_audit'::regnamespace and c.relkind = 'r' and not exists (
        select 1 from pg_trigger as g
        where g.tgrelid = c.oid and g.tgname = x.name and g.tgenabled = 'A' and g.tgtype = x.events and g.tgqual is null
            and g.tgfoid = 'backfill.refuse_change()'::regprocedure)
    order by c.relname, x.name;
$$;

comment on function backfill.wrong_guards() is 'Guards that are not as they must be on the tables that keep the images.';

create function backfill.wrong_tables() returns setof text
language sql stable
security definer
set search_path = pg_catalog, pg_temp
as $$
    with ours as (
        select c.* from pg_class as c where c.relnamespace in ('backfill'::regnamespace, 'backfill_audit'::regnamespace) and c.relkind in ('r', 'p')
    )
    select format('%s inherits from %s: its rows are read as if they were the engine''s', i.inhrelid::regclass, i.inhparent::regclass)
    from pg_inherits as i join ours as c on c.oid = i.inhparent
    union all
    select format('rule %I on %s may keep rows out of it, or write others', r.rulename, c.oid::regclass)
    from pg_rewrite as r join ours as c on c.oid = r.ev_class
    union all
    select format('trigger %I on %s is none of the engine''s', g.tgname, c.oid::regclass)
    from pg_trigger as g join ours as c on c.oid = g.tgrelid
    where c.relnamespace = 'backfill_audit'::regnamespace and not g.tgisinternal and g.tgname not in ('refuse_change', 'refuse_truncate')
    union all
    select format('row-level security is on for %s: it may hide rows', c.oid::regclass) from ours as c where c.relrowsecurity
    union all
    select format('%s is unlogged: a crash empties it', c.oid::regclass) from ours as c where c.relpersistence <> 'p'
    order by 1;
$$;

comment on function backfill.wrong_tables() is
'What somebody hung on the tables of the engine and of the images: tables that inherit, rules, triggers, row-level security.';

create function backfill.is_view_of(p_view text, p_query text) returns boolean
language plpgsql volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_same boolean;
begin
    -- The same server shows both, so that its version does not matter.
    execute 'create temporary view backfill_expected_view as ' || p_query;
    v_same := pg_get_viewdef('pg_temp.backfill_expected_view'::regclass) is not distinct from pg_get_viewdef(to_regclass(p_view));
    drop view pg_temp.backfill_expected_view;
    return v_same;
end;
$$;

comment on function backfill.is_view_of(text, text) is 'Is a view the one that this query makes? Asked by making it for a moment.';

create function backfill.wrong_views() returns setof text
language plpgsql volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_table backfill.tracked;
begin
    if (select prosrc from pg_proc where oid = to_regprocedure('backfill.written_tables(uuid)')) is distinct from backfill.written_tables_body() then
        return next 'function backfill.written_tables() is not what backfill.rebuild_change_log() writes';
    end if;
    if not backfill.is_view_of('backfill.change_log', backfill.change_log_query(false)) then
        return next 'view backfill.change_log is not what backfill.rebuild_change_log() writes';
    end if;
    for v_table in select * from backfill.tracked order by table_name loop
        if not backfill.is_view_of(format('backfill_audit.%I', v_table.images_name), backfill.images_query(v_table)) then
            return next format('view backfill_audit.%I is not what backfill.rebuild_images() writes', v_table.images_name);
        end if;
    end loop;
exception
    when read_only_sql_transaction then
        return;  -- on a standby nothing can be made for a moment
end;
$$;

comment on function backfill.wrong_views() is
'Views of the images, and what else is written anew when a table is tracked, that are not what they would be now. Not looked at on a standby.';

revoke execute on all functions in schema backfill from public;
