-- What makes a reversal refuse before it writes: rows changed since, values that no longer exist, and rows of others that
-- refer to what would go.
-- Safe: functions that only read.
-- depends: 0015_backfill_undo_plan

create function backfill.later_runs(p_run uuid, p_table backfill.tracked, p_undo text) returns text
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
    v_later uuid[];
    v_wrote uuid[];
    v_rows bigint;
    v_all bigint;
    v_listed text;
begin
    -- What stands since. An undo of something that is later itself only took that back.
    select array_agg(l.run_id) into v_later
    from backfill.backfill_log as o
    join backfill.backfill_log as l on l.status <> 'reversed' and coalesce(l.completed_at, 'infinity') > o.completed_at
    where o.run_id = p_run and l.run_id <> backfill.open_run() and not exists (
        select from backfill.backfill_log as r where r.run_id = l.reverses and r.completed_at > o.completed_at);
    select format($sql$
        select array_agg(distinct e.run_id), count(distinct c.ctid), (select count(*) from pg_temp.%1$I where result in ('changed since', 'missing'))
        from (
            select p.run_id, %3$s from backfill_audit.%2$I as p cross join lateral unnest(%4$s) as r (%5$s)
            where p.run_id = any ($1) and p.operation <> 'D'
            union all
            select p.run_id, %6$s from backfill_audit.%2$I as p cross join lateral unnest(%4$s) as r (%5$s)
            where p.run_id = any ($1) and p.operation <> 'I'
        ) as e
        join pg_temp.%1$I as c on %7$s
        where c.result in ('changed since', 'missing')$sql$,
        p_undo, p_table.images_name,
        string_agg(format('r.a%s as k%s', k.i, k.place), ', ' order by k.place),
        string_agg(format('p.b%1$s, p.a%1$s', k.i), ', ' order by k.place),
        string_agg(format('b%1$s, a%1$s', k.i), ', ' order by k.place),
        string_agg(format('case when p.b%1$s is null then r.a%1$s else r.b%1$s end', k.i), ', ' order by k.place),
        string_agg(format('c.k%1$s = e.k%1$s', k.place), ' and ' order by k.place))
    into v_listed
    from (
        select array_position(p_table.columns, c.name) as i, c.place
        from unnest(p_table.key_columns) with ordinality as c (name, place)
    ) as k;
    execute v_listed into v_wrote, v_rows, v_all using v_later;
    if v_rows = 0 then
        return null;
    end if;
    select string_agg(format('%s (%s)', x.run_id, concat_ws(', ', x.backfill, x.actions, case when x.status = 'running' then 'still running' end)),
        ', ' order by x.place) filter (where x.place <= 10)
        || case when count(*) > 10 then format(' and %s more', count(*) - 10) else '' end
    into v_listed
    from (
        select l.run_id, l.backfill, l.status, row_number() over (order by l.completed_at desc) as place,
            (select string_agg(distinct a ->> 'action', ', ') from jsonb_array_elements(l.parameters -> 'actions') as a) as actions
        from backfill.backfill_log as l
        where l.run_id = any (v_wrote)
    ) as x;
    return format('Later runs that wrote these rows, to be reversed first: %s', v_listed)
        || case when v_rows < v_all then format('. %s of the rows were changed outside a run.', v_all - v_rows) else '' end;
end;
$$;

comment on function backfill.later_runs(uuid, backfill.tracked, text) is
'For the refusal of a reversal: the runs since, the last first, that wrote one of the rows in its way, with their titles and actions; null = none did.';

create function backfill.refuse_unfit(p_run uuid, p_table backfill.tracked, p_undo text) returns void
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
    v_column record;
    v_lost text;
begin
    for v_column in
        with recursive base as (
            select i, a.atttypid as type from unnest(backfill.image_columns(p_run, p_table)) as i
            join pg_attribute as a on a.attrelid = p_table.table_name::regclass and a.attname = p_table.columns[i]
            union all
            select b.i, t.typbasetype from base as b join pg_type as t on t.oid = b.type and t.typtype = 'd'
        )
        select b.i, b.type from base as b join pg_type as t on t.oid = b.type and t.typtype = 'e'
    loop
        execute format('select string_agg(quote_literal(v), '', '' order by v) from (select b%1$s as v from pg_temp.%2$I '
            'union select a%1$s from pg_temp.%2$I) as x where v is not null and not exists ('
            'select from pg_enum where enumtypid = %3$s and enumlabel = v)', v_column.i, p_undo, v_column.type)
        into v_lost;
        if v_lost is not null then
            raise exception 'run % cannot be reversed: % of % held % in it, which is no value of type % any more: it was renamed since',
                p_run, p_table.columns[v_column.i], p_table.table_name, v_lost, v_column.type::regtype
                using errcode = 'BF005', hint = format('Nothing was changed. Give the value its old name for the reversal: '
                    'alter type %s rename value ...; or correct by hand from backfill.change_log.', v_column.type::regtype);
        end if;
    end loop;
end;
$$;

comment on function backfill.refuse_unfit(uuid, backfill.tracked, text) is
'Refuses (BF005) where images of a run hold a value of an enum that has another name by now: they are kept as text.';

create function backfill.stamping_hint(p_table backfill.tracked, p_columns text[], p_each_time boolean) returns text
language sql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
    -- Only where these triggers explain all of it.
    select case when array_agg(c) @> p_columns then format(
        'Trigger %s sets %s anew. Where it may: select backfill.track(%L, p_stamped => %L); where it may not, for the reversal: %s',
        string_agg(distinct s.trigger_name, ', '), array_to_string(p_columns, ', '), p_table.table_name, p_table.stamped || p_columns,
        string_agg(distinct format('alter table %s disable trigger %I;', p_table.table_name, s.trigger_name), ' ')) end
    from backfill.setting_triggers(p_table.table_name::regclass) as s
    cross join lateral unnest(case when p_each_time then s.stamps else s.columns end) as c
    where c = any (p_columns) and p_columns <> '{}' and not p_columns && p_table.key_columns;
$$;

comment on function backfill.stamping_hint(backfill.tracked, text[], boolean) is
'For a refusal over these columns: the triggers that set them (each time: to something else, a time for example), and the call that
declares them as stamped; null = they do not explain all of it.';

create function backfill.refuse_conflicts(p_run uuid, p_table backfill.tracked, p_undo text) returns void
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
    v_columns integer[] := backfill.image_columns(p_run, p_table);
    v_count bigint;
    v_all bigint;
    v_missing bigint;
    v_listed text;
    v_names text[];
begin
    execute format('select count(*) from pg_temp.%I where result in (''changed since'', ''missing'')', p_undo) into v_count;
    if v_count = 0 then
        return;
    end if;
    execute format($sql$
        select count(*) filter (where u.result in ('changed since', 'missing')), count(*), count(*) filter (where u.result = 'missing' or u.there and not u.has_after),
            string_agg(format('%%s %%s: %%s%%s', %L::text, %s, u.result, ' (' || nullif(array_to_string(d.names[1:10], ', '), '')
                || case when cardinality(d.names) > 10 then format(' and %%s more', cardinality(d.names) - 10) else '' end || ')'), e'\n')
                filter (where u.place <= 10 and u.result in ('changed since', 'missing')),
            array_remove(array[%s], null)
        from (select *, row_number() over (partition by result in ('changed since', 'missing')) as place from pg_temp.%I) as u
        left join %s as t on %s and u.result = 'changed since'
        cross join lateral (select array_remove(array[%s], null)) as d (names)$sql$,
        p_table.table_name, backfill.undo_keys(p_table, v_columns),
        (select string_agg(format('max(%L) filter (where %L = any (d.names))', p_table.columns[i], p_table.columns[i]), ', ' order by i)
            from unnest(v_columns) as i),
        p_undo, p_table.table_name, backfill.key_join(p_table),
        (select string_agg(format(
                'case when u.has_after and t.%1$I is not null and not (%2$s) then %3$L end', p_table.key_columns[1],
                backfill.same_image(p_table, array[i], 'a'), p_table.columns[i]), ', ' order by i)
            from unnest(v_columns) as i))
    into v_count, v_all, v_missing, v_listed, v_names;
    raise exception 'run % cannot be reversed: % of % rows of % are no longer what it left', p_run, v_count, v_all, p_table.table_name
        using errcode = 'BF005', detail = v_listed, hint = concat_ws(e'\n',
            coalesce(backfill.later_runs(p_run, p_table, p_undo),
                'Somebody changed them outside a run. All of them: select * from backfill.reversal_preview(run);'),
            case when v_missing = 0 then backfill.stamping_hint(p_table, v_names, true) end);
end;
$$;

comment on function backfill.refuse_conflicts(uuid, backfill.tracked, text) is
'Refuses (BF005), naming the first rows, up to ten columns that differ, and the runs to be reversed first, where rows are no longer
what the run left; and the trigger, where they differ only in what it sets.';

create function backfill.refuse_children(p_run uuid, p_table backfill.tracked, p_undo text) returns void
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
    v_key record;
    v_child backfill.tracked;
    v_columns integer[] := backfill.image_columns(p_run, p_table);
    v_leaving text;
    v_going text;
    v_children text;
    v_count bigint;
begin
    for v_key in
        select c.conname, c.conrelid, c.conrelid::regclass as child,
            (select string_agg(format('c.%I = t.%I', a.attname, r.attname), ' and ')
                from unnest(c.conkey, c.confkey) as k (here, there)
                join pg_attribute as a on a.attrelid = c.conrelid and a.attnum = k.here
                join pg_attribute as r on r.attrelid = c.confrelid and r.attnum = k.there) as joined,
            (select array_agg(a.attname::text) from pg_attribute as a
                where a.attrelid = c.conrelid and a.attnum = any (c.conkey)) as referring,
            (select array_agg(array_position(p_table.columns, a.attname::text)) from pg_attribute as a
                where a.attrelid = c.confrelid and a.attnum = any (c.confkey) and a.attname <> all (p_table.key_columns)
                    and c.confupdtype in ('c', 'n', 'd')) as referred,
            (select string_agg(format('c.%I', a.attname), ', ') from unnest(coalesce(
                    (select x.indkey::int2[] from pg_index as x where x.indrelid = c.conrelid and x.indisprimary), c.conkey)) as k (here)
                join pg_attribute as a on a.attrelid = c.conrelid and a.attnum = k.here) as named
        from pg_constraint as c
        where c.contype = 'f' and c.confrelid = p_table.table_name::regclass and c.conparentid = 0
    loop
        -- A row that goes, or whose other key turns back to what it was where that would carry its children along.
        select coalesce('(not u.has_before or ' || string_agg(format('t.%I::%s is distinct from u.b%s',
            p_table.columns[i], p_table.stored_types[i], i), ' or ') || ')', 'not u.has_before')
        into v_leaving
        from unnest(v_key.referred) as i
        where i = any (v_columns);
        -- A child that the reversal itself removes, or turns back to another parent, is none of somebody else.
        select * into v_child from backfill.undo_tables(p_run) as x where x.table_name::regclass = v_key.conrelid;
        v_going := '';
        if found then
            v_going := format('and not exists (select from pg_temp.%I as u where u.result = ''restored'' and %s and (not u.has_before or %s))',
                backfill.undo_table(v_child.table_name), backfill.key_join(v_child, 'c'),
                coalesce((select string_agg(format('c.%I::%s is distinct from u.b%s', x.name, v_child.stored_types[x.i], x.i), ' or ')
                    from (select r.name, array_position(v_child.columns, r.name) as i from unnest(v_key.referring) as r (name)) as x
                    where x.i = any (backfill.image_columns(p_run, v_child))), 'false'));
        end if;
        execute format($sql$
            select count(*), string_agg(x.named, ', ' order by x.named) filter (where x.place <= 5)
            from (
                select concat_ws(' / ', %s) as named, row_number() over () as place
                from %s as c join %s as t on %s join pg_temp.%I as u on %s
                where u.result = 'restored' and %s %s
            ) as x$sql$,
            v_key.named, v_key.child, p_table.table_name, v_key.joined, p_undo, backfill.key_join(p_table), v_leaving, v_going)
        into v_count, v_children;
        if v_count > 0 then
            raise exception 'run % cannot be reversed: % rows of % refer to rows of % that would be %: %',
                p_run, v_count, v_key.child, p_table.table_name,
                case when v_leaving = 'not u.has_before' then 'removed' else 'removed or given another key' end, v_children
                using errcode = 'BF005', hint = 'Remove or undo those first; a reversal never cascades.';
        end if;
    end loop;
end;
$$;

comment on function backfill.refuse_children(uuid, backfill.tracked, text) is
'Refuses (BF005) to remove rows, or to turn a key of theirs back, that rows written by somebody else refer to, whatever the foreign key would do.';
