-- What a reversal finds, row by row: the net effect of a run on each of its tables, against what is there now.
-- Safe: functions that read, lock the rows they will restore, and make temporary tables.
-- depends: 0014_backfill_images

create function backfill.undo_tables(p_run uuid) returns setof backfill.tracked
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
    v_table backfill.tracked;
    v_found boolean;
begin
    for v_table in select f.* from backfill.tracked as t cross join lateral backfill.follow_columns(t) as f order by f.table_name loop
        execute format('select exists (select from backfill_audit.%I where run_id = $1)', v_table.images_name) into v_found using p_run;
        if v_found then
            if not exists (select from pg_class where oid = v_table.relation) then
                raise exception 'run % cannot be reversed: table % is gone', p_run, v_table.table_name using errcode = 'BF005',
                    hint = format('If it is called otherwise since a restore: select backfill.rebind(''...'', p_was => %L);', v_table.table_name);
            end if;
            return next v_table;
        end if;
    end loop;
end;
$$;

comment on function backfill.undo_tables(uuid) is 'Tracked tables that a run wrote to, with their columns as they are called now.';

create function backfill.first_statement(p_run uuid, p_images_name text) returns bigint
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
    v_first bigint;
begin
    execute format('select min(statement) from backfill_audit.%I where run_id = $1', p_images_name) into v_first using p_run;
    return v_first;
end;
$$;

comment on function backfill.first_statement(uuid, text) is 'Number of the first statement by which a run wrote to a table.';

create function backfill.touched_once(p_run uuid, p_table backfill.tracked) returns boolean
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
    v_once boolean;
    v_update boolean;
begin
    -- One statement that moved no key touched each row once, unless it was an update: a foreign key that acts within its own
    -- table, and that may be gone since, updates a row a second time.
    execute format('select count(distinct statement) <= 1 and not bool_or(operation = ''U'' and (%s)), bool_or(operation = ''U'') '
        'from backfill_audit.%I where run_id = $1',
        (select string_agg(format('b%s is not null', array_position(p_table.columns, k)), ' or ') from unnest(p_table.key_columns) as k),
        p_table.images_name)
    into v_once, v_update using p_run;
    if v_once and v_update then
        execute format('select not exists (select from (select %s from backfill_audit.%I where run_id = $1) as k group by %s having count(*) > 1)',
            (select string_agg(format('unnest(a%s) as k%s', array_position(p_table.columns, k.name), k.i), ', ')
                from unnest(p_table.key_columns) with ordinality as k (name, i)),
            p_table.images_name,
            (select string_agg('k' || i, ', ') from generate_subscripts(p_table.key_columns, 1) as i))
        into v_once using p_run;
    end if;
    return v_once;
end;
$$;

comment on function backfill.touched_once(uuid, backfill.tracked) is
'Did the run touch each row of the table at most once? The usual bulk run, which needs no netting.';

create function backfill.net_effect(p_table backfill.tracked, p_columns integer[], p_event text) returns text
language sql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
    -- The image that one change leaves is the one that the next change of the row meets. So what is left when
    -- equal images of a key cancel each other is the row before all of them and the row after, whatever their
    -- order: a trigger or a cascade inside a statement is captured before the statement itself.
    select format($sql$
        with event as (%s),
        image as (
            select -1 as side, %s from event where has_before
            union all
            select 1, %s from event where has_after
        ),
        net as (select sum(side) as side, %s from image group by %s having sum(side) <> 0)
        select %s, o.side is not null as has_before, n.side is not null as has_after, %s
        from (select * from net where side < 0) as o
        full join (select * from net where side > 0) as n on %s$sql$,
        p_event,
        (select string_agg(format('b%1$s as v%1$s', i), ', ' order by i) from unnest(p_columns) as i),
        (select string_agg(format('a%1$s as v%1$s', i), ', ' order by i) from unnest(p_columns) as i),
        (select string_agg(format('v%s', i), ', ' order by i) from unnest(p_columns) as i),
        (select string_agg(format(
                case when backfill.is_loose(p_table.stored_types[i])
                    then 'v%1$s, v%1$s::text' else 'v%1$s' end, i), ', ' order by i) from unnest(p_columns) as i),
        string_agg(format('coalesce(o.v%1$s, n.v%1$s) as k%2$s', k.i, k.place), ', ' order by k.place),
        (select string_agg(format('o.v%1$s as b%1$s, n.v%1$s as a%1$s', i), ', ' order by i) from unnest(p_columns) as i),
        string_agg(format('o.v%1$s = n.v%1$s', k.i), ' and ' order by k.place))
    from (
        select array_position(p_table.columns, c.name) as i, c.place
        from unnest(p_table.key_columns) with ordinality as c (name, place)
    ) as k;
$$;

comment on function backfill.net_effect(backfill.tracked, integer[], text) is
'SQL query: a row for each key (k<i>) that the events changed, with its image before all of them and after.';

create function backfill.undo_events(p_run uuid, p_table backfill.tracked, p_columns integer[]) returns text
language sql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
    select format($sql$select p.operation <> 'I' as has_before, p.operation <> 'D' as has_after, %s
        from backfill_audit.%I as p cross join lateral unnest(%s) as u (%s) where p.run_id = %L$sql$,
        string_agg(format('case when p.operation = ''U'' and p.b%1$s is null then u.a%1$s else u.b%1$s end as b%1$s, u.a%1$s', i), ', ' order by i),
        p_table.images_name,
        string_agg(format('p.b%1$s, p.a%1$s', i), ', ' order by i), string_agg(format('b%1$s, a%1$s', i), ', ' order by i), p_run)
    from unnest(p_columns) as i;
$$;

comment on function backfill.undo_events(uuid, backfill.tracked, integer[]) is
'SQL query: all that a run did to the rows of a table, with the images before (b<i>) and after (a<i>).';

create function backfill.undo_written(p_run uuid, p_table backfill.tracked) returns text
language sql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
    select format('select %s from (%s) as e where has_after union all select %s from (%2$s) as e where has_before',
        string_agg(format('a%s as k%s', x.i, x.place), ', ' order by x.place),
        backfill.undo_events(p_run, p_table, array_agg(x.i order by x.i)),
        string_agg(format('b%s', x.i), ', ' order by x.place))
    from (
        select array_position(p_table.columns, k.name) as i, k.place from unnest(p_table.key_columns) with ordinality as k (name, place)
    ) as x;
$$;

comment on function backfill.undo_written(uuid, backfill.tracked) is 'SQL query: every key (k<i>) of a table that a run wrote, as often as it did.';

create function backfill.prepare_undo(p_run uuid, p_table backfill.tracked, p_undo text, p_lock boolean) returns void
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
    v_columns integer[] := backfill.image_columns(p_run, p_table);
    v_keys integer[] := (select array_agg(array_position(p_table.columns, k.name) order by k.i)
        from unnest(p_table.key_columns) with ordinality as k (name, i));
    v_net text;
begin
    if backfill.touched_once(p_run, p_table) then
        select format('select %s, e.* from (%s) as e',
            string_agg(format('case when has_after then a%1$s else b%1$s end as k%2$s', k.i, k.place), ', ' order by k.place),
            backfill.undo_events(p_run, p_table, v_columns))
        into v_net
        from unnest(v_keys) with ordinality as k (i, place);
    else
        v_net := backfill.net_effect(p_table, v_columns, backfill.undo_events(p_run, p_table, v_columns));
    end if;

    if p_lock then  -- what is judged below is what is there until the end, but for what the reversal itself does
        execute format('select count(*) from (select from %s as t join (%s) as u on %s for update of t) as locked',
            p_table.table_name, backfill.undo_written(p_run, p_table), backfill.key_join(p_table));
    end if;
    if to_regclass(format('pg_temp.%I', p_undo)) is not null then
        execute format('drop table pg_temp.%I', p_undo);
    end if;
    execute format($sql$
        create temporary table %1$I on commit drop as
        select u.*, t.%2$I is not null as there, case
            when u.has_before and t.%2$I is not null and %5$s and %3$s then 'already original'
            when not u.has_before and t.%2$I is null then 'already original'
            when u.has_after and t.%2$I is not null and %4$s then 'restored'
            when not u.has_after and t.%2$I is null then 'restored'
            when u.has_before and t.%2$I is not null and %5$s then 'already original'
            when t.%2$I is null then 'missing'
            else 'changed since'
        end as result
        from (%6$s) as u
        left join %7$s as t on %8$s$sql$,
        p_undo, p_table.key_columns[1], backfill.same_bytes(p_table, v_columns, 'b'),
        backfill.same_image(p_table, v_columns, 'a'), backfill.same_image(p_table, v_columns, 'b'),
        v_net, p_table.table_name, backfill.key_join(p_table));
    execute format('analyze pg_temp.%I (result, has_before, has_after, there, %s)', p_undo,
        (select string_agg('k' || i, ', ') from generate_subscripts(v_keys, 1) as i));
end;
$$;

comment on function backfill.prepare_undo(uuid, backfill.tracked, text, boolean) is
'Makes a temporary table with the net effect of a run on one table, a row for each key: images before and after, and what
a reversal finds there: restored (it can be), already original, changed since, missing. Lock: all those rows, first of all.';

create function backfill.undo_table(p_table_name text) returns text
language sql immutable
return 'undo_' || md5(p_table_name);

comment on function backfill.undo_table(text) is 'Name of the temporary table that prepare_undo() makes for a table.';

create function backfill.undo_keys(p_table backfill.tracked, p_columns integer[]) returns text
language sql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
    select 'concat_ws('' / '', ' || string_agg(case when array_position(p_columns, c.i) is null then 'null'
        else format('case when u.has_after then u.a%1$s::text else u.b%1$s::text end', c.i) end, ', ' order by k.place) || ')'
    from unnest(p_table.business_key) with ordinality as k (name, place)
    cross join lateral (select array_position(p_table.columns, k.name)) as c (i);
$$;

comment on function backfill.undo_keys(backfill.tracked, integer[]) is 'SQL expression: the business key of a row of the undo table.';

create function backfill.undo_rows(p_run uuid)
returns table (table_name text, business_key text, result text)
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
    v_table backfill.tracked;
begin
    for v_table in select * from backfill.undo_tables(p_run) loop
        return query execute format('select %L::text, %s, u.result from pg_temp.%I as u',
            v_table.table_name, backfill.undo_keys(v_table, backfill.image_columns(p_run, v_table)), backfill.undo_table(v_table.table_name));
    end loop;
end;
$$;

comment on function backfill.undo_rows(uuid) is 'What the prepared reversal finds, row by row.';

create function backfill.reversal_preview(p_run uuid)
returns table (table_name text, business_key text, result text)
language plpgsql volatile
security definer
set search_path = pg_catalog, pg_temp
set row_security = off
set timezone = 'UTC'
set datestyle = 'ISO, YMD'
set intervalstyle = 'postgres'
set bytea_output = 'hex'
set extra_float_digits = 1
set lc_monetary = 'C'
set xmloption = 'content'
as $$
declare
    v_table backfill.tracked;
begin
    if not exists (select from backfill.backfill_log where run_id = p_run) then
        raise exception 'there is no run %', p_run using errcode = 'BF009', hint = 'select run_id, backfill from backfill.backfill_log;';
    end if;
    perform backfill.rebind_tracked();
    perform backfill.require_trusted();
    perform backfill.refuse_without_images(p_run);
    for v_table in select * from backfill.undo_tables(p_run) loop
        perform backfill.prepare_undo(p_run, v_table, backfill.undo_table(v_table.table_name), false);
    end loop;
    return query select * from backfill.undo_rows(p_run);
end;
$$;

comment on function backfill.reversal_preview(uuid) is
'What a reversal would find, for each row: restored (it would be), already original, changed since, missing. Changes nothing.';
