-- The statements that restore the rows of a run. Each writes only rows that are not yet as before, so it can be done again,
-- and lets the application's triggers look for names where they do for the application.
-- Safe: functions only; nothing calls them but a reversal.
-- depends: 0016_backfill_undo_refusals

create function backfill.undo_statement(
    p_run uuid, p_table backfill.tracked, p_undo text, p_kind text, p_after text default 'true',
    p_taken text default null, p_each boolean default false
) returns text
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
    v_columns integer[] := backfill.image_columns(p_run, p_table);
    -- What was the run's has to come back to the byte; what was found as before only has to be equal again.
    v_wrong text := format('t.%I is not null and case when u.result = ''restored'' then not %s else not (%s) end', p_table.key_columns[1],
        backfill.same_bytes(p_table, v_columns, 'b'), backfill.same_image(p_table, v_columns, 'b'));
    v_changed boolean[];
    -- GENERATED ALWAYS AS IDENTITY can only be written with a new row.
    v_fixed text := coalesce((select string_agg(format('t.%I is distinct from u.b%s', p_table.columns[i], i), ' or ') from unnest(v_columns) as i
        where exists (select from pg_attribute where attrelid = p_table.table_name::regclass and attname = p_table.columns[i] and attidentity = 'a')),
        'false');
begin
    case p_kind
        when 'insert' then
            return (
                select format('insert into %1$s (%2$s) overriding system value select %3$s from pg_temp.%4$I as u '
                    'where u.has_before and not u.there and not exists (select from %1$s as t where %5$s) and %6$s returning 1',
                    p_table.table_name, string_agg(format('%I', p_table.columns[i]), ', ' order by i),
                    string_agg(format('u.b%s::%s', i, p_table.types[i]), ', ' order by i), p_undo, backfill.key_join(p_table), p_after)
                from unnest(v_columns) as i
                where not p_table.generated[i]
            );
        when 'update' then
            -- A trigger of some columns fires where they are set, changed or not.
            if p_each then
                execute format('select array[%s] from pg_temp.%I as u join %s as t on %s where u.has_before and %s',
                    (select string_agg(format('bool_or(not (%s))', backfill.same_bytes(p_table, array[i], 'b')), ', ' order by i)
                        from generate_subscripts(p_table.columns, 1) as i where i = any (backfill.compared_columns(p_table, v_columns))),
                    p_undo, p_table.table_name, backfill.key_join(p_table), v_wrong)
                into v_changed;
                v_columns := array(select c.i from unnest(backfill.compared_columns(p_table, v_columns), v_changed) as c (i, changed) where c.changed);
            end if;
            return (
                select format('update %s as t set %s from pg_temp.%I as u where u.has_before and %s and %s and not (%s) and %s returning 1',
                    p_table.table_name, string_agg(format('%I = u.b%s::%s', p_table.columns[i], i, p_table.types[i]), ', ' order by i),
                    p_undo, backfill.key_join(p_table), v_wrong, v_fixed, p_after)
                from unnest(backfill.compared_columns(p_table, v_columns)) as i
                where not p_table.generated[i]
                    -- The same key in other bytes: 1.0 and 1.00.
                    and (p_table.columns[i] <> all (p_table.key_columns) or backfill.is_loose(p_table.stored_types[i]))
                    and not exists (
                        select from pg_attribute
                        where attrelid = p_table.table_name::regclass and attname = p_table.columns[i] and attidentity = 'a')
                having count(*) > 0
            );
        when 'delete' then
            return format('delete from %s as t using pg_temp.%I as u where not u.has_before and %s and %s returning 1',
                p_table.table_name, p_undo, backfill.key_join(p_table), p_after);
        -- An update as taking the row out and putting it back, what the run never knew of it included.
        when 'take', 'take fixed' then
            return format('delete from %s as t using pg_temp.%I as u where u.has_before and %s and %s and %s and %s returning t.*',
                p_table.table_name, p_undo, backfill.key_join(p_table), v_wrong, case p_kind when 'take' then 'true' else v_fixed end, p_after);
        when 'put' then
            return (
                select format('insert into %s (%s) overriding system value select %s from %s as t join pg_temp.%I as u on %s '
                    'where %s returning 1',
                    p_table.table_name, string_agg(format('%I', x.name), ', ' order by x.attnum),
                    string_agg(case when x.i = any (v_columns) then format('u.b%s::%s', x.i, p_table.types[x.i])
                        else format('t.%I', x.name) end, ', ' order by x.attnum),
                    p_taken, p_undo, backfill.key_join(p_table), p_after)
                from (
                    select a.attname::text as name, a.attnum, array_position(p_table.columns, a.attname::text) as i
                    from pg_attribute as a
                    where a.attrelid = p_table.table_name::regclass and a.attnum > 0 and not a.attisdropped and a.attgenerated = ''
                ) as x
            );
    end case;
end;
$$;

comment on function backfill.undo_statement(uuid, backfill.tracked, text, text, text, text, boolean) is
'SQL statement that restores one kind of rows of one table: insert (rows that the run deleted), update, delete (rows that
it inserted); take and put do the same as update in two halves. Each: an update sets only what is not as before. Null: it could
change nothing.';

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

create function backfill.undo_parts(
    p_run uuid, p_table backfill.tracked, p_kind text, p_name text, p_after text, p_rewrite boolean, p_each boolean
) returns text[]
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
    v_undo text := backfill.undo_table(p_table.table_name);
    v_take text := case when p_rewrite and p_kind = 'update' then 'take' when p_kind = 'rewrite' then 'take fixed' end;
begin
    if p_kind = 'rewrite' and (p_rewrite or not exists (
        select from pg_attribute where attrelid = p_table.table_name::regclass and attidentity = 'a' and not attisdropped
    )) then
        return '{}';
    elsif v_take is not null then
        if not backfill.may_rewrite(array[p_table.table_name]) then
            return '{}';
        end if;
        return array[
            format('taken_%s as (%s)', p_name, backfill.undo_statement(p_run, p_table, v_undo, v_take, p_after)),
            format('%s as (%s)', p_name, backfill.undo_statement(p_run, p_table, v_undo, 'put',
                format('(select count(*) from taken_%s) >= 0', p_name), 'taken_' || p_name))];
    end if;
    return array_remove(array[p_name || ' as (' || backfill.undo_statement(p_run, p_table, v_undo, p_kind, p_after, null, p_each) || ')'], null);
end;
$$;

comment on function backfill.undo_parts(uuid, backfill.tracked, text, text, text, boolean, boolean) is
'The parts of a WITH that restore one kind of rows of one table; the last one has the name given. Empty: there is nothing of the kind.';

create function backfill.write_as_application(p_parts text[], p_last text, p_path text) returns bigint
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
    v_done bigint[];
begin
    -- Names and operators are looked up before it begins, under this function's path; what it fires, from the first trigger
    -- on, runs under the application's. The function's end puts its own back.
    execute format('with path as materialized (select set_config(''search_path'', %L, true) as x), %s '
        'select array[(select count(x) from path), (select count(*) from %s)]', p_path, array_to_string(p_parts, ', '), p_last) into v_done;
    return v_done[2];
end;
$$;

comment on function backfill.write_as_application(text[], text, text) is
'Runs a statement, given as the parts of its WITH, whose triggers look for names where they do for the application. Returns how
many rows the part named last wrote.';

create function backfill.fire_waiting(p_relation regclass, p_path text) returns void
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
    v_due record;
begin
    for v_due in
        select coalesce(t.search_path, p_path) as path, string_agg(distinct format('%I.%I', n.nspname, c.conname), ', ') as names,
            string_agg(distinct format('%I.%I', n.nspname, c.conname), ', ') filter (where c.condeferred and not exists (select from pg_constraint as o
                where o.connamespace = c.connamespace and o.conname = c.conname and not o.condeferrable)) as later
        from pg_constraint as c
        join pg_namespace as n on n.oid = c.connamespace
        left join backfill.tracked as t on to_regclass(t.table_name) = c.conrelid
        where c.condeferrable and p_path is not null and n.nspname !~ '^(backfill|backfill_audit|pg_.*)$'
            and (not backfill.fires_for_another() or not backfill.is_strange(n.oid, c.conname))
            and case when p_relation is null then true else c.contype = 't' and c.conrelid = p_relation end
        group by coalesce(t.search_path, p_path)
    loop
        perform pg_catalog.set_config('search_path', v_due.path, true);
        execute 'set constraints ' operator(pg_catalog.||) v_due.names operator(pg_catalog.||) ' immediate';
        perform pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
        if v_due.later is not null then
            execute 'set constraints ' || v_due.later || ' deferred';
        end if;
    end loop;
end;
$$;

comment on function backfill.fire_waiting(regclass, text) is
'Fires what waits for the commit: of one table its deferred triggers, of all (null) its foreign and unique keys, too; and lets
what comes after wait again.';

create function backfill.trigger_statements(p_relation regclass) returns setof text
language plpgsql stable
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_table backfill.tracked;
    v_operation text;
    v_function text;
    v_path boolean;
    v_all text[] := '{}';
begin
    select t.* into v_table from backfill.tracked as t where t.relation = p_relation and t.active;
    if not found then
        return;
    end if;
    foreach v_operation in array array['insert', 'update', 'delete'] loop
        v_function := format('backfill_audit.%I', v_table.pack_name || '_' || v_operation);
        continue when exists (select 1 from pg_trigger as g
            where g.tgrelid = p_relation and g.tgname = 'backfill_capture_' || v_operation and g.tgfoid = to_regproc(v_function));
        v_all := v_all || format('create or replace trigger %I after %s on %s referencing %s for each statement '
            'when (to_regclass(''pg_temp.backfill_open_run'') is not null) execute function %s()',
            'backfill_capture_' || v_operation, v_operation, p_relation,
            case v_operation when 'insert' then 'new table as new_rows'
                when 'delete' then 'old table as old_rows'
                else 'old table as old_rows new table as new_rows' end,
            v_function);
    end loop;
    if not exists (select 1 from pg_trigger as g where g.tgrelid = p_relation and g.tgname = 'backfill_refuse_truncate') then
        v_all := v_all || format('create or replace trigger backfill_refuse_truncate before truncate on %s for each statement '
            'when (to_regclass(''pg_temp.backfill_open_run'') is not null) execute function backfill.refuse_truncate()', p_relation);
    end if;
    -- Also where session_replication_role is replica.
    if v_all <> '{}' or exists (select 1 from pg_trigger as g
        where g.tgrelid = p_relation and g.tgname ~ '^backfill_(capture_(insert|update|delete)|refuse_truncate)$' and g.tgenabled <> 'A')
    then
        v_all := v_all || format('alter table %s enable always trigger backfill_capture_insert, enable always trigger backfill_capture_update, '
            'enable always trigger backfill_capture_delete, enable always trigger backfill_refuse_truncate', p_relation);
    end if;
    v_path := p_relation in (select backfill.tables_by_path());
    if v_path and not exists (select 1 from pg_trigger as g where g.tgrelid = p_relation and g.tgname = 'backfill_use_path'
        and g.tgargs = convert_to(v_table.search_path, getdatabaseencoding()) || '\x00'::bytea)
    then
        v_all := v_all || format('create or replace trigger backfill_use_path before insert or update or delete on %s for each statement '
            'when (to_regclass(''pg_temp.backfill_open_run'') is not null and current_setting(''search_path'') ~ ''pg_temp$'') '
            'execute function backfill.use_path(%L)', p_relation, v_table.search_path);
    elsif not v_path and exists (select 1 from pg_trigger where tgrelid = p_relation and tgname = 'backfill_use_path') then
        v_all := v_all || format('drop trigger backfill_use_path on %s', p_relation);
    end if;
    return query select a from unnest(v_all) as a;
end;
$$;

comment on function backfill.trigger_statements(regclass) is
'What has still to be done so that a tracked table carries the engine''s triggers: its owner, or a superuser, may do it.';

create function backfill.put_triggers(p_relation regclass) returns void
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
    v_statement text;
begin
    for v_statement in select s from backfill.trigger_statements(p_relation) as s loop
        execute v_statement;
    end loop;
end;
$$;

comment on function backfill.put_triggers(regclass) is 'Puts the engine''s triggers onto a tracked table, with the rights of whoever calls: its owner, or a superuser.';
