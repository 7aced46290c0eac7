-- What proves a run: that what was captured is all that happened to tracked tables in it.
-- Safe: functions that only read.
-- depends: 0023_backfill_grants

create function backfill.altered_tables(p_open backfill.run_transaction) returns setof text
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
    v_locked oid[];
    v_written oid[];
    v_altered oid[];
    v_dropped oid[];
    v_made oid[];
    v_mark record;
    v_own boolean;
begin
    if not exists (select 1 from pg_class where oid = p_open.switch and oid = to_regclass('pg_temp.backfill_open_run') and concat_ws(' ', xmin, ctid) = p_open.version) then
        return next 'pg_temp.backfill_open_run was dropped, renamed or altered (DISCARD TEMP?): the capture was switched off';
    end if;
    -- Nothing is written or altered without a lock, and the lock stays: tables without one are as they were, as far as the run goes.
    select array_agg(object), array_agg(object) filter (where mode = 'RowExclusiveLock'),
        array_agg(object) filter (where mode in ('ShareRowExclusiveLock', 'AccessExclusiveLock')), array_agg(object) filter (where mode = 'AccessExclusiveLock'),
        array_agg(object) filter (where mode = 'ShareRowExclusiveLock')
    into v_locked, v_written, v_altered, v_dropped, v_made
    from backfill.own_locks() where catalog = 'pg_class'::regclass;
    for v_mark in
        select b.relation, b.name, b.tracked, n.name as now, b.class <> n.class as class, b.state <> n.state as state, b.columns <> n.columns as columns,
            b.shape <> n.shape as shape, b.triggers is distinct from n.triggers as triggers, b.firing is distinct from n.firing as firing,
            b.relation = any (v_written) as written, b.relation = any (v_altered) as altered, b.relation = any (v_dropped) as dropped
        from jsonb_to_recordset(p_open.marks) as b (relation oid, name text, tracked boolean, class text, state text, columns text, shape text,
            triggers text, firing text)
        left join backfill.table_marks(v_locked) as n on n.relation = b.relation
        where b.relation = any (v_locked)
        order by b.name
    loop
        if v_mark.now is null then
            if v_mark.tracked and v_mark.dropped then
                return next format('%s was dropped', v_mark.name);
            end if;
        elsif v_mark.firing and (v_mark.written or v_mark.dropped) or v_mark.triggers and exists (
                select 1 from pg_trigger where tgrelid = v_mark.relation and tgname like 'backfill\_%' and backfill.is_own(xmin)) then
            return next format('%s: triggers of the engine were switched off or on, replaced or dropped', v_mark.name);
        elsif v_mark.tracked then
            -- A GRANT makes new versions too, under no lock that alters.
            v_own := v_mark.class and (v_mark.altered or v_mark.state)
                and exists (select 1 from pg_class where oid = v_mark.relation and backfill.is_own(xmin))
                or v_mark.columns and (v_mark.altered or v_mark.shape)
                and exists (select 1 from pg_attribute where attrelid = v_mark.relation and backfill.is_own(xmin));
            if v_own or v_mark.written and (v_mark.state or v_mark.shape or v_mark.name <> v_mark.now) then
                return next case
                    when v_mark.name <> v_mark.now then format('%s was renamed: %s', v_mark.name, v_mark.now)
                    when v_mark.shape then format('%s: a column was added, dropped, renamed or retyped', v_mark.name)
                    when v_mark.state then format('%s became a partition, part of an inheritance, unlogged, or got a rule', v_mark.name)
                    else format('%s was altered (ALTER TABLE, TRUNCATE, CLUSTER, or a table that inherits)', v_mark.name) end;
            end if;
        end if;
    end loop;
    return query
    select format('%s refers to %s by a new foreign key: what it carries on is not seen', c.conrelid::regclass, b.name)
    from jsonb_to_recordset(p_open.marks) as b (relation oid, name text, tracked boolean, updated bigint, deleted bigint)
    join pg_constraint as c on c.confrelid = b.relation and c.contype = 'f' and c.conparentid = 0 and c.oid <> all (p_open.foreign_keys)
        and (c.confupdtype in ('c', 'n', 'd') or c.confdeltype in ('c', 'n', 'd'))
    where b.tracked and b.relation = any (v_locked)
        and not exists (select 1 from backfill.tracked as t where t.relation = c.conrelid and t.active)
        -- Another session's acts on what was written after it.
        and (backfill.is_own(c.xmin) or b.relation = any (v_written) and (not current_setting('track_counts')::boolean
            or (pg_stat_get_xact_tuples_updated(b.relation), pg_stat_get_xact_tuples_deleted(b.relation)) <> (b.updated, b.deleted)));
    -- One that is gone again leaves its locks: of itself and its triggers, and on the table, where it was made and where it was dropped.
    return query
    select format('%s: a foreign key that refers to it was, or may have been, made and dropped again: what it carried on is not seen', b.name)
    from jsonb_to_recordset(p_open.marks) as b (relation oid, name text, tracked boolean)
    where b.tracked and b.relation = any (v_made) and b.relation = any (v_dropped)
        and (select count(*) filter (where l.catalog = 'pg_constraint'::regclass and l.object <> all (p_open.foreign_keys)
                    and not exists (select 1 from pg_constraint where oid = l.object)) > 0
                and count(*) filter (where l.catalog = 'pg_trigger'::regclass and not exists (select 1 from pg_trigger where oid = l.object)) > 1
            from backfill.own_locks() as l where l.token <> all (p_open.locks));
    return query
    select format('%s, which keeps the images of %s, was altered, or has a rule or trigger that keeps them out', r.relation, t.table_name)
    from backfill.tracked as t
    cross join lateral (values (to_regclass(format('backfill_audit.%I', t.pack_name))), (to_regclass(format('backfill_audit.%I', t.rows_name)))) as r (relation)
    where t.active and t.relation = any (v_written) and (
        exists (select 1 from backfill.own_locks() as l where l.object = r.relation and l.token <> all (p_open.locks)
            and l.mode in ('ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock'))
        or exists (select 1 from pg_rewrite where ev_class = r.relation and ev_enabled <> 'D')
        or exists (select 1 from pg_trigger where tgrelid = r.relation and tgtype & 7 = 7 and tgenabled <> 'D')
        or 2 <> (select count(*) from pg_trigger where tgrelid = r.relation and tgfoid = 'backfill.refuse_change'::regproc and tgenabled = 'A'));
end;
$$;

comment on function backfill.altered_tables(backfill.run_transaction) is
'What happened in an open run to tracked tables themselves, to what captures and keeps their changes, or to foreign keys that refer to them, so that the
capture may have a gap; nothing is as it should be. What another session did to a table that the run did not write to is none of it.';

create function backfill.uncaptured_rows(p_open backfill.run_transaction, p_table backfill.tracked) returns text
language plpgsql volatile
security invoker
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
    v_places integer[] := (select array_agg(i order by i) from generate_subscripts(p_table.columns, 1) as i where p_table.types[i] is not null);
    v_keys integer[] := (select array_agg(array_position(p_table.columns, k.name) order by k.i)
        from unnest(p_table.key_columns) with ordinality as k (name, i));
    v_named text := (select string_agg('k' || i, ', ' order by i) from generate_subscripts(v_keys, 1) as i);
    v_before refcursor := 'backfill_before';
    v_genuine boolean := false;
    v_written jsonb;
    v_earlier tid[];
    v_images text;
    v_count bigint;
    v_listed text;
begin
    p_table.stamped := '{}';  -- they are captured like the others
    perform set_config('backfill.looked_at', p_table.relation::text, true);
    if exists (select 1 from pg_cursors where name = 'backfill_before' and statement ~ '^\s*select r\.\* from \(select generate_series\(1, 1000000\) as i\) as x '
            'cross join lateral backfill\.rows_before\(x\.i\) as r$') then
        fetch v_before into v_genuine, v_written, v_earlier;
    end if;
    if v_genuine is not true then
        return format('%s: the server counted more than was captured, or did not count, and the cursor backfill_before, which would tell, was closed (CLOSE ALL, or a finish_run() that a savepoint took back?)',
            p_table.table_name);
    end if;
    select format('(select p.operation, %s, %s from backfill_audit.%I as p cross join lateral unnest(%s) as r (%s) where p.run_id = %L and p.statement > %s)',
        (select string_agg(format('case when p.operation = ''D'' then r.b%1$s else r.a%1$s end as k%2$s', k.i, k.place), ', ' order by k.place)
            || ', ' || string_agg(format('p.operation = ''U'' and p.b%1$s is not null and r.b%1$s is distinct from r.a%1$s', k.i), ' or ') || ' as moved'
            || ', ' || string_agg(format('case when p.b%1$s is null then r.a%1$s else r.b%1$s end as o%2$s', k.i, k.place), ', ')
            from unnest(v_keys) with ordinality as k (i, place)),
        string_agg(format('r.a%s', i), ', ' order by i), p_table.images_name,
        string_agg(format('p.b%1$s, p.a%1$s', i), ', ' order by i), string_agg(format('b%1$s, a%1$s', i), ', ' order by i),
        p_open.run_id, p_open.first_statement)
    into v_images
    from unnest(v_places) as i;
    -- A row that this transaction wrote since the run began, and whose image is in none of the run's.
    execute format($sql$
        select count(*), string_agg(x.named, ', ' order by x.named) filter (where x.place <= 5)
        from (
            select concat_ws(' / ', %s) as named, row_number() over () as place
            from %s as t
            where %s and not exists (select 1 from unnest($1) as e (place) where e.place = t.ctid)
                and not exists (select 1 from %s as u where u.operation <> 'D' and %s and %s)
        ) as x$sql$,
        (select string_agg(format('t.%I', k), ', ') from unnest(p_table.business_key) as k), p_table.relation::regclass, backfill.own_version('t.xmin'),
        v_images, backfill.key_join(p_table), backfill.same_image(p_table, v_places, 'a'))
    into v_count, v_listed using v_earlier;
    if v_count > 0 then
        return format('%s: %s rows were written past the capture: %s', p_table.table_name, v_count, v_listed);
    end if;
    -- A row that was there, or that the run left, less what it captured as gone; nobody else can have removed it meanwhile.
    execute format($sql$
        select count(*), string_agg(x.named, ', ' order by x.named) filter (where x.place <= 5)
        from (
            select concat_ws(' / ', %1$s) as named, row_number() over () as place
            from (
                select %1$s, sum(e.comes) - sum(e.goes) as stays, bool_or(e.kept) and sum(e.goes) = 0 as kept
                from (
                    select %1$s, (u.operation = 'I' or u.moved)::integer as comes, (u.operation = 'D')::integer as goes, true as kept from %2$s as u
                    union all
                    select %3$s, 0, 1, false from %2$s as u where u.moved
                    union all
                    select %4$s, 1, 0, false from (
                        select e.value, (e.value ->> 0)::xid as xmax from jsonb_array_elements($1) as e
                    ) as t
                    where %5$L or (%6$s)
                ) as e
                group by %1$s
            ) as u
            left join %7$s as t on %8$s
            group by %1$s, u.stays, u.kept
            having count(t.%9$I) < u.stays or u.kept and count(t.%9$I) = 0
        ) as x$sql$,
        v_named, v_images, replace(v_named, 'k', 'u.o'),
        (select string_agg(format('(t.value ->> %s)::%s', k.place, p_table.stored_types[k.i]), ', ' order by k.place) from unnest(v_keys) with ordinality as k (i, place)),
        -- At read committed others may have deleted it since.
        current_setting('transaction_isolation') in ('repeatable read', 'serializable'), backfill.own_version('t.xmax'),
        p_table.relation::regclass, backfill.key_join(p_table), p_table.key_columns[1])
    into v_count, v_listed using v_written;
    return case when v_count > 0 then format('%s: %s rows were deleted past the capture: %s', p_table.table_name, v_count, v_listed) end;
end;
$$;

comment on function backfill.uncaptured_rows(backfill.run_transaction, backfill.tracked) is
'The exact look, where the server counted more than was captured or was kept from counting: rows that carry this transaction''s mark and are in no
image, and rows that stood there when the run began, or that it left, and are gone without an image. What savepoints and caught errors took back
was counted too, and left nothing. Null: all is captured.';

create function backfill.prove_transaction() returns void
language plpgsql volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_open backfill.run_transaction;
    v_log backfill.backfill_log;
    v_table backfill.tracked;
    v_mark record;
    v_inserted bigint;
    v_updated bigint;
    v_deleted bigint;
    -- Switched off and on again the counters may have missed something.
    v_counts boolean := not exists (select 1 from pg_settings where name = 'track_counts' and (setting = 'off' or source = 'session'));
    v_doubted oid[] := '{}';
    v_written oid[] := '{}';
    v_wrong text;
begin
    select * into v_open from backfill.run_transaction where xid = pg_current_xact_id();
    select * into v_log from backfill.backfill_log where run_id = v_open.run_id;
    select string_agg(a, e'\n') into v_wrong from backfill.altered_tables(v_open) as a;
    if v_wrong is null then
        for v_mark in
            select b.relation, b.name, pg_stat_get_xact_tuples_inserted(b.relation) - b.inserted as inserted,
                pg_stat_get_xact_tuples_updated(b.relation) - b.updated as updated, pg_stat_get_xact_tuples_deleted(b.relation) - b.deleted as deleted
            from jsonb_to_recordset(v_open.marks) as b (relation oid, name text, tracked boolean, inserted bigint, updated bigint, deleted bigint)
            where b.tracked and b.relation in (select object from backfill.own_locks() where mode = 'RowExclusiveLock')
        loop
            select * into v_table from backfill.tracked where relation = v_mark.relation and active;
            if not found then
                v_wrong := concat_ws(e'\n', v_wrong, format('%s was taken out of backfill.tracked', v_mark.name));
                continue;
            end if;
            -- What other sessions of the run captured meanwhile is not this one's.
            execute format('select coalesce(sum(n) filter (where operation = ''I''), 0), coalesce(sum(n) filter (where operation = ''U''), 0), '
                'coalesce(sum(n) filter (where operation = ''D''), 0) from ('
                'select operation, row_count as n from backfill_audit.%1$I where run_id = $1 and statement > $2 %3$s union all '
                'select operation, 1 from backfill_audit.%2$I where run_id = $1 and statement > $2 %3$s) as x', v_table.pack_name, v_table.rows_name,
                case when v_log.spans_transactions then 'and backfill.is_own(xmin)' else '' end)
            into v_inserted, v_updated, v_deleted using v_open.run_id, v_open.first_statement;
            if v_mark.inserted > v_inserted or v_mark.updated > v_updated or v_mark.deleted > v_deleted then
                v_doubted := v_doubted || v_mark.relation;
            end if;
            v_written := v_written || v_mark.relation;
            v_counts := v_counts and v_mark.inserted >= v_inserted and v_mark.updated >= v_updated and v_mark.deleted >= v_deleted;
        end loop;
        for v_table in
            select * from backfill.tracked where active and relation = any (case when v_counts then v_doubted else v_written end) order by table_name
        loop
            v_wrong := nullif(concat_ws(e'\n', v_wrong, backfill.uncaptured_rows(v_open, v_table)), '');
        end loop;
    end if;
    if v_wrong is not null then
        raise exception 'run % (%) cannot be finished: what was captured is not all that happened: %', v_log.run_id, v_log.backfill, v_wrong
            using errcode = 'BF012', hint = 'Nothing is committed. Alter tables before backfill.begin_run() or after backfill.finish_run(), and run it again.';
    end if;
end;
$$;

comment on function backfill.prove_transaction() is
'Refuses (BF012), naming table and cause, unless what the open run captured is all that happened to tracked tables since it began:
same tables, same columns, same triggers, and the rows. What the server counted only tells where to look; where it did not count, all that was
written is looked at.';

revoke execute on all functions in schema backfill from public;
