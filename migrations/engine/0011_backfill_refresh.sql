-- Before a run: the register as the tables are now, guards on tables that a foreign key would change unseen, and what the tables are,
-- by which the end of the run sees whether anybody altered them.
-- Safe: functions only; guards come onto a table that refers, with an action, to a tracked one, and do nothing outside a run.
-- depends: 0010_backfill_track

create function backfill.mark_cascade() returns trigger
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
    -- The triggers after it fire one level up, at the end of the statement that the foreign key serves.
    v_mark text := format('%s @%s;', md5(tg_argv[0]), pg_trigger_depth() - 1);
    v_own text := format('%s @%s;', md5(tg_argv[0]), pg_trigger_depth());
    v_marks text := coalesce(current_setting('backfill.cascade', true), '');
    v_context text;
begin
    get diagnostics v_context = pg_context;
    -- A foreign key writes by a statement of its own wording, in any language of the server's messages.
    if substr(v_context, strpos(v_context, e'\n') + 1)
        ~ '^[^\n]{0,80}?(DELETE FROM|UPDATE) (ONLY )?"([^"]|"")+"[.]"([^"]|"")+" (SET ("([^"]|"")+" = (NULL|DEFAULT|\$[0-9]+)[, ]+)+)?WHERE \$[0-9].{0,200}? OPERATOR\(' then
        if strpos(v_marks, v_mark) = 0 then
            perform set_config('backfill.cascade', v_marks || v_mark, true);
        end if;
    elsif strpos(v_marks, v_own) > 0 then
        perform set_config('backfill.cascade', replace(v_marks, v_own, ''), true);
    end if;
    return null;
end;
$$;

comment on function backfill.mark_cascade() is
'Trigger of tables that are not tracked and refer to one that is: notes that a foreign key, and no person, writes to it.';

create function backfill.refuse_cascade() returns trigger
language plpgsql volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    -- In a partition it is the trigger of the table above it.
    v_child regclass := (select g.tgrelid from pg_trigger as g
        where g.tgname = tg_name and g.tgfoid = 'backfill.refuse_cascade'::regproc and g.tgparentid = 0 limit 1);
begin
    if strpos(coalesce(current_setting('backfill.cascade', true), ''), format('%s @%s;', md5(tg_argv[0]), pg_trigger_depth())) > 0 then
        raise exception 'a foreign key carries on: a change of % changes rows of %, which is not tracked',
            (select string_agg(distinct c.confrelid::regclass::text, ', ')
                from pg_constraint as c
                join backfill.tracked as t on t.relation = c.confrelid and t.active
                where c.contype = 'f' and c.conrelid = v_child and (c.confdeltype in ('c', 'n', 'd') or c.confupdtype in ('c', 'n', 'd'))),
            v_child
            using errcode = 'BF003', hint = format('Nothing was changed. So that it can be undone: select backfill.track(%L);', v_child);
    end if;
    return null;
end;
$$;

comment on function backfill.refuse_cascade() is
'Trigger beside mark_cascade(): refuses (BF003) rows that a foreign key changed (cascade, set null, set default) and that an undo
would leave as they are. It goes by what happened, not by what was touched.';

create function backfill.guarded_children() returns table (child regclass, events text, present text)
language sql stable
security definer
set search_path = pg_catalog, pg_temp
as $$
    select coalesce(w.child, g.child)::regclass, w.events, g.events
    from (
        select c.conrelid as child, concat_ws(' or ',
            case when bool_or(c.confupdtype in ('c', 'n', 'd') or c.confdeltype in ('n', 'd')) then 'update' end,
            case when bool_or(c.confdeltype = 'c') then 'delete' end) as events
        from pg_constraint as c
        where c.contype = 'f' and c.conparentid = 0 and (c.confupdtype in ('c', 'n', 'd') or c.confdeltype in ('c', 'n', 'd'))
            and exists (select 1 from backfill.tracked as t where t.relation = c.confrelid and t.active)
            and not exists (select 1 from backfill.tracked as t where t.relation = c.conrelid and t.active)
        group by c.conrelid
    ) as w
    full join (
        select x.tgrelid as child, case when bool_or(x.tgfoid = 'backfill.mark_cascade'::regproc) and bool_or(x.tgfoid = 'backfill.refuse_cascade'::regproc)
            and bool_and(x.tgenabled in ('O', 'A')) and count(distinct x.tgtype & 24) = 1 and count(distinct x.tgargs) = 1
            then concat_ws(' or ', case when bit_or(x.tgtype) & 16 <> 0 then 'update' end, case when bit_or(x.tgtype) & 8 <> 0 then 'delete' end)
            else 'none' end as events
        from pg_trigger as x
        where x.tgfoid in ('backfill.mark_cascade'::regproc, 'backfill.refuse_cascade'::regproc) and x.tgparentid = 0
        group by x.tgrelid
    ) as g on g.child = w.child;
$$;

comment on function backfill.guarded_children() is
'Tables that are not tracked and that a foreign key of theirs would change with a tracked one: by which events, and which of them are guarded.';

create function backfill.guard_children() returns void
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
    v_child record;
    v_trigger name;
begin
    for v_child in
        select c.child, c.events, pg_has_role(current_user, k.relowner, 'usage') as may, pg_get_userbyid(k.relowner) as owner
        from backfill.guarded_children() as c
        join pg_class as k on k.oid = c.child
        where c.events is distinct from c.present
    loop
        if not v_child.may then
            continue when v_child.events is null;  -- a guard too many refuses nothing
            raise exception 'table % refers to a tracked table by a foreign key that acts, and only its owner can put the guard on it', v_child.child
                using errcode = 'BF002', hint = format('As %s or a superuser: select backfill.guard_children();', v_child.owner);
        end if;
        if v_child.events is null then
            for v_trigger in
                select tgname from pg_trigger
                where tgrelid = v_child.child and tgfoid in ('backfill.mark_cascade'::regproc, 'backfill.refuse_cascade'::regproc) and tgparentid = 0
            loop
                execute format('drop trigger %I on %s', v_trigger, v_child.child);
            end loop;
            continue;
        end if;
        -- A trigger for each row goes down to partitions, and where one had a trigger of that name already it could not be
        -- attached: no two tables have the same.
        select coalesce(
            (select min(tgname) from pg_trigger where tgrelid = v_child.child and tgfoid = 'backfill.refuse_cascade'::regproc and tgparentid = 0),
            format('backfill_refuse_cascade_%s', min(i)))
        into v_trigger
        from generate_series(1, (select count(*) + 1 from pg_trigger where tgname ~ '^backfill_refuse_cascade_')) as i
        where not exists (select 1 from pg_trigger where tgname = format('backfill_refuse_cascade_%s', i));
        execute format('create or replace trigger backfill_mark_cascade before %s on %s for each statement '
            'when (to_regclass(''pg_temp.backfill_open_run'') is not null) execute function backfill.mark_cascade(%L)',
            v_child.events, v_child.child, v_trigger);
        execute format('create or replace trigger %I after %s on %s for each row '
            'when (to_regclass(''pg_temp.backfill_open_run'') is not null) execute function backfill.refuse_cascade(%L)',
            v_trigger, v_child.events, v_child.child, v_trigger);
    end loop;
end;
$$;

comment on function backfill.guard_children() is
'Puts guards onto the tables that a foreign key would change with a tracked one, and takes them off where none does any more.';

create function backfill.follow_columns(p_table backfill.tracked) returns backfill.tracked
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
    v_old backfill.tracked := p_table;
    v_name text;
    v_at integer;
begin
    for v_at in select * from generate_subscripts(p_table.columns, 1) loop
        select a.attname into v_name from pg_attribute as a
        where a.attrelid = p_table.relation and a.attnum = p_table.attnums[v_at] and not a.attisdropped;
        if not found then  -- dropped
            p_table.attnums[v_at] := null;
            p_table.types[v_at] := null;
        elsif v_name <> v_old.columns[v_at] then
            p_table.columns[v_at] := v_name;
            p_table.stamped := array_replace(p_table.stamped, v_old.columns[v_at], v_name);
            p_table.money := case when v_old.money = v_old.columns[v_at] then v_name else p_table.money end;
            p_table.currency_column := case when v_old.currency_column = v_old.columns[v_at] then v_name else p_table.currency_column end;
            p_table.void := case when v_old.void[1] = v_old.columns[v_at] then v_name || v_old.void[2:] else p_table.void end;
            if v_old.columns[v_at] = any (v_old.business_key) then
                p_table.business_key[array_position(v_old.business_key, v_old.columns[v_at])] := v_name;
            end if;
            if v_old.columns[v_at] = any (v_old.key_columns) then
                p_table.key_columns[array_position(v_old.key_columns, v_old.columns[v_at])] := v_name;
            end if;
        end if;
    end loop;
    -- A dropped column does not keep a name that another has now.
    for v_at in select i from generate_subscripts(p_table.columns, 1) as i where p_table.attnums[i] is null loop
        if exists (select 1 from generate_subscripts(p_table.columns, 1) as i
                where p_table.attnums[i] is not null and p_table.columns[i] = p_table.columns[v_at]) then
            p_table.columns[v_at] := format('%s (was %s)', p_table.columns[v_at], p_table.stored_types[v_at]);
        end if;
    end loop;
    return p_table;
end;
$$;

comment on function backfill.follow_columns(backfill.tracked) is
'The register''s row with its columns as they are called now, by their numbers, and without types where they were dropped.';

create function backfill.refresh_tracked() returns void
language plpgsql volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_table record;
    v_wrong text;
begin
    if current_setting('session_replication_role') = 'replica' then
        raise exception 'session_replication_role is replica: neither foreign keys nor triggers of the application would act'
            using errcode = 'BF001', hint = 'set session_replication_role = origin;';
    end if;
    perform backfill.rebind_tracked();
    select string_agg(format('%s: %s', u.relation::regclass, u.why), e'\n' order by u.relation::regclass::text) into v_wrong
    from backfill.untrackable(array(select relation from backfill.tracked where active)) as u;
    if v_wrong is not null then
        raise exception 'tables cannot be tracked any more: %', v_wrong
            using errcode = 'BF002', hint = 'Make them what they were, or leave off: select backfill.untrack(''...'');';
    end if;
    perform backfill.require_trusted();
    for v_table in
        select t.table_name, t.relation::regclass as relation, g.present, g.disabled, g.always, pg_has_role(current_user, k.relowner, 'usage') as may,
            pg_get_userbyid(k.relowner) as owner, (
                select array_agg(array[a.attnum::text, a.attname::text, format_type(a.atttypid, a.atttypmod)] order by a.attnum)
                from pg_attribute as a
                where a.attrelid = t.relation and a.attnum > 0 and not a.attisdropped and a.attgenerated <> 'v'
            ) is not distinct from (
                select array_agg(array[c.attnum::text, c.name, c.type] order by c.attnum)
                from unnest(t.columns, t.types, t.attnums) as c (name, type, attnum)
                where c.type is not null
            ) and t.key_columns = backfill.primary_key(t.relation)
            and g.path = (t.relation in (select backfill.tables_by_path()))
            and t.captured = t.table_name as fits
        from backfill.tracked as t
        cross join lateral (
            select count(*) filter (where x.tgname <> 'backfill_use_path') as present,
                bool_or(x.tgenabled in ('D', 'R')) as disabled,
                bool_and(x.tgenabled = 'A' or x.tgname = 'backfill_use_path') as always,
                coalesce(bool_or(x.tgname = 'backfill_use_path'), false) as path
            from pg_trigger as x
            where x.tgrelid = t.relation and x.tgname in ('backfill_capture_insert', 'backfill_capture_update',
                'backfill_capture_delete', 'backfill_refuse_truncate', 'backfill_use_path')
        ) as g
        join pg_class as k on k.oid = t.relation
        where t.active
        order by t.table_name
    loop
        if v_table.disabled then
            raise exception 'triggers of % are disabled: its changes would not be captured', v_table.table_name
                using errcode = 'BF001', hint = format('alter table %s enable trigger all;', v_table.table_name);
        elsif v_table.present < 4 or v_table.fits is not true or v_table.always is not true then
            perform backfill.capture_table(v_table.relation, null, null, null, null, null, null);
            -- One too many does no harm: the owner may take it off.
            if not v_table.may and exists (select 1 from backfill.trigger_statements(v_table.relation) as s where s !~ '^drop ') then
                raise exception 'triggers of the engine are not as they should be on %, and only its owner can put them there', v_table.table_name
                    using errcode = 'BF001', hint = format('As %s or a superuser: select backfill.track(%L);', v_table.owner, v_table.table_name);
            end if;
            if v_table.may then
                perform backfill.put_triggers(v_table.relation);
            end if;
        end if;
    end loop;
    perform backfill.guard_children();
end;
$$;

comment on function backfill.refresh_tracked() is
'Before a run: follows tables and columns that were renamed, takes over columns that were added, dropped or retyped, and puts the
triggers onto a table that was made anew or restored. Refuses (BF001) where triggers are disabled, and (BF002) naming every
table that can no longer be watched, because something would not be captured.';

create function backfill.table_marks(p_relations oid[] default null)
returns table (
    relation oid, name text, tracked boolean, class text, state text, columns text, shape text, triggers text,
    firing text, inserted bigint, updated bigint, deleted bigint
)
language sql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
    with watched as materialized (
        select t.relation, true as tracked from backfill.tracked as t where t.active and (p_relations is null or t.relation = any (p_relations))
        union all
        select g.tgrelid, false from pg_trigger as g
        where g.tgfoid = 'backfill.mark_cascade'::regproc and g.tgparentid = 0 and (p_relations is null or g.tgrelid = any (p_relations))
            and not exists (select 1 from backfill.tracked as t where t.relation = g.tgrelid and t.active)
    )
    -- Versions by xmin and ctid: the command's number may look changed where a savepoint was only rolled back.
    select c.oid, format('%I.%I', n.nspname, c.relname), w.tracked, concat_ws(' ', c.xmin, c.ctid),
        concat_ws(' ', c.relkind, c.relpersistence, c.relispartition, c.relhassubclass, c.relhasrules), a.versions, a.shape, g.triggers, g.firing,
        pg_stat_get_xact_tuples_inserted(c.oid), pg_stat_get_xact_tuples_updated(c.oid), pg_stat_get_xact_tuples_deleted(c.oid)
    from watched as w
    join pg_class as c on c.oid = w.relation
    join pg_namespace as n on n.oid = c.relnamespace
    left join (
        select x.attrelid, md5(string_agg(concat_ws(' ', x.xmin, x.ctid), ',' order by x.attnum)) as versions,
            md5(string_agg(concat_ws(' ', x.attname, x.atttypid, x.atttypmod, x.attisdropped, x.attgenerated, x.attinhcount), ',' order by x.attnum)) as shape
        from pg_attribute as x
        where x.attrelid in (select v.relation from watched as v where v.tracked) and x.attnum > 0
        group by x.attrelid
    ) as a on a.attrelid = c.oid
    left join (
        select x.tgrelid, md5(string_agg(concat_ws(' ', x.xmin, x.ctid), ',' order by x.tgname)) as triggers,
            md5(string_agg(concat_ws(' ', x.tgname, x.tgenabled, x.tgtype, p.oid, p.xmin, p.ctid), ',' order by x.tgname)) as firing
        from pg_trigger as x
        join pg_proc as p on p.oid = x.tgfoid and p.pronamespace in ('backfill'::regnamespace, 'backfill_audit'::regnamespace)
        where x.tgrelid in (select v.relation from watched as v) and x.tgname like 'backfill\_%'
        group by x.tgrelid
    ) as g on g.tgrelid = c.oid;
$$;

comment on function backfill.table_marks(oid[]) is
'What tracked tables, and those that guard against cascades, are: the versions of their catalog rows, their columns, the engine''s
triggers on them with their functions, and what the server has counted. Of all of them, or of these.';
