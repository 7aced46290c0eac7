-- Reversal: undoes a run from its images, all or nothing, and is itself a run.
-- Safe: functions only. A row that is no longer what the run left makes the whole reversal refuse.
-- depends: 0004_backfill_run

create function backfill.image_columns(p_run uuid, p_table backfill.tracked) returns integer[]
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
    v_known boolean[];
    v_columns integer[];
    v_lost text;
begin
    -- A column that was added after the run is in none of its packs, and is left alone.
    execute format('select array[%s] from backfill_audit.%I where run_id = $1',
        (select string_agg(format('coalesce(bool_or(b%1$s is not null or a%1$s is not null), false)', i), ', ' order by i)
            from generate_subscripts(p_table.columns, 1) as i), p_table.pack_name)
    into v_known using p_run;
    select array_agg(i order by i) filter (where v_known[i]),
        string_agg(p_table.columns[i], ', ' order by i) filter (where v_known[i] and not exists (
            select from pg_attribute
            where attrelid = p_table.table_name::regclass and attname = p_table.columns[i] and not attisdropped))
    into v_columns, v_lost
    from generate_subscripts(p_table.columns, 1) as i;
    if v_lost is not null then
        raise exception 'run % cannot be reversed: % no longer has column %', p_run, p_table.table_name, v_lost
            using errcode = 'BF005', hint = 'Add the column again, or correct by hand from backfill.change_log.';
    end if;
    if exists (
        select from unnest(p_table.key_columns) as k (name)
        where array_position(v_columns, array_position(p_table.columns, k.name)) is null
    ) then
        raise exception 'run % cannot be reversed: the primary key of % is another one now', p_run, p_table.table_name
            using errcode = 'BF005', hint = 'Correct by hand from backfill.change_log.';
    end if;
    return v_columns;
end;
$$;

comment on function backfill.image_columns(uuid, backfill.tracked) is
'Places of the columns that a run''s images hold. Refuses (BF005) where the table has lost one of them.';

create function backfill.same_image(p_table backfill.tracked, p_columns integer[], p_prefix text) returns text
language sql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
    -- Typed, so that 1.00 and 1.0 are equal and no setting of the session matters; texts are equal by their bytes only,
    -- whatever the column's collation.
    select string_agg(format(case when p_table.stored_types[i] = 'text'
        then 't.%I::text collate "C" is not distinct from u.%s%s' else 't.%I is not distinct from u.%s%s' end,
        p_table.columns[i], p_prefix, i), ' and ' order by i)
    from unnest(p_columns) as i;
$$;

comment on function backfill.same_image(backfill.tracked, integer[], text) is
'SQL condition: row t of the table equals the image of u (prefix b: before, a: after).';

create function backfill.key_join(p_table backfill.tracked) returns text
language sql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
    select string_agg(format(case when p_table.stored_types[array_position(p_table.columns, k.name)] = 'text'
        then 't.%I::text = u.k%s' else 't.%I = u.k%s' end, k.name, k.i), ' and ' order by k.i)
    from unnest(p_table.key_columns) with ordinality as k (name, i);
$$;

comment on function backfill.key_join(backfill.tracked) is 'SQL condition: row t of the table has the key of u.';

create function backfill.same_bytes(p_table backfill.tracked, p_columns integer[], p_prefix text) returns text
language sql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
    select format('record_image_eq(row(%s), row(%s))',
        string_agg(format('t.%I::%s', p_table.columns[i], p_table.stored_types[i]), ', ' order by i),
        string_agg(format('u.%s%s', p_prefix, i), ', ' order by i))
    from unnest(p_columns) as i;
$$;

comment on function backfill.same_bytes(backfill.tracked, integer[], text) is
'As same_image(), but to the byte: 1.00 is not 1.0.';

create function backfill.is_loose(p_type text) returns boolean
language sql immutable parallel safe
return p_type in ('numeric', 'real', 'double precision', 'interval', 'jsonb', 'bpchar');

comment on function backfill.is_loose(text) is 'Can equal values of the type differ in their bytes?';

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

create function backfill.touched_once(p_run uuid, p_table backfill.tracked) returns boolean
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
    v_once boolean;
begin
    -- One statement that moved no key touched each row once. Only a cascade can update a row twice in one statement.
    execute format('select count(distinct statement) <= 1 and not bool_or(operation = ''U'' and (%s)) from backfill_audit.%I where run_id = $1',
        case when exists (
            select from pg_constraint
            where contype = 'f' and conrelid = p_table.table_name::regclass
                and (confupdtype in ('c', 'n', 'd') or confdeltype in ('n', 'd'))
        ) then 'true' else (select string_agg(format('b%s is not null', array_position(p_table.columns, k)), ' or ')
            from unnest(p_table.key_columns) as k) end,
        p_table.pack_name)
    into v_once using p_run;
    return v_once;
end;
$$;

comment on function backfill.touched_once(uuid, backfill.tracked) is
'Did the run touch each row of the table at most once? The usual bulk run, which needs no netting.';

create function backfill.prepare_undo(p_run uuid, p_table backfill.tracked, p_undo text) returns void
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
    v_columns integer[] := backfill.image_columns(p_run, p_table);
    v_keys integer[] := (select array_agg(array_position(p_table.columns, k.name) order by k.i)
        from unnest(p_table.key_columns) with ordinality as k (name, i));
    v_event text;
    v_net text;
begin
    select format($sql$select p.operation <> 'I' as has_before, p.operation <> 'D' as has_after, %s
        from backfill_audit.%I as p cross join lateral unnest(%s) as u (%s) where p.run_id = %L$sql$,
        string_agg(format('case when p.operation = ''U'' and p.b%1$s is null then u.a%1$s else u.b%1$s end as b%1$s, u.a%1$s', i), ', ' order by i),
        p_table.pack_name,
        string_agg(format('p.b%1$s, p.a%1$s', i), ', ' order by i), string_agg(format('b%1$s, a%1$s', i), ', ' order by i), p_run)
    into v_event
    from unnest(v_columns) as i;

    if backfill.touched_once(p_run, p_table) then
        select format('select %s, e.* from (%s) as e',
            string_agg(format('case when has_after then a%1$s else b%1$s end as k%2$s', k.i, k.place), ', ' order by k.place), v_event)
        into v_net
        from unnest(v_keys) with ordinality as k (i, place);
    else
        v_net := backfill.net_effect(p_table, v_columns, v_event);
    end if;

    if to_regclass(format('pg_temp.%I', p_undo)) is not null then
        execute format('drop table pg_temp.%I', p_undo);
    end if;
    execute format($sql$
        create temporary table %1$I on commit drop as
        select u.*, case
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
    execute format('analyze pg_temp.%I (result, has_before, has_after, %s)', p_undo,
        (select string_agg('k' || i, ', ') from generate_subscripts(v_keys, 1) as i));
end;
$$;

comment on function backfill.prepare_undo(uuid, backfill.tracked, text) is
'Makes a temporary table with the net effect of a run on one table, a row for each key: images before and after, and what
a reversal finds there: restored (it can be), already original, changed since, missing.';

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

create function backfill.refuse_children(p_run uuid, p_table backfill.tracked, p_undo text) returns void
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
    v_key record;
    v_child backfill.tracked;
    v_columns integer[] := backfill.image_columns(p_run, p_table);
    v_locked boolean := false;
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
        if not v_locked or v_leaving <> 'not u.has_before' then  -- who would refer to such a row from now on has to wait
            execute format('select count(*) from (select from %s as t join pg_temp.%I as u on %s '
                'where u.result = ''restored'' and %s for update of t) as locked',
                p_table.table_name, p_undo, backfill.key_join(p_table), v_leaving);
            v_locked := true;
        end if;
        -- A child that the reversal itself removes, or turns back to another parent, is none of somebody else.
        select * into v_child from backfill.undo_tables(p_run) as x where x.table_name::regclass = v_key.conrelid;
        v_going := '';
        if found then
            v_going := format('and not exists (select from pg_temp.%I as u where u.result = ''restored'' and %s and (not u.has_before or %s))',
                'undo_' || md5(v_child.table_name), replace(backfill.key_join(v_child), 't.', 'c.'),
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

create function backfill.undo_statement(
    p_run uuid, p_table backfill.tracked, p_undo text, p_kind text, p_after text default 'true'
) returns text
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
    v_columns integer[] := backfill.image_columns(p_run, p_table);
    v_found text := backfill.key_join(p_table) || ' and ' || backfill.same_image(p_table, v_columns, 'a');
begin
    case p_kind
        when 'insert' then
            return (
                select format('insert into %s as t (%s) overriding system value select %s from pg_temp.%I as u '
                    'where u.result = ''restored'' and u.has_before and not u.has_after and %s returning 1',
                    p_table.table_name, string_agg(format('%I', p_table.columns[i]), ', ' order by i),
                    string_agg(format('u.b%s::%s', i, p_table.types[i]), ', ' order by i), p_undo, p_after)
                from unnest(v_columns) as i
                where not p_table.generated[i]
            );
        when 'update' then
            return (
                select format('update %s as t set %s from pg_temp.%I as u '
                    'where u.result = ''restored'' and u.has_before and u.has_after and %s and %s returning 1',
                    p_table.table_name, string_agg(format('%I = u.b%s::%s', p_table.columns[i], i, p_table.types[i]), ', ' order by i),
                    p_undo, v_found, p_after)
                from unnest(v_columns) as i
                where not p_table.generated[i] and p_table.columns[i] <> all (p_table.key_columns) and not exists (
                    select from pg_attribute  -- GENERATED ALWAYS AS IDENTITY cannot be set, and cannot have been changed
                    where attrelid = p_table.table_name::regclass and attname = p_table.columns[i] and attidentity = 'a')
            );
        when 'delete' then
            return format('delete from %s as t using pg_temp.%I as u '
                'where u.result = ''restored'' and not u.has_before and u.has_after and %s and %s returning 1',
                p_table.table_name, p_undo, v_found, p_after);
        -- An update as taking the row out and putting it back, what the run never knew of it included.
        when 'take' then
            return format('delete from %s as t using pg_temp.%I as u '
                'where u.result = ''restored'' and u.has_before and u.has_after and %s and %s returning t.*',
                p_table.table_name, p_undo, v_found, p_after);
        when 'put' then
            return (
                select format('insert into %s (%s) overriding system value select %s from %%s as t join pg_temp.%I as u on %s '
                    'where u.result = ''restored'' and %s returning 1',
                    p_table.table_name, string_agg(format('%I', x.name), ', ' order by x.attnum),
                    string_agg(case when x.i = any (v_columns) then format('u.b%s::%s', x.i, p_table.types[x.i])
                        else format('t.%I', x.name) end, ', ' order by x.attnum),
                    p_undo, backfill.key_join(p_table), p_after)
                from (
                    select a.attname::text as name, a.attnum, array_position(p_table.columns, a.attname::text) as i
                    from pg_attribute as a
                    where a.attrelid = p_table.table_name::regclass and a.attnum > 0 and not a.attisdropped and a.attgenerated = ''
                ) as x
            );
    end case;
end;
$$;

comment on function backfill.undo_statement(uuid, backfill.tracked, text, text, text) is
'SQL statement that restores one kind of rows of one table: insert (rows that the run deleted), update, delete (rows that
it inserted); take and put do the same as update in two halves.';

create function backfill.undo_wanted(p_undo text, p_kind text) returns bigint
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
    v_wanted bigint;
begin
    execute format('select count(*) from pg_temp.%I where result = ''restored'' and has_before = %L and has_after = %L',
        p_undo, p_kind <> 'delete', p_kind <> 'insert') into v_wanted;
    return v_wanted;
end;
$$;

comment on function backfill.undo_wanted(text, text) is 'How many rows of that kind a reversal has to restore.';

create function backfill.undo_steps(p_run uuid, p_steps jsonb, p_rewrite boolean default false) returns void
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
    v_step record;
    v_table backfill.tracked;
    v_undo text;
    v_after text := 'true';
    v_parts text[] := '{}';
    v_counts text[] := '{}';
    v_done bigint[];
    v_wanted bigint[] := '{}';
    v_tables text[] := '{}';
begin
    -- One statement, whose foreign keys are checked at its end. Each part waits for the one before it, which
    -- frees the keys that it needs: counting a part's rows makes it run to its end.
    for v_step in
        select s.value ->> 'table' as table_name, s.value ->> 'kind' as kind, row_number() over () as n
        from jsonb_array_elements(p_steps) with ordinality as s (value, place)
        order by array_position(array['delete', 'update', 'insert'], s.value ->> 'kind'), s.place
    loop
        select * into v_table from backfill.tracked as t where t.table_name = v_step.table_name;
        v_undo := 'undo_' || md5(v_table.table_name);
        v_wanted := v_wanted || backfill.undo_wanted(v_undo, v_step.kind);
        v_tables := v_tables || v_table.table_name;
        if p_rewrite and v_step.kind = 'update' then
            v_parts := v_parts || format('taken_%s as (%s)', v_step.n, backfill.undo_statement(p_run, v_table, v_undo, 'take', v_after));
            v_parts := v_parts || format('step_%s as (%s)', v_step.n, format(
                backfill.undo_statement(p_run, v_table, v_undo, 'put', format('(select count(*) from taken_%s) >= 0', v_step.n)),
                'taken_' || v_step.n));
        else
            v_parts := v_parts || format('step_%s as (%s)', v_step.n, backfill.undo_statement(p_run, v_table, v_undo, v_step.kind, v_after));
        end if;
        v_counts := v_counts || format('(select count(*) from step_%s)', v_step.n);
        v_after := format('(select count(*) from step_%s) >= 0', v_step.n);
    end loop;
    if v_parts = '{}' then
        return;
    end if;
    -- Counted from what came back: a command's tag does not count right everywhere.
    execute format('with %s select array[%s]', array_to_string(v_parts, ', '), array_to_string(v_counts, ', ')) into v_done;
    for v_step in
        select x.* from unnest(v_tables, v_wanted, v_done) as x (table_name, wanted, done) where x.done <> x.wanted limit 1
    loop
        raise exception 'run % cannot be reversed: % of % rows of % were changed meanwhile, or a trigger kept them',
            p_run, v_step.wanted - v_step.done, v_step.wanted, v_step.table_name
            using errcode = 'BF005', hint = 'Nothing was changed. Try again, and look at the triggers of the table.';
    end loop;
end;
$$;

comment on function backfill.undo_steps(uuid, jsonb, boolean) is
'Restores kinds of rows ([{"table", "kind"}]) in one statement. Rewrite: rows to update are taken out and put back, which
lets them exchange unique keys.';

create function backfill.refuse_different(p_run uuid, p_table backfill.tracked, p_undo text) returns void
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
    v_columns integer[] := backfill.image_columns(p_run, p_table);
    v_count bigint;
    v_listed text;
begin
    execute format($sql$
        select count(*), string_agg(x.key, e'\n') filter (where x.place <= 10)
        from (
            select %s as key, row_number() over () as place
            from pg_temp.%I as u left join %s as t on %s
            where (t.%I is not null) <> u.has_before or (u.has_before and not (%s))
        ) as x$sql$,
        backfill.undo_keys(p_table, v_columns), p_undo, p_table.table_name, backfill.key_join(p_table),
        p_table.key_columns[1], backfill.same_image(p_table, v_columns, 'b'))
    into v_count, v_listed;
    if v_count > 0 then
        raise exception 'run % cannot be reversed: % rows of % did not come back as they were: a trigger changed them', p_run, v_count, p_table.table_name
            using errcode = 'BF005', detail = v_listed,
                hint = 'Nothing was changed. Disable that trigger for the reversal.';
    end if;
end;
$$;

comment on function backfill.refuse_different(uuid, backfill.tracked, text) is
'After the restoring: refuses (BF005), naming the first rows, unless every row is again as it was before the run.';

create function backfill.may_rewrite(p_tables text[]) returns boolean
language sql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
    select not exists (
        select from pg_constraint
        where contype = 'f' and confrelid = any (p_tables::regclass[]) and confdeltype <> 'a'
    );
$$;

comment on function backfill.may_rewrite(text[]) is
'May rows of these tables be taken out and put back in one statement? Not where a foreign key would act on it.';

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
        p_undo, p_table.pack_name,
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

create function backfill.refuse_conflicts(p_run uuid, p_table backfill.tracked, p_undo text) returns void
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
    v_columns integer[] := backfill.image_columns(p_run, p_table);
    v_count bigint;
    v_all bigint;
    v_listed text;
begin
    execute format('select count(*) from pg_temp.%I where result in (''changed since'', ''missing'')', p_undo) into v_count;
    if v_count = 0 then
        return;
    end if;
    execute format($sql$
        select count(*) filter (where u.result in ('changed since', 'missing')), count(*),
            string_agg(format('%%s %%s: %%s%%s', %L::text, %s, u.result, ' (' || nullif(array_to_string(d.names[1:10], ', '), '')
                || case when cardinality(d.names) > 10 then format(' and %%s more', cardinality(d.names) - 10) else '' end || ')'), e'\n')
                filter (where u.place <= 10 and u.result in ('changed since', 'missing'))
        from (select *, row_number() over (partition by result in ('changed since', 'missing')) as place from pg_temp.%I) as u
        left join %s as t on %s and u.result = 'changed since' and u.place <= 10
        cross join lateral (select array_remove(array[%s], null)) as d (names)$sql$,
        p_table.table_name, backfill.undo_keys(p_table, v_columns), p_undo, p_table.table_name, backfill.key_join(p_table),
        (select string_agg(format(
                'case when u.has_after and t.%1$I is not null and not (%2$s) then %3$L end', p_table.key_columns[1],
                backfill.same_image(p_table, array[i], 'a'), p_table.columns[i]), ', ' order by i)
            from unnest(v_columns) as i))
    into v_count, v_all, v_listed;
    raise exception 'run % cannot be reversed: % of % rows of % are no longer what it left', p_run, v_count, v_all, p_table.table_name
        using errcode = 'BF005', detail = v_listed, hint = coalesce(backfill.later_runs(p_run, p_table, p_undo),
            'Somebody changed them outside a run. All of them: select * from backfill.reversal_preview(run);');
end;
$$;

comment on function backfill.refuse_conflicts(uuid, backfill.tracked, text) is
'Refuses (BF005), naming the first rows, up to ten columns that differ, and the runs to be reversed first, where rows are no longer what the run left.';

create function backfill.undo_tables(p_run uuid) returns setof backfill.tracked
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
    v_table backfill.tracked;
    v_found boolean;
begin
    for v_table in select * from backfill.tracked order by table_name loop
        execute format('select exists (select from backfill_audit.%I where run_id = $1)', v_table.pack_name) into v_found using p_run;
        if v_found then
            if to_regclass(v_table.table_name) is null then
                raise exception 'run % cannot be reversed: table % is gone', p_run, v_table.table_name using errcode = 'BF005';
            end if;
            return next v_table;
        end if;
    end loop;
end;
$$;

comment on function backfill.undo_tables(uuid) is 'Tracked tables that a run wrote to.';

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
            v_table.table_name, backfill.undo_keys(v_table, backfill.image_columns(p_run, v_table)), 'undo_' || md5(v_table.table_name));
    end loop;
end;
$$;

comment on function backfill.undo_rows(uuid) is 'What the prepared reversal finds, row by row.';

create function backfill.reversal_preview(p_run uuid)
returns table (table_name text, business_key text, result text)
language plpgsql volatile
security definer
set search_path = pg_catalog, pg_temp
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
    for v_table in select * from backfill.undo_tables(p_run) loop
        perform backfill.prepare_undo(p_run, v_table, 'undo_' || md5(v_table.table_name));
    end loop;
    return query select * from backfill.undo_rows(p_run);
end;
$$;

comment on function backfill.reversal_preview(uuid) is
'What a reversal would find, for each row: restored (it would be), already original, changed since, missing. Changes nothing.';

create function backfill.finish_reversal(p_reversed backfill.backfill_log, p_reversal uuid) returns void
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
    perform backfill.finish_run();
    -- The run that was first, its undos, theirs, and so on: every second generation puts the same in place, or takes
    -- it away. So what stands now is what is of this reversal's generation or an even number away, and nothing else.
    with recursive upward as (
        select p_reversed.run_id, p_reversed.reverses
        union all
        select r.run_id, r.reverses
        from upward as u
        join backfill.backfill_log as r on r.run_id = u.reverses
    ),
    family as (
        select u.run_id, 0 as generation from upward as u where u.reverses is null
        union all
        select r.run_id, f.generation + 1
        from family as f
        join backfill.backfill_log as r on r.reverses = f.run_id
    ),
    judged as (
        select f.run_id, (f.generation - o.generation) % 2 = 0 as stands
        from family as f
        join family as o on o.run_id = p_reversal
    )
    update backfill.backfill_log as l
    set status = case when not j.stands then 'reversed' when l.errors = '[]' then 'succeeded' else 'partial' end,
        reversed_by = case when not j.stands then coalesce((
            select r.run_id from backfill.backfill_log as r where r.reverses = l.run_id order by r.completed_at desc limit 1), p_reversal) end
    from judged as j
    where l.run_id = j.run_id and (l.status = 'reversed') = j.stands;
end;
$$;

comment on function backfill.finish_reversal(backfill.backfill_log, uuid) is 'Closes a reversal, and marks what it undid and what it brought back: a run and every second undo of the chain stand together.';

create function backfill.may_undo_at_once(p_run uuid, p_table backfill.tracked) returns boolean
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
    return backfill.touched_once(p_run, p_table)
        -- A column added since is in none of its packs: turned round, they would not keep what the row holds there.
        and cardinality(backfill.image_columns(p_run, p_table)) = (select count(*) from unnest(p_table.types) as t where t is not null)
        -- Nobody else acts on the rows: no trigger of the application, no foreign key that cascades.
        and not exists (
            select from pg_trigger
            where tgrelid = p_table.table_name::regclass and not tgisinternal and tgenabled <> 'D'
                and tgname not like 'backfill\_capture\_%' and tgname <> 'backfill_refuse_truncate'
        )
        and not exists (
            select from pg_constraint
            where contype = 'f' and confrelid = p_table.table_name::regclass and (confdeltype <> 'a' or confupdtype <> 'a')
        )
        and not exists (select from pg_rewrite where ev_class = p_table.table_name::regclass)
        and not exists (
            select from pg_attribute
            where attrelid = p_table.table_name::regclass and attnum > 0 and not attisdropped and (attidentity = 'a' or attgenerated <> '')
        );
end;
$$;

comment on function backfill.may_undo_at_once(uuid, backfill.tracked) is
'Can a run be undone on this table by one statement straight from its packs? Not where anything else would act on the rows.';

create function backfill.undo_at_once(p_run uuid, p_table backfill.tracked) returns void
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
    v_columns integer[] := backfill.image_columns(p_run, p_table);
    v_operation "char";
    v_wanted bigint;
    v_done bigint;
    v_changed integer[];
    v_fits text;
    v_exact text;
    v_unnest text;
    v_write text;
    v_run uuid := backfill.open_run();
begin
    execute format('select min(operation), sum(row_count), array_remove(array[%s], null) from backfill_audit.%I where run_id = $1',
        (select string_agg(format('case when bool_or(b%1$s is not null) then %1$s end', i), ', ' order by i) from unnest(v_columns) as i),
        p_table.pack_name)
    into v_operation, v_wanted, v_changed using p_run;
    if v_operation = 'U' and v_changed = '{}' then
        return;
    end if;
    -- A cast to a type that was narrowed since would cut or round without a word.
    select coalesce(string_agg(format('r.b%1$s::%2$s::%3$s is not distinct from r.b%1$s', i, p_table.types[i], p_table.stored_types[i]),
        ' and ' order by i), 'true')
    into v_fits
    from unnest(v_columns) as i
    where p_table.types[i] like '%(%' and (v_operation = 'D' or i = any (v_changed));
    -- The packs turned round must say what was there to the byte: 1.0 is what the run left, and 1.00 is what an undo would find.
    select case when count(*) > 0 then backfill.same_bytes(p_table, array_agg(i), 'a') else 'true' end
    into v_exact
    from unnest(v_columns) as i
    where backfill.is_loose(p_table.stored_types[i]);
    -- Unnested in the select list, rows stream; in FROM, each array would be kept in a store of its own first.
    select format('(select %s, %s from backfill_audit.%I as p where p.run_id = %L) as r where true',
        string_agg(format('unnest(p.b%1$s) as b%1$s, unnest(p.a%1$s) as a%1$s', i), ', ' order by i),
        string_agg(format('p.b%1$s is null as left%1$s', i), ', ' order by i), p_table.pack_name, p_run)
    into v_unnest
    from unnest(v_columns) as i;
    if v_operation = 'D' then
        select format('insert into %s (%s) select %s from %s and %s returning 1', p_table.table_name,
            string_agg(format('%I', p_table.columns[i]), ', ' order by i),
            string_agg(format('r.b%s::%s', i, p_table.types[i]), ', ' order by i), v_unnest, v_fits)
        into v_write
        from unnest(v_columns) as i;
    else
        select format(case v_operation when 'I' then 'delete from %s as t using (%s) as u where %s and %s returning 1'
                else 'update %s as t set %5$s from (%2$s) as u where %3$s and %4$s returning 1' end,
            p_table.table_name,
            format('select %s, %s from %s',
                (select string_agg(format('r.a%s as k%s', array_position(p_table.columns, k.name), k.i), ', ' order by k.i)
                    from unnest(p_table.key_columns) with ordinality as k (name, i)),
                (select string_agg(format('r.a%s', i), ', ' order by i) from unnest(v_columns) as i)
                    || coalesce(', ' || (select string_agg(format(
                        'case when r.left%1$s then r.a%1$s else r.b%1$s end as b%1$s', i), ', ' order by i)
                        from unnest(v_changed) as i), ''),
                v_unnest || case when v_operation = 'U' then ' and ' || v_fits else '' end),
            backfill.key_join(p_table), backfill.same_image(p_table, v_columns, 'a') || ' and ' || v_exact,
            (select string_agg(format('%I = u.b%s::%s', p_table.columns[i], i, p_table.types[i]), ', ' order by i) from unnest(v_changed) as i))
        into v_write;
    end if;
    -- Every row was what the run left, or this fails, and nothing else acts on the rows: so what is to be captured
    -- are the run's own packs, turned round. Turning them costs a twentieth of capturing the rows again.
    perform set_config('backfill.run_id', '', true);
    execute format('with done as (%s) select count(*) from done', v_write) into v_done;
    perform set_config('backfill.run_id', v_run::text, true);
    if v_done <> v_wanted then
        raise exception 'not every row of % is what run % left', p_table.table_name, p_run using errcode = 'BF005';
    end if;
    execute format('insert into backfill_audit.%1$I (run_id, statement, pack, operation, row_count, %2$s, %3$s) '
        'select $1, $2, pack, translate(operation, ''ID'', ''DI'')::"char", row_count, %4$s, %5$s from backfill_audit.%1$I where run_id = $3',
        p_table.pack_name,
        (select string_agg(format('b%s', i), ', ' order by i) from unnest(v_columns) as i),
        (select string_agg(format('a%s', i), ', ' order by i) from unnest(v_columns) as i),
        (select string_agg(format('case when operation <> ''U'' or b%1$s is not null then a%1$s end', i), ', ' order by i) from unnest(v_columns) as i),
        (select string_agg(format('case when operation = ''U'' then coalesce(b%1$s, a%1$s) else b%1$s end', i), ', ' order by i) from unnest(v_columns) as i))
    using v_run, backfill.next_statement(), p_run;
end;
$$;

comment on function backfill.undo_at_once(uuid, backfill.tracked) is
'Undoes a run on one table by one statement straight from its packs, comparing every row; raises BF005 unless all of them fit.';

create function backfill.undone_rows(p_run uuid) returns text
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
    v_table backfill.tracked;
    v_key integer[];
    v_rows text := 'select null::text, null::text, null::text where false';
begin
    for v_table in select * from backfill.undo_tables(p_run) loop
        select array_agg(array_position(v_table.columns, k.name) order by k.i) into v_key
        from unnest(v_table.business_key) with ordinality as k (name, i)
        where array_position(v_table.columns, k.name) = any (backfill.image_columns(p_run, v_table));
        if v_key is null then  -- the run did not know any column of it
            v_key := array[array_position(v_table.columns, v_table.key_columns[1])];
        end if;
        v_rows := v_rows || format(' union all select %L, concat_ws('' / '', %s), ''restored'' from ('
            'select %s from backfill_audit.%I as p where p.run_id = %L) as r',
            v_table.table_name,
            (select string_agg(format('v%s::text', i), ', ' order by k) from unnest(v_key) with ordinality as x (i, k)),
            (select string_agg(format('unnest(case when p.operation = ''D'' then p.b%1$s else p.a%1$s end) as v%1$s', i), ', ')
                from (select distinct i from unnest(v_key) as i) as x),
            v_table.pack_name, p_run);
    end loop;
    return v_rows;
end;
$$;

comment on function backfill.undone_rows(uuid) is 'SQL query: the rows of a run that was undone at once, all restored.';

create function backfill.reverse_run(p_run uuid, p_actor text default null)
returns table (table_name text, business_key text, result text)
language plpgsql volatile
security definer
set search_path = pg_catalog, pg_temp
set work_mem = '64MB'
set jit = off
set timezone = 'UTC'
set datestyle = 'ISO, YMD'
set intervalstyle = 'postgres'
set bytea_output = 'hex'
set extra_float_digits = 1
set lc_monetary = 'C'
set xmloption = 'content'
as $$
declare
    v_log backfill.backfill_log;
    v_table backfill.tracked;
    v_undo text;
    v_reversal uuid;
    v_steps jsonb;
    v_error text;
    v_detail text;
    v_at_once boolean;
begin
    perform backfill.take_lock();
    select * into v_log from backfill.backfill_log where run_id = p_run for update;
    if not found then
        raise exception 'there is no run %', p_run using errcode = 'BF009', hint = 'select run_id, backfill from backfill.backfill_log;';
    elsif v_log.status = 'running' then
        raise exception 'run % (%) is still running', p_run, v_log.backfill using errcode = 'BF001';
    elsif v_log.status = 'reversed' then
        raise notice 'run % was already reversed by run %', p_run, v_log.reversed_by;
        return;
    end if;
    v_reversal := backfill.start_run(
        v_log.backfill, jsonb_build_object('run', p_run), v_log.subject, 'reversal', p_actor, false, p_run);

    for v_table in select * from backfill.undo_tables(p_run) loop
        if not v_table.active then
            raise exception 'run % cannot be reversed: table % is no longer tracked, and the reversal would not be captured',
                p_run, v_table.table_name
                using errcode = 'BF005', hint = format('select backfill.track(%L);', v_table.table_name);
        end if;
    end loop;

    -- The usual bulk run is undone straight from its packs. Whatever is not as expected is found out, and named,
    -- row by row below.
    select coalesce(bool_and(backfill.may_undo_at_once(p_run, t)), true) into v_at_once from backfill.undo_tables(p_run) as t;
    if v_at_once then
        begin
            for v_table in
                select t.* from backfill.undo_tables(p_run) as t order by backfill.first_statement(p_run, t.pack_name) desc
            loop
                perform backfill.undo_at_once(p_run, v_table);
            end loop;
            perform backfill.finish_reversal(v_log, v_reversal);
            return query execute backfill.undone_rows(p_run);
            return;
        exception
            when integrity_constraint_violation or sqlstate 'BF005' then
                null;
        end;
    end if;

    for v_table in select * from backfill.undo_tables(p_run) loop
        v_undo := 'undo_' || md5(v_table.table_name);
        perform backfill.prepare_undo(p_run, v_table, v_undo);
        perform backfill.refuse_conflicts(p_run, v_table, v_undo);
    end loop;
    for v_table in select * from backfill.undo_tables(p_run) loop
        perform backfill.refuse_children(p_run, v_table, 'undo_' || md5(v_table.table_name));
    end loop;

    -- All of it is one statement, in the order in which the run wrote, backwards: by the time foreign keys are checked,
    -- or act, at its end, each row is where it was, and none is left that they could take along.
    select coalesce(jsonb_agg(jsonb_build_object('table', s.table_name, 'kind', s.kind) order by s.wrote desc), '[]') into v_steps
    from (
        select t.table_name, k.kind, backfill.first_statement(p_run, t.pack_name) as wrote
        from backfill.undo_tables(p_run) as t
        cross join (values ('insert'), ('update'), ('delete')) as k (kind)
        where backfill.undo_wanted('undo_' || md5(t.table_name), k.kind) > 0
    ) as s;
    begin
        perform backfill.undo_steps(p_run, v_steps);
    exception
        when integrity_constraint_violation then
            get stacked diagnostics v_error = message_text, v_detail = pg_exception_detail;
            begin  -- rows that exchange a unique key
                if not backfill.may_rewrite(array(select x ->> 'table' from jsonb_array_elements(v_steps) as x)) then
                    raise integrity_constraint_violation;
                end if;
                perform backfill.undo_steps(p_run, v_steps, true);
            exception
                when integrity_constraint_violation then
                    raise exception 'run % cannot be reversed: %', p_run, v_error
                        using errcode = 'BF005', detail = v_detail, hint = 'Nothing was changed.';
            end;
    end;
    for v_table in select * from backfill.undo_tables(p_run) loop
        perform backfill.refuse_different(p_run, v_table, 'undo_' || md5(v_table.table_name));
    end loop;

    perform backfill.finish_reversal(v_log, v_reversal);
    return query select * from backfill.undo_rows(p_run);
end;
$$;

comment on function backfill.reverse_run(uuid, text) is
'Undoes a run: all or nothing, in an order that foreign keys allow, as a run of its own. Returns each row with its result:
restored or already original. Refuses (BF005) and changes nothing where a row was changed since or is missing, or where a row
of somebody else refers to one that would be removed. Twice is a no-op. To look first: begin; select * from
backfill.reverse_run(run); rollback;';

create function backfill.first_statement(p_run uuid, p_pack_name text) returns integer
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
    v_first integer;
begin
    execute format('select min(statement) from backfill_audit.%I where run_id = $1', p_pack_name) into v_first using p_run;
    return v_first;
end;
$$;

comment on function backfill.first_statement(uuid, text) is 'Number of the first statement by which a run wrote to a table.';

revoke execute on all functions in schema backfill from public;
do $do$
begin
    perform backfill.grant_to('backfill_operator', 'execute on function backfill.reverse_run(uuid, text)');
    perform backfill.grant_to('backfill_operator', 'execute on function backfill.reversal_preview(uuid)');
end;
$do$;
