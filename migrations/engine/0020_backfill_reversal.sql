-- Reversal: undoes a run from its images, all or nothing, and is itself a run.
-- Safe: functions only. A row that is no longer what the run left makes the whole reversal refuse.
-- depends: 0019_backfill_undo_packs

create function backfill.finish_reversal(
    p_reversed backfill.backfill_log, p_reversal uuid, p_metrics jsonb
) returns void
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
    perform backfill.close_run(p_metrics, '[]', null, backfill.fire_deferred(current_setting('search_path')));
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

comment on function backfill.finish_reversal(backfill.backfill_log, uuid, jsonb) is 'Closes a reversal, and marks what it undid and what it brought back: a run and every second undo of the chain stand together.';

create function backfill.undo_by_rows(p_run uuid) returns jsonb
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
    v_table backfill.tracked;
    v_tables backfill.tracked[] := array(
        select t from backfill.undo_tables(p_run) as t order by backfill.first_statement(p_run, t.images_name) desc);
    v_names text[] := array(select t.table_name from unnest(v_tables) as t);
    v_triggers boolean := backfill.acting_triggers(v_names) is not null;
    v_way text;
    v_error text;
    v_detail text;
begin
    if v_names = '{}' then
        return '{}';
    end if;
    foreach v_table in array v_tables loop
        perform backfill.prepare_undo(p_run, v_table, backfill.undo_table(v_table.table_name), true);
        perform backfill.refuse_unfit(p_run, v_table, backfill.undo_table(v_table.table_name));
        perform backfill.refuse_conflicts(p_run, v_table, backfill.undo_table(v_table.table_name));
    end loop;
    foreach v_table in array v_tables loop
        perform backfill.refuse_children(p_run, v_table, backfill.undo_table(v_table.table_name));
    end loop;

    -- Backwards: a deferred trigger's writes are captured after those that caused them.
    foreach v_way in array '{apart,backwards,together,rewritten}'::text[] loop
        continue when v_way in ('apart', 'backwards') and not v_triggers or v_way = 'rewritten' and not backfill.may_rewrite(v_names);
        begin
            perform backfill.undo_rows_of(p_run, v_tables, v_way);
            v_error := null;
            exit;
        exception
            when integrity_constraint_violation or data_exception or raise_exception then
                if v_error is null then
                    get stacked diagnostics v_error = message_text, v_detail = pg_exception_detail;
                end if;
        end;
    end loop;
    if v_error is not null then
        raise exception 'run % cannot be reversed: %', p_run, v_error using errcode = 'BF005', detail = v_detail, hint = 'Nothing was changed.';
    end if;
    foreach v_table in array v_tables loop
        perform backfill.refuse_different(p_run, v_table, v_names);
    end loop;
    perform backfill.refuse_strangers(p_run, v_names);
    return backfill.stamped_anew(p_run, v_names);
end;
$$;

comment on function backfill.undo_by_rows(uuid) is
'Undoes a run row by row: all rows judged and locked first, then restored, then read again. Returns what the reversal''s log says of it.';

create function backfill.undo_run(p_run uuid, p_actor text)
returns table (table_name text, business_key text, result text)
language plpgsql volatile
security definer
set search_path = pg_catalog, pg_temp
set row_security = off
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
    v_reversal uuid;
    v_at_once boolean;
    v_path text;
begin
    perform backfill.take_lock();
    select * into v_log from backfill.backfill_log where run_id = p_run for update;
    if not found then
        raise exception 'there is no run %', p_run using errcode = 'BF009', hint = 'select run_id, backfill from backfill.backfill_log;';
    elsif v_log.status = 'running' then
        raise exception 'run % (%) is still running', p_run, v_log.backfill using errcode = 'BF001', hint = case
            when p_run = backfill.open_run() then 'It is open in this transaction: select * from backfill.finish_run();'
            else format('If whoever ran it is dead: begin; select * from backfill.abandon_run(%L, ''why''); commit; and undo it then.', p_run) end;
    elsif v_log.status = 'reversed' then
        raise notice 'run % was already reversed by run %', p_run, v_log.reversed_by;
        return;
    end if;
    perform backfill.refuse_without_images(p_run);
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
                select t.* from backfill.undo_tables(p_run) as t order by backfill.first_statement(p_run, t.images_name) desc
            loop
                perform backfill.undo_at_once(p_run, v_table);
                v_path := v_table.search_path;
            end loop;
            perform backfill.fire_waiting(null, v_path), backfill.fire_deferred(current_setting('search_path'));
        exception
            when integrity_constraint_violation or data_exception or sqlstate 'BF005' then
                v_at_once := false;
        end;
    end if;
    -- Not within the block above: what finishes a run closes its cursor, and no savepoint opens that again.
    if v_at_once then
        perform backfill.finish_reversal(v_log, v_reversal, '{}');
        return query execute backfill.undone_rows(p_run);
    else
        perform backfill.finish_reversal(v_log, v_reversal, backfill.undo_by_rows(p_run));
        return query select * from backfill.undo_rows(p_run);
    end if;
end;
$$;

comment on function backfill.undo_run(uuid, text) is 'The part of reverse_run() that needs the engine''s rights.';

create function backfill.reverse_run(p_run uuid, p_actor text default null)
returns table (table_name text, business_key text, result text)
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
    perform backfill.mend_tracked(), backfill.fire_pending(current_setting('search_path'));
    return query select * from backfill.undo_run(p_run, p_actor);
end;
$$;

comment on function backfill.reverse_run(uuid, text) is
'Undoes a run: all or nothing, in an order that foreign keys allow, as a run of its own. Returns each row with its result:
restored or already original. Refuses (BF005) and changes nothing where a row was changed since or is missing, where a row
of somebody else refers to one that would be removed, or where a trigger keeps rows from coming back. Twice is a no-op. To look
first: begin; select * from backfill.reverse_run(run); rollback;';

create function backfill.make_rows(p_table backfill.tracked) returns void
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
    v_rows regclass := to_regclass(format('backfill_audit.%I', p_table.rows_name));
    v_columns text[];
begin
    if pg_relation_size(v_rows) = 0 and (select count(*) from pg_attribute where attrelid = v_rows and attname ~ '^a[0-9]+$')
            <> cardinality(p_table.columns) then
        perform backfill.rebuild_change_log(true);  -- while it holds nothing, it is made anew, with its columns in the best order
        execute format('drop view backfill_audit.%I', p_table.images_name);
        execute format('drop table backfill_audit.%I', p_table.rows_name);
        v_rows := null;
    end if;
    -- Types of eight bytes first, so that no room goes to alignment; what an UPDATE changed is an array of one.
    select array_agg(format('a%s %s', c.i, c.stored) order by t.typlen < 0, array_position('{d,i,s,c}'::"char"[], t.typalign), c.i)
        || array_agg(format('b%s %s[]', c.i, c.stored) order by c.i)
    into v_columns
    from unnest(p_table.stored_types) with ordinality as c (stored, i)
    join pg_type as t on t.oid = c.stored::regtype
    where not exists (select 1 from pg_attribute where attrelid = v_rows and attname = 'a' || c.i);
    if v_rows is null then
        execute format('create table backfill_audit.%I (statement bigint not null, %s, run_id uuid not null, shape smallint not null, '
            'operation "char" not null check (operation in (''I'', ''U'', ''D'')))', p_table.rows_name, array_to_string(v_columns, ', '));
        execute format('create index on backfill_audit.%I (run_id)', p_table.rows_name);
        execute format('comment on table backfill_audit.%I is %L', p_table.rows_name,
            format('Images of single rows of %s: a<i> after, or what a DELETE took; b<i> what an UPDATE changed. Append-only.', p_table.table_name));
        perform backfill.append_only(format('backfill_audit.%I', p_table.rows_name)::regclass);
        perform backfill.grant_to('backfill_auditor', format('select on backfill_audit.%I', p_table.rows_name));
    elsif v_columns is not null then
        execute format('alter table backfill_audit.%I %s', p_table.rows_name,
            (select string_agg('add column ' || c, ', ') from unnest(v_columns) as c));
    end if;
end;
$$;

comment on function backfill.make_rows(backfill.tracked) is 'The table of a table''s single rows, with room for every column that there is.';

create function backfill.add_images(p_table backfill.tracked, p_stored_type text) returns integer
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
    v_place integer := cardinality(p_table.columns) + 1;
begin
    -- Compressing takes half of the time of a large run; where the server has lz4 it takes a fifth of that.
    execute format('alter table backfill_audit.%1$I add column b%2$s %3$s[] %4$s, add column a%2$s %3$s[] %4$s',
        p_table.pack_name, v_place, p_stored_type,
        case when (select 'lz4' = any (enumvals) from pg_settings where name = 'default_toast_compression') then 'compression lz4' else '' end);
    return v_place;
end;
$$;

comment on function backfill.add_images(backfill.tracked, text) is
'Makes room in a table''s packs for one more column, and returns its place.';
