-- The view of all changes, written anew whenever a table is tracked: images are unpacked here. And how the register, and the log
-- with it, follows tables that were renamed or restored.
-- Safe: a view and the functions that write it.
-- depends: 0007_backfill_tracked

create function backfill.images_query(p_table backfill.tracked) returns text
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
    v_packed text;
    v_single text;
begin
    -- A row by itself holds its after-image, or that which a DELETE took, as it is, and what an UPDATE changed as an array
    -- of one: none is "left alone". A column that the table did not have then is not the same as one that was null.
    select string_agg(format('b%1$s, a%1$s', c.i), ', ' order by c.i),
        string_agg(format('case %2$s when operation = ''D'' then array[a%1$s] else b%1$s end as b%1$s, '
            'case %2$s when operation <> ''D'' then array[a%1$s] end as a%1$s', c.i,
            case when cardinality(c.shapes) < jsonb_array_length(p_table.shapes)
                then format('when shape <> all (%L::integer[]) then null', c.shapes) else '' end), ', ' order by c.i)
    into v_packed, v_single
    from (
        select i, array(select s.n::integer from jsonb_array_elements(p_table.shapes) with ordinality as s (places, n)
            where s.places @> to_jsonb(i) order by s.n) as shapes
        from generate_subscripts(p_table.columns, 1) as i
    ) as c;
    return format('select run_id, statement, pack, operation, row_count, %s from backfill_audit.%I union all '
        'select run_id, statement, 0, operation, 1, %s from backfill_audit.%I', v_packed, p_table.pack_name, v_single, p_table.rows_name);
end;
$$;

comment on function backfill.images_query(backfill.tracked) is
'SQL query: all images of a tracked table in the shape of packs: rows that were written one by one are packs of one.';

create function backfill.rebuild_images(p_table backfill.tracked) returns void
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
    execute format('create or replace view backfill_audit.%I as ', p_table.images_name) || backfill.images_query(p_table);
    execute format('comment on view backfill_audit.%I is %L', p_table.images_name,
        format('All images of %s, as packs: b<i> before, a<i> after, see backfill.tracked.', p_table.table_name));
    perform backfill.grant_to('backfill_auditor', format('select on backfill_audit.%I', p_table.images_name));
end;
$$;

comment on function backfill.rebuild_images(backfill.tracked) is
'Writes the view over all images of a tracked table. Whoever reads images reads it, wherever they are kept.';

create function backfill.written_tables_body() returns text
language sql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
    -- Which tables a run wrote to, asked of all of them by one statement that a session plans once.
    select 'begin return query select null::text where false' || coalesce(string_agg(format(
        ' union all select %1$L where exists (select 1 from backfill_audit.%1$I where run_id = p_run)'
        ' or exists (select 1 from backfill_audit.%2$I where run_id = p_run)', t.pack_name, t.rows_name), '' order by t.pack_name collate "C"), '') || '; end;'
    from backfill.tracked as t;
$$;

comment on function backfill.written_tables_body() is 'Body of backfill.written_tables(), over all tables that were ever tracked.';

create function backfill.change_log_query(p_empty boolean) returns text
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
    v_branches text := $sql$select null::uuid as run_id, null::text as table_name, null::bigint as statement,
        null::integer as pack, null::bigint as row_no, null::text as operation, null::text as business_key, null::text as primary_key,
        null::numeric as amount_before, null::numeric as amount_after, null::text as currency_before, null::text as currency_after, null::jsonb as before, null::jsonb as after
        from backfill.tracked where false$sql$;  -- of an engine's table: Citus sends no constant view to its workers
    v_table backfill.tracked;
    v_before text;
    v_after text;
    v_unnest text;
    v_names text;
    v_business_key text[];
    v_primary_key text[];
    v_money text;
begin
    for v_table in select * from backfill.tracked where not p_empty order by table_name collate "C" loop
        -- Text images of built-in types are shown as what they are (a json column as json).
        select string_agg(format(s.shown, format('case when p.b%1$s is null and p.operation = ''U'' then u.a%1$s else u.b%1$s end', s.i), s.name),
                ', ' order by s.i),
            string_agg(format(s.shown, format('u.a%s', s.i), s.name), ', ' order by s.i),
            string_agg(format('p.b%s', s.i), ', ' order by s.i) || ', ' || string_agg(format('p.a%s', s.i), ', ' order by s.i),
            string_agg(format('b%s', s.i), ', ' order by s.i) || ', ' || string_agg(format('a%s', s.i), ', ' order by s.i)
        into v_before, v_after, v_unnest, v_names
        from (
            select c.name, c.i, case
                when t.typnamespace is distinct from 'pg_catalog'::regnamespace or c.stored <> 'text' or t.oid = 'json[]'::regtype
                    then '%1$s as %2$I'
                -- What jsonb can hold for certain is not looked at twice.
                when t.oid = 'json'::regtype
                    then 'case when %1$s ~ ''\\u|[eE][+-]?[0-9]{4}'' or octet_length(%1$s) > 131072 then backfill.readable_json(%1$s) else (%1$s)::jsonb end as %2$I'
                else replace('(%1$s)::TYPE as %2$I', 'TYPE', c.type) end as shown
            from unnest(v_table.columns, v_table.types, v_table.stored_types) with ordinality as c (name, type, stored, i)
            left join pg_type as t on t.oid = to_regtype(c.type)
        ) as s;
        -- Keys and money come from their own arrays: who reads only them does not pay for the images.
        select array_agg(k.value order by k.of_primary, k.i) filter (where not k.of_primary),
            array_agg(k.value order by k.of_primary, k.i) filter (where k.of_primary)
        into v_business_key, v_primary_key
        from (
            select k.i, k.of_primary, format(
                case when v_table.stored_types[c.i] in ('text', 'uuid', 'integer', 'bigint') then '%s' else '(to_jsonb(%s) #>> ''{}'')' end,
                format('case when p.operation = ''D'' then u.b%1$s else u.a%1$s end', c.i)) as value
            from (
                select name, i, false as of_primary from unnest(v_table.business_key) with ordinality as b (name, i)
                union all
                select name, i, true from unnest(v_table.key_columns) with ordinality as b (name, i)
            ) as k
            cross join lateral (select array_position(v_table.columns, k.name) as i) as c
            where c.i is not null
        ) as k;
        v_money := backfill.money_images(array_position(v_table.columns, v_table.money), v_table.stored_types[array_position(v_table.columns, v_table.money)],
            array_position(v_table.columns, v_table.currency_column), v_table.currency, array_position(v_table.columns, v_table.void[1]), v_table.void[2:]);
        v_branches := v_branches || format($sql$
            union all
            select p.run_id, %1$L, p.statement, p.pack, u.row_no,
                case p.operation when 'I' then 'INSERT' when 'U' then 'UPDATE' else 'DELETE' end,
                concat_ws(' / ', %6$s), concat_ws(' / ', %7$s),
                %8$s, before.r, after.r
            from backfill_audit.%2$I as p
            cross join lateral unnest(%3$s) with ordinality as u (%4$s, row_no)
            cross join lateral (select case when p.operation <> 'I' then to_jsonb(x.*) end as r from (select %5$s) as x) as before
            cross join lateral (select case when p.operation <> 'D' then to_jsonb(x.*) end as r from (select %9$s) as x) as after$sql$,
            v_table.table_name, v_table.images_name, v_unnest, v_names, v_before,
            coalesce(array_to_string(v_business_key, ', '), 'null'), coalesce(array_to_string(v_primary_key, ', '), 'null'),
            v_money, v_after);
    end loop;
    return v_branches;
end;
$$;

comment on function backfill.change_log_query(boolean) is 'SQL query: all changes, over the images of every tracked table, or over none.';

create function backfill.rebuild_change_log(p_empty boolean default false) returns void
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
    execute 'create or replace view backfill.change_log as ' || backfill.change_log_query(p_empty);
    execute format('create or replace function backfill.written_tables(p_run uuid) returns setof text language plpgsql stable '
        'security invoker set search_path = pg_catalog, pg_temp set plan_cache_mode = force_generic_plan as %L', backfill.written_tables_body());
end;
$$;

comment on function backfill.rebuild_change_log(boolean) is
'Writes the view backfill.change_log anew over the images of every tracked table, or over none, so that they can be altered; and
backfill.written_tables() over all of them.';

create function backfill.found_again(p_table backfill.tracked, p_relation oid)
returns table (attnums jsonb, doubt jsonb)
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
    v_name text := (select format('%I.%I', n.nspname, c.relname) from pg_class as c join pg_namespace as n on n.oid = c.relnamespace where c.oid = p_relation);
    v_had text[] := array(select c.name from unnest(p_table.columns, p_table.attnums) as c (name, attnum) where c.attnum is not null order by c.attnum);
    v_has text[] := array(select a.attname::text from pg_attribute as a
        where a.attrelid = p_relation and a.attnum > 0 and not a.attisdropped and a.attgenerated <> 'v' order by a.attnum);
    v_why text;
    v_way text;
begin
    -- Numbers are given anew, and a name may be another column's by now. What a dump keeps is the order of the columns: where
    -- the known ones come first, under the names they had, nothing happened to them that could mix them up. Elsewhere nothing
    -- that would be left on the table tells a renamed column from one that was dropped and another that was added.
    if p_table.anchor <> 'backfill.tracked'::regclass and not exists (
        select 1 from pg_trigger as g join pg_proc as p on p.oid = g.tgfoid
        where g.tgrelid = p_relation and p.pronamespace = 'backfill_audit'::regnamespace and p.proname = p_table.pack_name || '_insert'
    ) then
        v_why := format('since a restore only its name says that %s is the table whose changes were captured', v_name);
        v_way := format('If it is: select backfill.rebind(%L); if another one is: select backfill.rebind(''...'', p_was => %1$L);', v_name);
    end if;
    if v_has[1:cardinality(v_had)] <> v_had then
        select concat_ws('; ', v_why, format('since %s was restored or made anew it is not certain which of its columns is which: it had %s, and has %s', v_name,
                string_agg(c.had, ', ' order by c.i) filter (where c.had is not null), string_agg(c.has, ', ' order by c.i) filter (where c.has is not null))),
            concat_ws(' ', v_way, format('If columns were renamed: select backfill.rebind(%L, %L); if none was: select backfill.rebind(%1$L);', v_name,
                coalesce(jsonb_object_agg(c.had, c.has) filter (where c.had <> c.has and cardinality(v_has) >= cardinality(v_had)), '{"old": "new"}')))
        into v_why, v_way
        from (
            select x.had, x.has, x.i, bool_or(x.had is distinct from x.has) over (order by x.i) as apart
            from unnest(v_had, v_has) with ordinality as x (had, has, i)
        ) as c
        where c.apart;
    end if;
    return query select
        (select jsonb_agg(a.attnum order by o.i)
            from unnest(p_table.columns, p_table.types) with ordinality as o (name, type, i)
            left join pg_attribute as a on a.attrelid = p_relation and a.attname = o.name and a.attnum > 0 and not a.attisdropped
                and o.type is not null),
        case when v_why is not null then jsonb_build_object('why', v_why, 'way', v_way,
            'until', (select case when is_called then last_value else last_value - 1 end from backfill_audit.statement_no),
            'columns', (select coalesce(jsonb_object_agg(c.name, c.i), '{}')
                from unnest(p_table.columns, p_table.attnums) with ordinality as c (name, attnum, i) where c.attnum is not null)) end;
end;
$$;

comment on function backfill.found_again(backfill.tracked, oid) is
'A tracked table that was restored or made anew: the numbers of its columns, by their names; and what of that is in doubt, so that no
run until now is undone into a wrong table or column before backfill.rebind() settled it.';

create function backfill.rebind_tracked() returns void
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
    v_anchor oid := 'backfill.tracked'::regclass;
    v_moved jsonb;
    v_why text;
begin
    -- In steps: as one join, PostgreSQL 15 looks for every table among all of pg_class, five minutes for 42.
    with found as materialized (
        select t, coalesce(
            (select c.oid from pg_class as c where c.oid = t.relation and t.anchor = v_anchor),
            -- After a restore oids are others, and the table that carries the triggers is the one.
            (select g.tgrelid from pg_trigger as g join pg_proc as p on p.oid = g.tgfoid
                where t.anchor <> v_anchor and g.tgname = 'backfill_capture_insert'
                    and p.pronamespace = 'backfill_audit'::regnamespace and p.proname = t.pack_name || '_insert'),
            -- A table that was dropped and made anew. One that is another of the register is not it.
            (select c.oid from pg_class as c where c.oid = to_regclass(t.table_name)
                and not exists (select 1 from backfill.tracked as o where o.relation = c.oid and o.anchor = v_anchor)
                and not exists (select 1 from pg_trigger as g join pg_proc as p on p.oid = g.tgfoid
                    where g.tgrelid = c.oid and g.tgname = 'backfill_capture_insert' and p.pronamespace = 'backfill_audit'::regnamespace))) as oid
        from backfill.tracked as t
    ), moved as materialized (
        select r.t, r.oid, format('%I.%I', n.nspname, c.relname) as new_name, r.oid <> (r.t).relation or (r.t).anchor <> v_anchor as again
        from found as r join pg_class as c on c.oid = r.oid join pg_namespace as n on n.oid = c.relnamespace
        where r.oid <> (r.t).relation or (r.t).anchor <> v_anchor or (r.t).table_name <> format('%I.%I', n.nspname, c.relname)
    )
    select jsonb_agg(x) into v_moved
    from (
        select (m.t).pack_name, (m.t).table_name as old_name, m.oid as relation, m.new_name,
            coalesce(f.attnums, to_jsonb((m.t).attnums)) as attnums, coalesce(f.doubt, (m.t).doubt) as doubt, f.doubt is not null as doubted
        from moved as m left join lateral backfill.found_again(m.t, m.oid) as f on m.again
    ) as x;
    if v_moved is null then
        return;
    end if;
    -- Names may have been exchanged: all of them are free before one is given.
    update backfill.tracked as t set table_name = format('renamed %s', t.pack_name)
    from jsonb_to_recordset(v_moved) as m (pack_name text, old_name text, new_name text)
    where t.pack_name = m.pack_name and m.old_name <> m.new_name;
    update backfill.tracked as t set table_name = format('%I.%I', 'gone', m.new_name || ' of ' || t.pack_name)
    from jsonb_to_recordset(v_moved) as m (pack_name text, new_name text)
    where t.table_name = m.new_name and t.pack_name <> m.pack_name;
    update backfill.tracked as t
    set table_name = m.new_name, relation = m.relation, anchor = v_anchor, doubt = m.doubt,
        attnums = array(select nullif(a.value, 'null')::smallint from jsonb_array_elements(m.attnums) with ordinality as a (value, i) order by a.i)
    from jsonb_to_recordset(v_moved) as m (pack_name text, new_name text, relation oid, attnums jsonb, doubt jsonb)
    where t.pack_name = m.pack_name;
    update backfill.catalog as c
    set tables = array(
        select coalesce(m.new_name, x.name)
        from unnest(c.tables) with ordinality as x (name, i)
        left join jsonb_to_recordset(v_moved) as m (old_name text, new_name text) on m.old_name = x.name
        order by x.i)
    where exists (select 1 from jsonb_to_recordset(v_moved) as m (old_name text, new_name text)
        where m.old_name <> m.new_name and m.old_name = any (c.tables));
    perform backfill.rebuild_change_log();
    for v_why in select m.doubt ->> 'why' from jsonb_to_recordset(v_moved) as m (doubt jsonb, doubted boolean) where m.doubted loop
        raise warning '%', v_why using hint = 'Runs until now cannot be undone before it is settled, best before the next run. See backfill.tracked.doubt.';
    end loop;
end;
$$;

comment on function backfill.rebind_tracked() is
'Follows tables that were renamed or moved to another schema, and finds all of them again after a restore.';

do $do$
begin
    perform backfill.rebuild_change_log();
end;
$do$;

comment on function backfill.written_tables(uuid) is 'Tracked tables, by pack_name, that a run wrote to. Written by backfill.rebuild_change_log().';
comment on view backfill.change_log is
'One row for each row written in a run: table, business key, operation, money and whole images before and after.';
comment on column backfill.change_log.run_id is 'The run; join backfill.backfill_log for who, when and why.';
comment on column backfill.change_log.table_name is 'Schema-qualified name of the table.';
comment on column backfill.change_log.statement is 'Number of the statement that wrote the row: later ones have higher numbers, over all runs; they are not dense.';
comment on column backfill.change_log.pack is 'Pack of the statement that holds the row.';
comment on column backfill.change_log.row_no is 'Place in the pack.';
comment on column backfill.change_log.operation is 'INSERT, UPDATE or DELETE.';
comment on column backfill.change_log.business_key is 'The row as a person knows it, parts joined by " / ".';
comment on column backfill.change_log.primary_key is 'Its primary key as text, parts joined by " / ": to join the table without unpacking images.';
comment on column backfill.change_log.amount_before is 'Its money before, in minor units of its currency; null where there was no row.';
comment on column backfill.change_log.amount_after is 'Its money after; null where there is no row any more.';
comment on column backfill.change_log.currency_before is 'The currency before, "amounts" where the table has none; null where it has no money.';
comment on column backfill.change_log.currency_after is 'The currency after.';
comment on column backfill.change_log.before is 'The whole row before, null for an INSERT.';
comment on column backfill.change_log.after is 'The whole row after, null for a DELETE.';
