-- Restoring the rows of a run: by statements of their own where triggers of the application act on them, by one statement
-- where keys go round in a circle. What counts is the state at the end: it is read, whoever wrote it.
-- Safe: functions only; nothing calls them but a reversal.
-- depends: 0017_backfill_undo_rows

create function backfill.different_rows(p_run uuid, p_table backfill.tracked) returns bigint
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
    v_count bigint;
begin
    execute format('select count(*) from pg_temp.%I as u left join %s as t on %s '
        'where (t.%I is not null) <> u.has_before or (u.has_before and not (%s))',
        backfill.undo_table(p_table.table_name), p_table.table_name, backfill.key_join(p_table), p_table.key_columns[1],
        backfill.same_image(p_table, backfill.image_columns(p_run, p_table), 'b'))
    into v_count;
    return v_count;
end;
$$;

comment on function backfill.different_rows(uuid, backfill.tracked) is 'How many rows of the prepared reversal are not as before the run.';

create function backfill.undo_apart(p_run uuid, p_tables backfill.tracked[]) returns void
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
    v_kinds constant text[] := '{delete,rewrite,update,insert}';
    v_steps integer[] := array(select i from generate_series(0, cardinality(p_tables) * 4 - 1) as i);
    v_waiting integer[];
    v_step integer;
    v_table backfill.tracked;
    v_parts text[];
    v_stuck boolean := false;
begin
    -- Trigger by trigger as the application's own statements would: who wrote last is undone first, so that what a trigger
    -- puts back is there when its table's turn comes, and is not written again.
    while cardinality(v_steps) > 0 loop
        v_waiting := '{}';
        foreach v_step in array v_steps loop
            v_table := p_tables[v_step / 4 + 1];
            v_parts := backfill.undo_parts(p_run, v_table, v_kinds[v_step % 4 + 1], 'done', 'true', false, true);
            continue when v_parts = '{}';
            begin
                perform backfill.write_as_application(v_parts, 'done', v_table.search_path);
                perform backfill.fire_waiting(v_table.table_name::regclass, v_table.search_path);
            exception
                when integrity_constraint_violation or raise_exception then
                    if v_stuck then
                        raise;
                    end if;
                    v_waiting := v_waiting || v_step;  -- until another step makes room for it
            end;
        end loop;
        v_stuck := cardinality(v_waiting) = cardinality(v_steps);
        v_steps := v_waiting;
    end loop;
end;
$$;

comment on function backfill.undo_apart(uuid, backfill.tracked[]) is
'Restores the rows of these tables by statements of their own, in this order; what a key or a trigger forbids waits for the others.';

create function backfill.undo_together(p_run uuid, p_tables backfill.tracked[], p_rewrite boolean) returns void
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
    v_table backfill.tracked;
    v_kind text;
    v_more text[];
    v_parts text[] := '{}';
    v_last text;
    v_after text := 'true';
    v_step integer := 0;
begin
    -- One statement, whose foreign keys are checked, or act, at its end, when each row is where it was. Each part waits for
    -- the one before it, which frees the keys that it needs: counting a part's rows makes it run to its end.
    foreach v_kind in array '{delete,rewrite,update,insert}'::text[] loop
        foreach v_table in array p_tables loop
            v_step := v_step + 1;
            v_more := backfill.undo_parts(p_run, v_table, v_kind, 'step_' || v_step, v_after, p_rewrite, false);
            if v_more <> '{}' then
                v_parts := v_parts || v_more;
                v_last := 'step_' || v_step;
                v_after := format('(select count(*) from %s) >= 0', v_last);
            end if;
        end loop;
    end loop;
    if v_last is not null then
        perform backfill.write_as_application(v_parts, v_last, (p_tables[1]).search_path);
    end if;
end;
$$;

comment on function backfill.undo_together(uuid, backfill.tracked[], boolean) is
'Restores the rows of these tables in one statement. Rewrite: rows to update are taken out and put back, which lets them
exchange unique keys.';

create function backfill.undo_rows_of(p_run uuid, p_tables backfill.tracked[], p_way text) returns void
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
    v_table backfill.tracked;
    v_different bigint;
    v_vanished boolean;
begin
    for v_pass in 1 .. 3 loop  -- a trigger may put back what was back already
        if p_way = 'backwards' then
            perform backfill.undo_apart(p_run, array(select p_tables[i] from generate_subscripts(p_tables, 1) as i order by i desc));
        elsif p_way = 'apart' or v_pass > 1 then
            perform backfill.undo_apart(p_run, p_tables);
        else
            perform backfill.undo_together(p_run, p_tables, p_way = 'rewritten');
        end if;
        perform backfill.fire_waiting(null, (p_tables[1]).search_path);
        v_different := 0;
        foreach v_table in array p_tables loop
            v_different := v_different + backfill.different_rows(p_run, v_table);
        end loop;
        exit when v_different = 0;
    end loop;
    foreach v_table in array p_tables loop
        exit when v_different = 0;
        execute format('select exists (select from pg_temp.%I as u where u.has_before and u.there and not exists (select from %s as t where %s))',
            backfill.undo_table(v_table.table_name), v_table.table_name, backfill.key_join(v_table))
        into v_vanished;
        if v_vanished then  -- with a row that it refers to; in one statement that would not have happened
            raise integrity_constraint_violation using message = format('rows of %s went with others that they refer to', v_table.table_name);
        end if;
    end loop;
end;
$$;

comment on function backfill.undo_rows_of(uuid, backfill.tracked[], text) is
'Restores the rows of a run in one of four ways: apart (a statement for each table and kind), backwards (the same, the tables in
the other order), together (one statement), rewritten (one, with updates as taking out and putting back); again, at most three
times, until all are as before.';

create function backfill.acting_triggers(p_tables text[]) returns text
language sql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
    select string_agg(format('%I of %s', t.tgname, t.tgrelid::regclass), ', ' order by t.tgrelid::regclass::text, t.tgname)
    from pg_trigger as t
    where t.tgrelid = any (p_tables::regclass[]) and not t.tgisinternal
        and t.tgname in (select backfill.triggers_of_application(t.tgrelid));
$$;

comment on function backfill.acting_triggers(text[]) is 'The application''s triggers of these tables, for a person; null = there are none.';

create function backfill.refuse_different(p_run uuid, p_table backfill.tracked, p_tables text[]) returns void
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
    v_columns integer[] := backfill.image_columns(p_run, p_table);
    v_count bigint;
    v_kept bigint;
    v_listed text;
    v_names text[];
    v_fixed text[];
    v_stamped text;
    v_triggers text := backfill.acting_triggers(p_tables);
begin
    execute format($sql$
        select count(*), count(*) filter (where x.kept),
            string_agg(x.key || coalesce(' (' || nullif(array_to_string(x.names, ', '), '') || ')', ''), e'\n') filter (where x.place <= 10),
            array_remove(array[%1$s], null)
        from (
            select %2$s as key, d.names, (t.%6$I is not null) <> u.has_before as kept, row_number() over () as place
            from pg_temp.%3$I as u
            left join %4$s as t on %5$s
            cross join lateral (select array_remove(array[%7$s], null)) as d (names)
            where (t.%6$I is not null) <> u.has_before or d.names <> '{}'
        ) as x$sql$,
        (select string_agg(format('max(%1$L) filter (where %1$L = any (x.names))', p_table.columns[i]), ', ' order by i) from unnest(v_columns) as i),
        backfill.undo_keys(p_table, v_columns), backfill.undo_table(p_table.table_name), p_table.table_name, backfill.key_join(p_table),
        p_table.key_columns[1],
        (select string_agg(format('case when u.has_before and t.%I is not null and not (%s) then %L end', p_table.key_columns[1],
            backfill.same_image(p_table, array[i], 'b'), p_table.columns[i]), ', ' order by i) from unnest(v_columns) as i))
    into v_count, v_kept, v_listed, v_names;
    if v_count = 0 then
        return;
    end if;
    v_stamped := case when v_kept = 0 then backfill.stamping_hint(p_table, v_names, false) end;
    select array_agg(a.attname::text) into v_fixed from pg_attribute as a
    where a.attrelid = p_table.table_name::regclass and a.attname = any (v_names) and (a.attidentity = 'a' or a.attgenerated <> '');
    raise exception 'run % cannot be reversed: % rows of % did not come back as they were%', p_run, v_count, p_table.table_name,
        case when v_stamped is not null then ': a trigger sets ' || array_to_string(v_names, ', ')
            when v_kept = 0 and v_fixed @> v_names then format(': the server alone computes %s, and computes another value now', array_to_string(v_names, ', '))
            when v_triggers is not null then ': a trigger kept or changed them'
            else '' end
        using errcode = 'BF005', detail = v_listed, hint = coalesce(v_stamped,
            'Nothing was changed. ' || case when v_kept = 0 and v_fixed @> v_names then 'Correct by hand from backfill.change_log.'
                else 'Disable the one that did it for the reversal: ' || v_triggers end,
            'Nothing was changed. Correct by hand from backfill.change_log.');
end;
$$;

comment on function backfill.refuse_different(uuid, backfill.tracked, text[]) is
'After the restoring: refuses (BF005), naming the first rows and what differs, unless every row is again as it was before the run.';

create function backfill.refuse_strangers(p_run uuid, p_tables text[]) returns void
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
    v_reversal uuid := backfill.open_run();
    v_table backfill.tracked;
    v_columns integer[];
    v_of_run boolean;
    v_found boolean;
    v_strange text;
    v_count bigint;
    v_listed text;
begin
    for v_table in select * from backfill.undo_tables(v_reversal) loop
        v_of_run := v_table.table_name = any (p_tables);
        v_strange := case when not v_of_run then 'true' else format('not exists (select from pg_temp.%I as x where %s)',
            backfill.undo_table(v_table.table_name),
            (select string_agg(format('x.k%1$s = u.k%1$s', i), ' and ') from generate_subscripts(v_table.key_columns, 1) as i)) end;
        execute format('select exists (select from (%s) as u where %s)', backfill.undo_written(v_reversal, v_table), v_strange) into v_found;
        continue when not v_found;
        -- What came and went, or was only stamped anew, is no trace.
        v_columns := backfill.image_columns(v_reversal, v_table);
        execute format('select count(*), string_agg(x.key, e''\n'') filter (where x.place <= 10) from ('
            'select %s as key, row_number() over () as place from (%s) as u where %s and not (u.has_before and u.has_after and %s)) as x',
            backfill.undo_keys(v_table, v_columns),
            backfill.net_effect(v_table, v_columns, backfill.undo_events(v_reversal, v_table, v_columns)), v_strange,
            (select coalesce(string_agg(format('u.a%1$s is not distinct from u.b%1$s', i), ' and '), 'true')
                from unnest(backfill.compared_columns(v_table, v_columns)) as i))
        into v_count, v_listed;
        if v_count > 0 then
            raise exception 'run % cannot be reversed: a trigger would change % rows of % that the run did not', p_run, v_count, v_table.table_name
                using errcode = 'BF005', detail = v_listed, hint = 'Nothing was changed. Disable the one that does it for the reversal: '
                    || backfill.acting_triggers(p_tables);
        end if;
    end loop;
end;
$$;

comment on function backfill.refuse_strangers(uuid, text[]) is
'After the restoring: refuses (BF005) where the reversal, by a trigger, changed rows of tracked tables that its run had not (a journal).';

create function backfill.stamped_anew(p_run uuid, p_tables text[]) returns jsonb
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
    v_table backfill.tracked;
    v_stamped integer[];
    v_rows bigint;
    v_columns text[];
    v_triggers text[];
    v_all jsonb := '[]';
begin
    for v_table in select * from backfill.undo_tables(p_run) as t where t.table_name = any (p_tables) and t.stamped <> '{}' loop
        v_stamped := array(select i from unnest(backfill.image_columns(p_run, v_table)) as i where v_table.columns[i] = any (v_table.stamped));
        continue when v_stamped = '{}';
        v_columns := v_table.stamped;
        v_table.stamped := '{}';  -- here they are compared
        execute format('select count(*) from pg_temp.%I as u join %s as t on %s where u.has_before and not (%s)',
            backfill.undo_table(v_table.table_name), v_table.table_name, backfill.key_join(v_table), backfill.same_image(v_table, v_stamped, 'b'))
        into v_rows;
        continue when v_rows = 0;
        select array_agg(s.trigger_name order by s.trigger_name) into v_triggers
        from backfill.setting_triggers(v_table.table_name::regclass) as s where s.columns && v_columns;
        v_all := v_all || jsonb_build_object('table', v_table.table_name, 'columns', v_columns, 'rows', v_rows, 'triggers', coalesce(v_triggers, '{}'));
        raise notice '% rows of % did not get back %: stamped anew%', v_rows, v_table.table_name, array_to_string(v_columns, ', '),
            coalesce(' by trigger ' || array_to_string(v_triggers, ', '), '');
    end loop;
    return case when v_all = '[]' then '{}'::jsonb else jsonb_build_object('stamped_anew', v_all) end;
end;
$$;

comment on function backfill.stamped_anew(uuid, text[]) is
'What a reversal says of stamped columns, as a notice and for its log: of how many rows they are others than before the run, and by which trigger.';
