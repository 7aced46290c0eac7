-- Capture: statement triggers with transition tables, generated for each tracked table.
-- Whole images are kept column by column in packs of up to 1,000 rows; what an UPDATE left alone in a
-- whole pack is kept once. Outside a run the triggers' WHEN clause is false and they do nothing.
-- Safe: triggers come onto a table only through backfill.track(), which a later migration states.
-- depends: 0002_backfill_log

create function backfill.stored_type(p_type oid) returns text
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
    v_type oid := p_type;
    v_base oid;
begin
    loop  -- a domain is kept as what it is made of
        select typbasetype into v_base from pg_type where oid = v_type and typtype = 'd';
        exit when not found;
        v_type := v_base;
    end loop;
    if exists (
        select from pg_type as t
        where t.oid = v_type and t.typtype = 'b' and t.typcategory <> 'A' and t.typarray <> 0
            and t.typnamespace = 'pg_catalog'::regnamespace
            and exists (
                select from pg_opclass as o
                join pg_am as m on m.oid = o.opcmethod and m.amname = 'hash'
                where o.opcdefault and (o.opcintype = t.oid or exists (
                    select from pg_cast as c
                    where c.castsource = t.oid and c.casttarget = o.opcintype and c.castmethod = 'b' and c.castcontext = 'i'
                ))
            )
    ) then
        return format_type(v_type, -1);  -- without -1, char(8) and bit(5) would be kept as char(1) and bit(1)
    end if;
    return 'text';
end;
$$;

comment on function backfill.stored_type(oid) is
'Type in which a column is kept in the packs: its own where PostgreSQL can hash it, else text (json, xml, point,
arrays, enums, composites), written and read under pinned settings.';

create function backfill.open_run() returns uuid
language sql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
    select case when x.setting ~ '^[0-9a-f-]{36}$' then x.setting::uuid end
    from (select current_setting('backfill.run_id', true)) as x (setting);
$$;

comment on function backfill.open_run() is 'The run that is open in this transaction, or null.';

create function backfill.next_statement() returns integer
language plpgsql volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_next integer := coalesce(nullif(current_setting('backfill.statement', true), '')::integer, 0) + 1;
begin
    if not exists (
        select from backfill.backfill_log where run_id = backfill.open_run() and status = 'running'
    ) then
        raise exception 'backfill.run_id is set to %, which is no running run', current_setting('backfill.run_id', true)
            using errcode = 'BF001', hint = 'Never set backfill.run_id by hand: select backfill.begin_run(...).';
    end if;
    perform set_config('backfill.statement', v_next::text, true);
    return v_next;
end;
$$;

comment on function backfill.next_statement() is
'Number of the next captured statement of the open run. Kept in the transaction, so that it rolls back with it.';

create function backfill.refuse_truncate() returns trigger
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
    raise exception 'TRUNCATE of %.% is refused inside a run: it cannot be captured', tg_table_schema, tg_table_name
        using errcode = 'BF003', hint = 'Use DELETE, which is captured and can be reversed.';
end;
$$;

comment on function backfill.refuse_truncate() is 'Trigger of tracked tables: TRUNCATE inside a run is refused (BF003).';

create function backfill.refuse_cascade(p_relation oid, p_operation text) returns void
language plpgsql stable
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_child regclass;
begin
    -- What a foreign key did to the other table counts as this transaction's; the table's own triggers saw nothing.
    select c.conrelid into v_child
    from pg_constraint as c
    where c.contype = 'f' and c.confrelid = p_relation and c.conrelid <> c.confrelid
        and case p_operation when 'DELETE' then c.confdeltype else c.confupdtype end in ('c', 'n', 'd')
        and coalesce(pg_stat_get_xact_tuples_deleted(c.conrelid), 0) + coalesce(pg_stat_get_xact_tuples_updated(c.conrelid), 0) > 0
        and not exists (select from backfill.tracked as t where t.active and to_regclass(t.table_name) = c.conrelid)
    order by c.conrelid::regclass::text
    limit 1;
    if found then
        raise exception '% of % changes rows of %, which is not tracked', p_operation, p_relation::regclass, v_child
            using errcode = 'BF003', hint = format('Nothing was changed. So that it can be undone: select backfill.track(%L);', v_child);
    end if;
end;
$$;

comment on function backfill.refuse_cascade(oid, text) is
'For the capture of DELETE and UPDATE: refuses (BF003) where a foreign key has carried the change on (cascade, set null, set
default) into a table that is not tracked, and that an undo would leave as it is.';

create function backfill.rebuild_change_log(p_empty boolean default false) returns void
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
    v_branches text := $sql$select null::uuid as run_id, null::text as table_name, null::integer as statement,
        null::integer as pack, null::bigint as row_no, null::text as operation, null::text as business_key, null::text as primary_key,
        null::bigint as cents_before, null::bigint as cents_after, null::jsonb as before, null::jsonb as after
        where false$sql$;
    v_table backfill.tracked;
    v_before text;
    v_after text;
    v_unnest text;
    v_names text;
    v_business_key text[];
    v_primary_key text[];
    v_money integer;
begin
    for v_table in select * from backfill.tracked where not p_empty order by table_name loop
        -- Text images of built-in types are shown as what they are (a json column as json).
        select string_agg(format(
                case when t.typnamespace = 'pg_catalog'::regnamespace and s.stored = 'text'
                    then '(case when p.b%1$s is null and p.operation = ''U'' then u.a%1$s else u.b%1$s end)::%3$s as %2$I'
                    else 'case when p.b%1$s is null and p.operation = ''U'' then u.a%1$s else u.b%1$s end as %2$I' end,
                s.i, s.name, s.type), ', ' order by s.i),
            string_agg(format(
                case when t.typnamespace = 'pg_catalog'::regnamespace and s.stored = 'text'
                    then 'u.a%1$s::%3$s as %2$I' else 'u.a%1$s as %2$I' end,
                s.i, s.name, s.type), ', ' order by s.i),
            string_agg(format('p.b%s', s.i), ', ' order by s.i) || ', ' || string_agg(format('p.a%s', s.i), ', ' order by s.i),
            string_agg(format('b%s', s.i), ', ' order by s.i) || ', ' || string_agg(format('a%s', s.i), ', ' order by s.i)
        into v_before, v_after, v_unnest, v_names
        from unnest(v_table.columns, v_table.types, v_table.stored_types) with ordinality as s (name, type, stored, i)
        left join pg_type as t on t.oid = to_regtype(s.type);
        -- Keys and cents come from their own arrays: who reads only them does not pay for the images.
        select array_agg(k.value order by k.of_primary, k.i) filter (where not k.of_primary),
            array_agg(k.value order by k.of_primary, k.i) filter (where k.of_primary)
        into v_business_key, v_primary_key
        from (
            select k.i, k.of_primary, format(
                case when v_table.stored_types[c.i] in ('text', 'uuid', 'integer', 'bigint') then '%s' else '(to_jsonb(%s) #>> ''{}'')' end,
                format('case when p.operation = ''D'' then u.b%1$s else u.a%1$s end', c.i)) as value
            from (
                select name, i, false as of_primary from unnest(v_table.business_key) with ordinality as b (name, i)
                union all
                select name, i, true from unnest(v_table.key_columns) with ordinality as b (name, i)
            ) as k
            cross join lateral (select array_position(v_table.columns, k.name) as i) as c
            where c.i is not null
        ) as k;
        v_money := array_position(v_table.columns, v_table.money);
        v_branches := v_branches || format($sql$
            union all
            select p.run_id, %1$L, p.statement, p.pack, u.row_no,
                case p.operation when 'I' then 'INSERT' when 'U' then 'UPDATE' else 'DELETE' end,
                concat_ws(' / ', %6$s), concat_ws(' / ', %7$s),
                %8$s, before.r, after.r
            from backfill_audit.%2$I as p
            cross join lateral unnest(%3$s) with ordinality as u (%4$s, row_no)
            cross join lateral (select case when p.operation <> 'I' then to_jsonb(x) end as r from (select %5$s) as x) as before
            cross join lateral (select case when p.operation <> 'D' then to_jsonb(x) end as r from (select %9$s) as x) as after$sql$,
            v_table.table_name, v_table.pack_name, v_unnest, v_names, v_before,
            coalesce(array_to_string(v_business_key, ', '), 'null'), coalesce(array_to_string(v_primary_key, ', '), 'null'),
            case when v_money is null then 'null::bigint, null::bigint' else format(
                'case when p.b%1$s is null and p.operation = ''U'' then u.a%1$s else u.b%1$s end::bigint, u.a%1$s::bigint', v_money) end,
            v_after);
    end loop;
    execute 'create or replace view backfill.change_log as ' || v_branches;
end;
$$;

comment on function backfill.rebuild_change_log(boolean) is
'Writes the view backfill.change_log anew over the packs of every tracked table, or over none, so that packs can be altered.';

create function backfill.generate_capture(p_table backfill.tracked) returns void
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
    v_take text;
    v_arrays text;
    v_before_columns text;
    v_after_columns text;
    v_after_values text;
    v_before_values text;
    v_changed text;
    v_operation text;
    v_body text;
    v_function text;
begin
    select string_agg(format(case when s.stored = 'text' then 'r.%1$I::text as c%2$s' else 'r.%1$I as c%2$s' end, s.name, s.i), ', ' order by s.i),
        string_agg(format('array_agg(c%1$s) as c%1$s', s.i), ', ' order by s.i),
        string_agg(format('b%s', s.i), ', ' order by s.i),
        string_agg(format('a%s', s.i), ', ' order by s.i),
        string_agg(format('n.c%s', s.i), ', ' order by s.i),
        string_agg(format('o.c%s', s.i), ', ' order by s.i),
        -- It compares the stored bytes: 1.00 and 1.0 are different images.
        string_agg(format('case when not record_image_eq(row(o.c%1$s), row(n.c%1$s)) then o.c%1$s end', s.i), ', ' order by s.i)
    into v_take, v_arrays, v_before_columns, v_after_columns, v_after_values, v_before_values, v_changed
    from unnest(p_table.columns, p_table.types, p_table.stored_types) with ordinality as s (name, type, stored, i)
    where s.type is not null;  -- a column that was dropped stays in the history only

    foreach v_operation in array array['insert', 'update', 'delete'] loop
        -- Old and new rows of an UPDATE stand at the same place of their transition tables: the server
        -- writes both in one call. So packs are paired by position, also where a key was changed.
        v_body := case v_operation
            when 'insert' then format(
                'insert into backfill_audit.%I (run_id, statement, pack, operation, row_count, %s) '
                'select v_run, v_statement, n.pack, ''I'', n.row_count, %s from (%s) as n',
                p_table.pack_name, v_after_columns, v_after_values, '%1$s')
            when 'delete' then format(
                'insert into backfill_audit.%I (run_id, statement, pack, operation, row_count, %s) '
                'select v_run, v_statement, o.pack, ''D'', o.row_count, %s from (%s) as o',
                p_table.pack_name, v_before_columns, v_before_values, '%2$s')
            else format(
                'insert into backfill_audit.%I (run_id, statement, pack, operation, row_count, %s, %s) '
                'select v_run, v_statement, n.pack, ''U'', n.row_count, %s, %s from (%s) as n join (%s) as o using (pack)',
                p_table.pack_name, v_before_columns, v_after_columns, v_changed, v_after_values, '%1$s', '%2$s')
        end;
        v_body := format(v_body,
            format('select pack, count(*)::integer as row_count, %s from '
                '(select (row_number() over () - 1) / 1000 as pack, %s from new_rows as r) as r group by pack', v_arrays, v_take),
            format('select pack, count(*)::integer as row_count, %s from '
                '(select (row_number() over () - 1) / 1000 as pack, %s from old_rows as r) as r group by pack', v_arrays, v_take));
        if v_operation <> 'insert' then
            v_body := 'perform backfill.refuse_cascade(tg_relid, tg_op); ' || v_body;
        end if;
        v_function := format('backfill_audit.%I', p_table.pack_name || '_' || v_operation);
        execute format($sql$
            create or replace function %s() returns trigger
            language plpgsql volatile
            security definer
            set search_path = pg_catalog, pg_temp
            set work_mem = '64MB'
            set hash_mem_multiplier = 4  -- one run at a time: up to a million rows are packed without going to disk
            set jit = off
            set timezone = 'UTC'
            set datestyle = 'ISO, YMD'
            set intervalstyle = 'postgres'
            set bytea_output = 'hex'
            set extra_float_digits = 1
            set lc_monetary = 'C'
            set xmloption = 'content'
            as $body$
            declare
                v_run uuid := backfill.open_run();
                v_statement integer := backfill.next_statement();
            begin
                %s;
                return null;
            end;
            $body$ $sql$, v_function, v_body);
        execute format('revoke execute on function %s() from public', v_function);
        execute format('comment on function %s() is %L', v_function,
            format('Generated by backfill.track(): captures %s of %s inside a run.', v_operation, p_table.table_name));
        execute format('create or replace trigger %I after %s on %s referencing %s for each statement '
            'when (current_setting(''backfill.run_id'', true) <> '''') execute function %s()',
            'backfill_capture_' || v_operation, v_operation, p_table.table_name,
            case v_operation when 'insert' then 'new table as new_rows'
                when 'delete' then 'old table as old_rows'
                else 'old table as old_rows new table as new_rows' end,
            v_function);
    end loop;
    execute format('create or replace trigger backfill_refuse_truncate before truncate on %s for each statement '
        'when (current_setting(''backfill.run_id'', true) <> '''') execute function backfill.refuse_truncate()',
        p_table.table_name);
end;
$$;

comment on function backfill.generate_capture(backfill.tracked) is
'Writes the trigger functions of a tracked table, its columns spelled out, and puts the triggers on it.';

create function backfill.refuse_untrackable(p_relation regclass) returns void
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
    v_why text;
begin
    select case
        when n.nspname in ('backfill', 'backfill_audit') or n.nspname like 'pg\_%' or n.nspname = 'information_schema'
            then 'it belongs to the audit or to the system'
        when c.relkind in ('v', 'm') then 'it is a view: track the tables below it'
        when c.relkind = 'f' then 'it is a foreign table: its changes are made elsewhere'
        when c.relkind = 'p' then 'it is partitioned: writes to a partition would not be seen'
        when c.relkind <> 'r' then 'it is no table'
        when c.relispartition then 'it is a partition: writes through its parent would not be seen'
        when exists (select from pg_inherits where inhrelid = c.oid or inhparent = c.oid)
            then 'it takes part in inheritance: writes through another table would not be seen'
        when c.relpersistence = 't' then 'it is temporary'
        when c.relpersistence = 'u' then 'it is unlogged: a crash empties it without a trace'
        when not exists (select from pg_index where indrelid = c.oid and indisprimary)
            then 'it has no primary key, so that a changed row could not be found again'
        when (select count(*) from pg_attribute where attrelid = c.oid and attnum > 0 and not attisdropped) > 160
            then 'it has more than 160 columns: where an update changes all of them, its pack would not fit a page'
    end into v_why
    from pg_class as c
    join pg_namespace as n on n.oid = c.relnamespace
    where c.oid = p_relation;
    if v_why is not null then
        raise exception 'table % cannot be tracked: %', p_relation, v_why using errcode = 'BF002';
    end if;
end;
$$;

comment on function backfill.refuse_untrackable(regclass) is
'Refuses (BF002), naming the table and the reason, what backfill.track() cannot watch completely.';

create function backfill.primary_key(p_relation oid) returns text[]
language sql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
    select array_agg(a.attname::text order by k.i)
    from pg_index as x
    cross join unnest(x.indkey::int2[]) with ordinality as k (attnum, i)
    join pg_attribute as a on a.attrelid = x.indrelid and a.attnum = k.attnum
    where x.indrelid = p_relation and x.indisprimary and k.i <= x.indnkeyatts;
$$;

comment on function backfill.primary_key(oid) is 'Columns of a table''s primary key, in its order.';

create function backfill.add_images(p_table backfill.tracked, p_stored_type text) returns integer
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
    v_place integer := cardinality(p_table.columns) + 1;
begin
    execute format('alter table backfill_audit.%1$I add column b%2$s %3$s[], add column a%2$s %3$s[]',
        p_table.pack_name, v_place, p_stored_type);
    return v_place;
end;
$$;

comment on function backfill.add_images(backfill.tracked, text) is
'Makes room in a table''s packs for one more column, and returns its place.';

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
            p_type, p_table.pack_name, p_place) into v_lost;
    end if;
    if p_stored_type = p_table.stored_types[p_place] then
        return;
    end if;
    -- The way there and back must give the same bytes: history is never rounded or cut.
    execute format('select exists (select from backfill_audit.%1$I '
        'where not record_image_eq(row(b%2$s, a%2$s), row(b%2$s::%3$s[]::%4$s[], a%2$s::%3$s[]::%4$s[])))',
        p_table.pack_name, p_place, p_stored_type, p_table.stored_types[p_place]) into v_lost;
    if v_lost then
        raise exception 'images of % would change', p_table.columns[p_place] using errcode = 'data_exception';
    end if;
    execute format('alter table backfill_audit.%1$I alter column b%2$s type %3$s[] using b%2$s::%3$s[], '
        'alter column a%2$s type %3$s[] using a%2$s::%3$s[]', p_table.pack_name, p_place, p_stored_type);
end;
$$;

comment on function backfill.retype_images(backfill.tracked, integer, text, text) is
'Takes a column''s images, the old ones too, over to its new type. Fails where one of them does not fit it exactly.';

create function backfill.track(
    p_relation regclass, p_business_key text[] default null, p_money text default null
) returns void
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
    v_name text;
    v_table backfill.tracked;
    v_column record;
    v_at integer;
begin
    perform backfill.refuse_untrackable(p_relation);
    select format('%I.%I', n.nspname, c.relname),
        n.nspname || '_' || c.relname,
        backfill.primary_key(c.oid)
    into v_name, v_table.pack_name, v_table.key_columns
    from pg_class as c
    join pg_namespace as n on n.oid = c.relnamespace
    where c.oid = p_relation;

    -- Two sessions tracking tables would both rewrite the change_log view.
    lock table backfill.tracked in share row exclusive mode;
    -- A name of at most 63 bytes with the longest ending, and not that of another table (a_b.c and a.b_c).
    if octet_length(v_table.pack_name) > 50
        or exists (select from backfill.tracked where pack_name = v_table.pack_name and table_name <> v_name) then
        v_table.pack_name := left(v_table.pack_name, 10) || '_' || substr(md5(v_name), 1, 9);
    end if;
    insert into backfill.tracked (table_name, pack_name, key_columns, business_key, money, columns, types, stored_types, generated)
    values (v_name, v_table.pack_name, v_table.key_columns,
        coalesce(p_business_key, v_table.key_columns), p_money, '{}', '{}', '{}', '{}')
    on conflict (table_name) do update
    set active = true, key_columns = excluded.key_columns,
        business_key = coalesce(p_business_key,
            case when tracked.business_key = tracked.key_columns then excluded.key_columns else tracked.business_key end),
        money = coalesce(p_money, tracked.money)
    returning * into v_table;

    for v_column in
        select k.name, 'business key column' as kind, false as cents from unnest(v_table.business_key) as k (name)
        union all
        select v_table.money, 'money column', true where v_table.money is not null
    loop
        if not exists (select from pg_attribute where attrelid = p_relation and attname = v_column.name and not attisdropped) then
            raise exception 'table % cannot be tracked: it has no %', v_name, v_column.kind || ' ' || v_column.name
                using errcode = 'BF002', hint = format('Name the columns: select backfill.track(%L, ''{…}'', ''…'');', v_name);
        elsif v_column.cents and not exists (
            select from pg_attribute where attrelid = p_relation and attname = v_column.name
                and backfill.stored_type(atttypid) in ('integer', 'bigint')
        ) then
            raise exception 'table % cannot be tracked: its money column % holds no whole cents (integer or bigint)', v_name, v_column.name
                using errcode = 'BF002';
        end if;
    end loop;

    if to_regclass(format('backfill_audit.%I', v_table.pack_name)) is null then
        execute format($sql$
            create table backfill_audit.%I (
                run_id uuid not null references backfill.backfill_log (run_id),
                statement integer not null,
                pack integer not null,
                operation "char" not null check (operation in ('I', 'U', 'D')),
                row_count integer not null,
                primary key (run_id, statement, pack)
            )$sql$, v_table.pack_name);
        execute format('comment on table backfill_audit.%I is %L', v_table.pack_name,
            format('Packed images of %s: b<i> before, a<i> after, see backfill.tracked. Append-only.', v_name));
        execute format('create trigger refuse_change before update or delete on backfill_audit.%I '
            'for each statement execute function backfill.refuse_change()', v_table.pack_name);
        execute format('create trigger refuse_truncate before truncate on backfill_audit.%I '
            'for each statement execute function backfill.refuse_change()', v_table.pack_name);
        perform backfill.grant_to('backfill_auditor', format('select on backfill_audit.%I', v_table.pack_name));
    end if;

    for v_column in
        select a.attname::text as name, format_type(a.atttypid, a.atttypmod) as type,
            backfill.stored_type(a.atttypid) as stored, a.attgenerated <> '' as generated
        from pg_attribute as a
        where a.attrelid = p_relation and a.attnum > 0 and not a.attisdropped and a.attgenerated <> 'v'
        order by a.attnum
    loop
        v_at := array_position(v_table.columns, v_column.name);
        if v_at is null then
            v_at := backfill.add_images(v_table, v_column.stored);
        elsif v_table.types[v_at] is distinct from v_column.type then
            perform backfill.rebuild_change_log(true);  -- the view would keep the packs from being altered
            begin
                perform backfill.retype_images(v_table, v_at, v_column.type, v_column.stored);
            exception
                when data_exception or cannot_coerce or undefined_function or check_violation then
                    -- The history does not fit the new type: it stays as what it was, under a name of its own.
                    v_table.columns[v_at] := format('%s (was %s)', v_column.name,
                        coalesce(v_table.types[v_at], v_table.stored_types[v_at]));
                    v_at := backfill.add_images(v_table, v_column.stored);
            end;
        end if;
        v_table.columns[v_at] := v_column.name;
        v_table.types[v_at] := v_column.type;
        v_table.stored_types[v_at] := v_column.stored;
        v_table.generated[v_at] := v_column.generated;
    end loop;
    for v_at in select i from generate_subscripts(v_table.columns, 1) as i where not exists (
            select from pg_attribute where attrelid = p_relation and attname = v_table.columns[i] and not attisdropped) loop
        v_table.types[v_at] := null;
    end loop;
    update backfill.tracked
    set columns = v_table.columns, types = v_table.types, stored_types = v_table.stored_types, generated = v_table.generated
    where table_name = v_name;
    perform backfill.generate_capture(v_table);
    perform backfill.rebuild_change_log();
end;
$$;

comment on function backfill.track(regclass, text[], text) is
'Captures every INSERT, UPDATE and DELETE of a table that is made inside a run. Business key: the columns by which a
person knows a row (default: primary key); money: its column of cents. Again: takes over changed columns. Refuses (BF002)
views, foreign, partitioned, inherited, temporary and unlogged tables, and tables without a primary key.';

create function backfill.untrack(p_relation regclass) returns void
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
    v_table backfill.tracked;
    v_operation text;
    v_history boolean;
begin
    select t.* into v_table
    from backfill.tracked as t
    where to_regclass(t.table_name) = p_relation and t.active;
    if not found then
        return;
    end if;
    execute format('drop trigger if exists backfill_refuse_truncate on %s', v_table.table_name);
    foreach v_operation in array array['insert', 'update', 'delete'] loop
        execute format('drop trigger if exists %I on %s', 'backfill_capture_' || v_operation, v_table.table_name);
        execute format('drop function if exists backfill_audit.%I()', v_table.pack_name || '_' || v_operation);
    end loop;
    execute format('select exists (select from backfill_audit.%I)', v_table.pack_name) into v_history;
    if v_history then
        update backfill.tracked set active = false where table_name = v_table.table_name;
    else
        delete from backfill.tracked where table_name = v_table.table_name;
        perform backfill.rebuild_change_log();
        execute format('drop table backfill_audit.%I', v_table.pack_name);
    end if;
end;
$$;

comment on function backfill.untrack(regclass) is
'Stops capturing a table. Its history stays readable; a table without history leaves nothing behind. Twice is harmless.';

create function backfill.refresh_tracked() returns void
language plpgsql volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_table record;
begin
    if current_setting('session_replication_role') = 'replica' then
        raise exception 'session_replication_role is replica: no change would be captured'
            using errcode = 'BF001', hint = 'set session_replication_role = origin;';
    end if;
    for v_table in
        select t.table_name, g.present, g.disabled, (
                select array_agg(array[a.attname::text, format_type(a.atttypid, a.atttypmod)] order by a.attname)
                from pg_attribute as a
                where a.attrelid = to_regclass(t.table_name) and a.attnum > 0 and not a.attisdropped and a.attgenerated <> 'v'
            ) is not distinct from (
                select array_agg(array[c.name, c.type] order by c.name::name)
                from unnest(t.columns, t.types) as c (name, type)
                where c.type is not null
            ) and t.key_columns = backfill.primary_key(to_regclass(t.table_name)) as fits
        from backfill.tracked as t
        cross join lateral (
            select count(*) as present, bool_or(x.tgenabled in ('D', 'R')) as disabled
            from pg_trigger as x
            where x.tgrelid = to_regclass(t.table_name) and x.tgname in ('backfill_capture_insert', 'backfill_capture_update',
                'backfill_capture_delete', 'backfill_refuse_truncate')
        ) as g
        where t.active and to_regclass(t.table_name) is not null
        order by t.table_name
    loop
        if v_table.disabled then
            raise exception 'triggers of % are disabled: its changes would not be captured', v_table.table_name
                using errcode = 'BF001', hint = format('alter table %s enable trigger all;', v_table.table_name);
        elsif v_table.present < 4 or v_table.fits is not true then
            perform backfill.track(v_table.table_name::regclass);
        end if;
    end loop;
end;
$$;

comment on function backfill.refresh_tracked() is
'Before a run: takes over columns that were added, dropped or retyped since a table was tracked, and puts the triggers onto a
table that was made anew. Refuses (BF001) where triggers are disabled, because nothing would be captured.';

do $do$
begin
    perform backfill.rebuild_change_log();
end;
$do$;

comment on view backfill.change_log is
'One row for each row written in a run: table, business key, operation, cents and whole images before and after.';
comment on column backfill.change_log.run_id is 'The run; join backfill.backfill_log for who, when and why.';
comment on column backfill.change_log.table_name is 'Schema-qualified name of the table.';
comment on column backfill.change_log.statement is 'Number of the statement in the run, from 1.';
comment on column backfill.change_log.pack is 'Pack of the statement that holds the row.';
comment on column backfill.change_log.row_no is 'Place in the pack.';
comment on column backfill.change_log.operation is 'INSERT, UPDATE or DELETE.';
comment on column backfill.change_log.business_key is 'The row as a person knows it, parts joined by " / ".';
comment on column backfill.change_log.primary_key is 'Its primary key as text, parts joined by " / ": to join the table without unpacking images.';
comment on column backfill.change_log.cents_before is 'The money column before; null where there was no row.';
comment on column backfill.change_log.cents_after is 'The money column after; null where there is no row any more.';
comment on column backfill.change_log.before is 'The whole row before, null for an INSERT.';
comment on column backfill.change_log.after is 'The whole row after, null for a DELETE.';

revoke execute on all functions in schema backfill from public;
do $do$
begin
    perform backfill.grant_to('backfill_auditor', 'select on backfill.change_log');
    perform backfill.grant_to('backfill_auditor', 'execute on function backfill.open_run()');
end;
$do$;
