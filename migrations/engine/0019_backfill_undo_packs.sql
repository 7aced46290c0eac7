-- The quick way of a usual bulk run: undone straight from its packs, where nothing else acts on the rows.
-- Safe: functions only; nothing calls them but a reversal.
-- depends: 0018_backfill_undo_ways

create function backfill.may_undo_at_once(p_run uuid, p_table backfill.tracked) returns boolean
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
    v_event integer;
begin
    -- Once is by one operation; undoing an INSERT is a DELETE (bit 3 of a trigger's type), and so on.
    execute format('select case min(operation) when ''I'' then 8 when ''U'' then 16 else 4 end from backfill_audit.%I where run_id = $1',
        p_table.images_name) into v_event using p_run;
    return backfill.touched_once(p_run, p_table)
        -- A column added since is in none of its packs: turned round, they would not keep what the row holds there.
        and cardinality(backfill.image_columns(p_run, p_table)) = (select count(*) from unnest(p_table.types) as t where t is not null)
        -- Nobody else acts on the rows: no trigger of the application on what the undo does, no foreign key that cascades.
        and not exists (
            select from pg_trigger
            where tgrelid = p_table.table_name::regclass and not tgisinternal and tgenabled <> 'D'
                and tgname in (select backfill.triggers_of_application(tgrelid)) and tgtype & v_event <> 0
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
    p_table.stamped := '{}';  -- they, too: the packs turned round have to say what was there
    execute format('select min(operation), sum(row_count), array_remove(array[%s], null) from backfill_audit.%I where run_id = $1',
        (select string_agg(format('case when bool_or(b%1$s is not null) then %1$s end', i), ', ' order by i) from unnest(v_columns) as i),
        p_table.images_name)
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
        string_agg(format('p.b%1$s is null as left%1$s', i), ', ' order by i), p_table.images_name, p_run)
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
    perform backfill.pause_capture(true);
    v_done := backfill.write_as_application(array['done as (' || v_write || ')'], 'done', p_table.search_path);
    perform backfill.pause_capture(false);
    if v_done <> v_wanted then
        raise exception 'not every row of % is what run % left', p_table.table_name, p_run using errcode = 'BF005';
    end if;
    execute format('insert into backfill_audit.%6$I (run_id, statement, pack, operation, row_count, %2$s, %3$s) '
        'select $1, $2, pack, translate(operation, ''ID'', ''DI'')::"char", row_count, %4$s, %5$s from backfill_audit.%1$I where run_id = $3',
        p_table.images_name,
        (select string_agg(format('b%s', i), ', ' order by i) from unnest(v_columns) as i),
        (select string_agg(format('a%s', i), ', ' order by i) from unnest(v_columns) as i),
        (select string_agg(format('case when operation <> ''U'' or b%1$s is not null then a%1$s end', i), ', ' order by i) from unnest(v_columns) as i),
        (select string_agg(format('case when operation = ''U'' then coalesce(b%1$s, a%1$s) else b%1$s end', i), ', ' order by i) from unnest(v_columns) as i),
        p_table.pack_name)
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
            v_table.images_name, p_run);
    end loop;
    return v_rows;
end;
$$;

comment on function backfill.undone_rows(uuid) is 'SQL query: the rows of a run that was undone at once, all restored.';

create function backfill.run_totals(p_run uuid)
returns table (table_name text, inserted bigint, updated bigint, deleted bigint, money jsonb, finer bigint)
language plpgsql stable
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_table backfill.tracked;
begin
    for v_table in
        select t.* from backfill.tracked as t where t.pack_name in (select backfill.written_tables(p_run)) order by t.table_name
    loop
        table_name := v_table.table_name;
        execute format('select sum(row_count) filter (where operation = ''I''), sum(row_count) filter (where operation = ''U''), '
            'sum(row_count) filter (where operation = ''D'') from backfill_audit.%I where run_id = $1', v_table.images_name)
        into inserted, updated, deleted using p_run;
        execute backfill.changed_money(v_table.images_name, array_position(v_table.columns, v_table.money), v_table.stored_types[array_position(v_table.columns, v_table.money)],
            array_position(v_table.columns, v_table.currency_column), v_table.currency, array_position(v_table.columns, v_table.void[1]), v_table.void[2:])
        into money, finer using p_run;
        if inserted is not null or updated is not null or deleted is not null then
            inserted := coalesce(inserted, 0);
            updated := coalesce(updated, 0);
            deleted := coalesce(deleted, 0);
            return next;
        end if;
    end loop;
end;
$$;

comment on function backfill.run_totals(uuid) is 'Rows by operation and the change in money by currency of a run, for each table it touched.';

create function backfill.retype_images(
    p_table backfill.tracked, p_place integer, p_type text, p_stored_type text
) returns void
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
    v_lost boolean;
begin
    if p_stored_type = 'text' then  -- change_log will show it as what it is
        execute format('select count(v::%s) < 0 from backfill_audit.%I cross join lateral unnest(b%3$s::text[] || a%3$s::text[]) as v',
            p_type, p_table.images_name, p_place) into v_lost;
    end if;
    if p_stored_type = p_table.stored_types[p_place] then
        return;
    end if;
    -- The way there and back must give the same bytes: history is never rounded or cut.
    execute format('select exists (select 1 from backfill_audit.%1$I '
        'where not record_image_eq(row(b%2$s, a%2$s), row(b%2$s::%3$s[]::%4$s[], a%2$s::%3$s[]::%4$s[])))',
        p_table.images_name, p_place, p_stored_type, p_table.stored_types[p_place]) into v_lost;
    if v_lost then
        raise exception 'images of % would change', p_table.columns[p_place] using errcode = 'data_exception';
    end if;
    perform backfill.rebuild_change_log(true);  -- the views would keep the images from being altered
    execute format('drop view backfill_audit.%I', p_table.images_name);
    execute format('alter table backfill_audit.%1$I alter column b%2$s type %3$s[] using b%2$s::%3$s[], '
        'alter column a%2$s type %3$s[] using a%2$s::%3$s[]', p_table.pack_name, p_place, p_stored_type);
    execute format('alter table backfill_audit.%1$I alter column b%2$s type %3$s[] using b%2$s::%3$s[], '
        'alter column a%2$s type %3$s using a%2$s::%3$s', p_table.rows_name, p_place, p_stored_type);
    perform backfill.rebuild_images(p_table);
end;
$$;

comment on function backfill.retype_images(backfill.tracked, integer, text, text) is
'Takes a column''s images, the old ones too, over to its new type. Fails where one of them does not fit it exactly.';

create function backfill.defer_constraints() returns void
language plpgsql volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_names text;
begin
    select string_agg(distinct format('%I.%I', n.nspname, c.conname), ', ') into v_names
    from pg_constraint as c
    join pg_namespace as n on n.oid = c.connamespace
    where c.condeferred and has_schema_privilege(n.oid, 'usage')
        -- It goes by the name alone, and refuses one that another constraint bears which cannot wait.
        and not exists (select 1 from pg_constraint as o where o.connamespace = c.connamespace and o.conname = c.conname and not o.condeferrable);
    if v_names is not null then
        execute format('set constraints %s deferred', v_names);
    end if;
end;
$$;

comment on function backfill.defer_constraints() is 'Constraints that wait for the commit wait again: another run of the transaction may need it.';
