-- Capture: statement triggers with transition tables, generated for each tracked table. A statement that wrote one row
-- leaves one row of images; others are kept column by column in packs, where what an UPDATE left alone in a whole pack is
-- kept once. Outside a run the triggers' WHEN clause is false and they do nothing.
-- Safe: functions only; triggers come onto a table through backfill.track().
-- depends: 0008_backfill_change_log

create function backfill.open_run() returns uuid
language sql stable
security definer
set search_path = pg_catalog, pg_temp
as $$
    select run_id from backfill.run_transaction where xid = pg_current_xact_id_if_assigned();
$$;

comment on function backfill.open_run() is 'The run that is open in this transaction, or null.';

create function backfill.refuse_no_run() returns void
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
    raise exception 'pg_temp.backfill_open_run is there, but no run is open in this transaction'
        using errcode = 'BF001', hint = 'Drop that table: a run is opened by select backfill.begin_run(...), and by nothing else.';
end;
$$;

comment on function backfill.refuse_no_run() is 'Refuses (BF001) to capture for nobody: somebody made a table of the engine''s name.';

create function backfill.refuse_names() returns void
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
    v_what text := (
        select pg_describe_object(x.catalog, x.object, 0)
        from unnest(array['backfill_open_run', 'backfill_paused_run']) as n (name)
        cross join lateral (values ('pg_class'::regclass, to_regclass('pg_temp.' || n.name)::oid), ('pg_type'::regclass, to_regtype('pg_temp.' || n.name)::oid))
            as x (catalog, object)
        where x.object is not null
        order by n.name, x.catalog::oid desc
        limit 1);
begin
    if v_what is not null then
        raise exception 'pg_temp has %, which is in the way: by that name the engine knows that a run is open', v_what
            using errcode = 'BF001', hint = 'Drop it, or all that is temporary: discard temp;';
    elsif exists (select 1 from pg_cursors where name = 'backfill_before') then
        raise exception 'a cursor backfill_before is in the way: by that name the engine proves a run' using errcode = 'BF001', hint = 'close backfill_before;';
    end if;
end;
$$;

comment on function backfill.refuse_names() is 'Refuses (BF001) a session''s own temporary objects and cursors of the engine''s names.';

create function backfill.next_statement() returns bigint
language plpgsql volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    if backfill.open_run() is null then
        perform backfill.refuse_no_run();
    end if;
    return nextval('backfill_audit.statement_no');
end;
$$;

comment on function backfill.next_statement() is 'Number of the next captured statement of the open run.';

create function backfill.use_path() returns trigger
language plpgsql volatile
security invoker
as $$
begin
    perform pg_catalog.set_config('search_path', tg_argv[0], true);
    return null;
end;
$$;

comment on function backfill.use_path() is
'Trigger of tracked tables with triggers of the application: where a function of the engine or of a backfill writes, whose
search_path is pinned, they find what they name without a schema as they do when the application writes. The setting ends with
the function that writes.';

create function backfill.triggers_of_application(p_relation oid) returns setof name
language sql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
    select g.tgname
    from pg_trigger as g
    join pg_proc as p on p.oid = g.tgfoid
    where g.tgrelid = p_relation and not g.tgisinternal and g.tgenabled <> 'D'
        and p.pronamespace not in ('backfill'::regnamespace, 'backfill_audit'::regnamespace);
$$;

comment on function backfill.triggers_of_application(oid) is 'Triggers of a table that are not the engine''s and may fire.';

create function backfill.tables_by_path() returns setof oid
language sql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
    select distinct g.tgrelid
    from pg_trigger as g
    join pg_proc as p on p.oid = g.tgfoid
    where not g.tgisinternal and g.tgenabled <> 'D'
        and p.pronamespace not in ('backfill'::regnamespace, 'backfill_audit'::regnamespace)
        and not coalesce(array_to_string(p.proconfig, ',') ~ '(^|,)search_path=', false);
$$;

comment on function backfill.tables_by_path() is
'Tables with a trigger of the application that finds what it names by the search_path of who writes.';

create function backfill.capture_body(p_table backfill.tracked, p_operation text) returns text
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
    v_from text := case p_operation when 'delete' then 'old_rows' else 'new_rows' end;
    v_letter text := upper(left(p_operation, 1));
    v_shape integer := jsonb_array_length(p_table.shapes);
    v_columns text;
    v_values text;
    v_sizes text;
    v_nulls text;
    v_named text;
    v_arrays text;
    v_pack text;
    v_pack_columns text;
    v_pack_values text;
begin
    select string_agg(format('a%s', s.i) || case p_operation when 'update' then format(', b%s', s.i) else '' end, ', ' order by s.i),
        -- The stored bytes are compared: 1.00 and 1.0 are different images.
        string_agg(format('n.c%s', s.i) || case p_operation when 'update' then format(
            ', case when not record_image_eq(row(o.c%1$s), row(n.c%1$s)) then array[o.c%1$s]::%2$s[] end', s.i, s.stored) else '' end, ', ' order by s.i),
        string_agg(format('null::%s as %I', s.stored, s.name), ', ' order by s.i),
        string_agg(format('%I::%s as c%s', s.name, s.stored, s.i), ', ' order by s.i),
        string_agg(format('array_agg(c%1$s) as c%1$s', s.i), ', ' order by s.i),
        string_agg(case p_operation when 'insert' then format('a%s', s.i) when 'delete' then format('b%s', s.i)
            else format('a%1$s, b%1$s', s.i) end, ', ' order by s.i),
        string_agg(format('n.c%s', s.i) || case p_operation when 'update' then format(
            ', case when not record_image_eq(row(o.c%1$s), row(n.c%1$s)) then o.c%1$s end', s.i) else '' end, ', ' order by s.i),
        string_agg(format(case when s.sized = 'text' then 'coalesce(octet_length(r.c%s::text), 0)' else 'coalesce(pg_column_size(r.c%s), 0)' end, s.i),
            ' + ' order by s.i) filter (where s.sized <> '')
    into v_columns, v_values, v_nulls, v_named, v_arrays, v_pack_columns, v_pack_values, v_sizes
    from (
        select c.name, c.stored, c.i,
            -- What a value has unpacked; those that can be long are of these types.
            case when c.stored in ('text', 'character varying', 'character', 'bpchar', 'bytea', 'jsonb') then 'text'
                when t.typlen = -1 and c.stored not in ('numeric', 'inet', 'cidr') then 'other' else '' end as sized
        from unnest(p_table.columns, p_table.types, p_table.stored_types) with ordinality as c (name, type, stored, i)
        left join pg_type as t on t.oid = to_regtype(c.stored)
        where c.type is not null  -- a column that was dropped stays in the history only
    ) as s;
    -- A column that was dropped or renamed since the run began is found among the nulls beside the rows: the write goes on, and
    -- the end of the run says what happened (BF012).
    v_nulls := '(select r.* from (select ' || v_nulls || ') as gone cross join lateral (select ' || v_named || ' from ';
    v_pack := '(select pack, count(*)::integer as row_count, ' || v_arrays || ' from (select (row_number() over () - 1) / v_rows as pack, r.* from ' || v_nulls;
    return format('#variable_conflict use_column
declare
    v_run uuid;
    v_statement bigint;
    v_rows integer := 1000;
    v_work_mem text;
    v_multiplier text;
    v_jit text;
begin
    if tg_relid is distinct from to_regclass(%1$L) then
        raise exception ''%% fires for %%, and was made for %%'', tg_name, tg_relid::regclass, %1$L
            using errcode = ''BF012'', hint = ''Only backfill.track() puts the function onto a table.'';
    end if;
    insert into backfill_audit.%2$I (run_id, statement, operation, shape, ', p_table.table_name, p_table.rows_name)
        || v_columns || format(')
    select x.run_id, nextval(''backfill_audit.statement_no''), %L, %s, ', v_letter, v_shape) || v_values || format('
    from %2$s%1$s) as r) as n%3$s cross join backfill.run_transaction as x
    where x.xid = pg_current_xact_id() and not exists (select 1 from %1$s offset 1);
    if found or not exists (select 1 from %1$s) then
        return null;
    end if;
    select x.run_id, nextval(''backfill_audit.statement_no'') into v_run, v_statement
    from backfill.run_transaction as x where x.xid = pg_current_xact_id();
    if not found then
        perform backfill.refuse_no_run();
    end if;
', v_from, v_nulls, case p_operation when 'update' then ' cross join ' || v_nulls || 'old_rows) as r) as o' else '' end)
        -- Where no value was too long for its row, a thousand rows make no pack that is too long.
        || coalesce('    if (select pg_relation_size(c.reltoastrelid) from pg_class as c where c.oid = tg_relid and c.reltoastrelid <> 0) > 0 then
        select greatest(1, least(1000, 33554432 / greatest(max(x.size), 1))) into v_rows from (select ' || v_sizes || ' as size from ' || v_nulls || v_from
            || ') as r) as r' || case p_operation when 'update' then ' union all select ' || v_sizes || ' from ' || v_nulls || 'old_rows) as r) as r' else '' end
            || ') as x;
    end if;
', '')
        || '    v_work_mem := current_setting(''work_mem'');
    v_multiplier := current_setting(''hash_mem_multiplier'');
    v_jit := current_setting(''jit'');
    -- One run at a time: up to a million rows are packed without going to disk.
    perform set_config(''work_mem'', ''64MB'', true), set_config(''hash_mem_multiplier'', ''4'', true), set_config(''jit'', ''off'', true);
' || format('    insert into backfill_audit.%I (run_id, statement, pack, operation, row_count, ', p_table.pack_name) || v_pack_columns
        || format(') select v_run, v_statement, n.pack, %L, n.row_count, ', v_letter) || v_pack_values
        || ' from ' || v_pack || v_from || ') as r) as r) as r group by pack) as n'
        -- Old and new rows of an UPDATE stand at the same place of their transition tables: the server writes both in
        -- one call. So packs are paired by position, also where a key was changed.
        || case p_operation when 'update' then ' join ' || v_pack || 'old_rows) as r) as r) as r group by pack) as o using (pack)' else '' end
        || ';
    perform set_config(''work_mem'', v_work_mem, true), set_config(''hash_mem_multiplier'', v_multiplier, true), set_config(''jit'', v_jit, true);
    return null;
end';
end;
$$;

comment on function backfill.capture_body(backfill.tracked, text) is
'Body of the trigger function that captures one kind of statement of a table. The usual way of a client, one row, is one statement.';

create function backfill.generate_capture(p_table backfill.tracked) returns void
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
    v_owner name := (select r.rolname from pg_class as c join pg_roles as r on r.oid = c.relowner and not r.rolsuper
        where c.oid = p_table.relation);
    v_settings text;
    v_operation text;
    v_function text;
begin
    select coalesce(max(e' set timezone = ''UTC'' set datestyle = ''ISO, YMD'' set intervalstyle = ''postgres'' set bytea_output = ''hex'' '
        'set extra_float_digits = 1 set lc_monetary = ''C'' set xmloption = ''content'''), '') into v_settings
    from unnest(p_table.types, p_table.stored_types) as c (type, stored)
    where c.stored = 'text' and c.type is not null and c.type <> 'text' and backfill.needs_settings(c.type);
    foreach v_operation in array array['insert', 'update', 'delete'] loop
        v_function := format('backfill_audit.%I', p_table.pack_name || '_' || v_operation);
        execute format('create or replace function %s() returns trigger language plpgsql volatile security definer '
            'set search_path = pg_catalog, pg_temp%s as %L', v_function, v_settings, backfill.capture_body(p_table, v_operation));
        execute format('revoke execute on function %s() from public', v_function);
        -- Whoever owns the table puts the triggers on it; as a trigger anybody fires it, and nobody calls it.
        if v_owner is not null then
            execute format('grant execute on function %s() to %I', v_function, v_owner);
        end if;
        execute format('comment on function %s() is %L', v_function,
            format('Generated by backfill.track(): captures %s of %s inside a run.', v_operation, p_table.table_name));
    end loop;
end;
$$;

comment on function backfill.generate_capture(backfill.tracked) is
'Writes the trigger functions of a tracked table, its columns spelled out.';
