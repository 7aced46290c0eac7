-- A row against its image: the conditions by which a reversal knows a row, and sees whether it is what the run left; and
-- which columns the application's triggers set, so that they are never what an image says. And the digest of all images of a run.
-- Safe: functions that only read.
-- depends: 0013_backfill_run

create function backfill.image_columns(p_run uuid, p_table backfill.tracked) returns integer[]
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
    v_known boolean[];
    v_columns integer[];
    v_lost text;
    v_doubted boolean;
begin
    if p_table.doubt is not null then
        execute format('select exists (select from backfill_audit.%I where run_id = $1 and statement <= $2)', p_table.images_name)
        into v_doubted using p_run, (p_table.doubt ->> 'until')::bigint;
        if v_doubted then
            raise exception 'run % cannot be reversed: %', p_run, p_table.doubt ->> 'why'
                using errcode = 'BF005', hint = 'Nothing was changed. ' || (p_table.doubt ->> 'way');
        end if;
    end if;
    -- A column that was added after the run is in none of its packs, and is left alone.
    execute format('select array[%s] from backfill_audit.%I where run_id = $1',
        (select string_agg(format('coalesce(bool_or(b%1$s is not null or a%1$s is not null), false)', i), ', ' order by i)
            from generate_subscripts(p_table.columns, 1) as i), p_table.images_name)
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
'Places of the columns that a run''s images hold. Refuses (BF005) where the table has lost one of them, or where it is in doubt since a
restore which of them they are.';

create function backfill.key_join(p_table backfill.tracked, p_alias text default 't') returns text
language sql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
    -- Where a collation takes two spellings for one key, the image is that of one of them.
    select string_agg(format('%s.%I%s%s = u.k%s', p_alias, k.name,
        case when p_table.stored_types[array_position(p_table.columns, k.name)] = 'text' then '::text' end,
        case when exists (
            select from pg_attribute as a join pg_collation as c on c.oid = a.attcollation and not c.collisdeterministic
            where a.attrelid = to_regclass(p_table.table_name) and a.attname = k.name
        ) then ' collate "C"' end,
        k.i), ' and ' order by k.i)
    from unnest(p_table.key_columns) with ordinality as k (name, i);
$$;

comment on function backfill.key_join(backfill.tracked, text) is 'SQL condition: row t (or whatever it is called) of the table has the key of u.';

create function backfill.compared_columns(p_table backfill.tracked, p_columns integer[]) returns integer[]
language sql immutable
security invoker
set search_path = pg_catalog, pg_temp
as $$
    select coalesce(array_agg(i order by i), '{}') from unnest(p_columns) as i where p_table.columns[i] <> all (p_table.stamped);
$$;

comment on function backfill.compared_columns(backfill.tracked, integer[]) is 'Those of the columns that must come back: not the stamped ones.';

create function backfill.same_image(p_table backfill.tracked, p_columns integer[], p_prefix text) returns text
language sql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
    -- Typed, so that 1.00 and 1.0 are equal and no setting of the session matters; texts are equal by their bytes only,
    -- whatever the column's collation.
    select coalesce(string_agg(format('t.%I%s is not distinct from u.%s%s', p_table.columns[i],
        case p_table.stored_types[i] when 'text' then '::text collate "C"' when 'character varying' then ' collate "C"'
            when 'bpchar' then ' collate "C"' end,
        p_prefix, i), ' and ' order by i), 'true')
    from unnest(backfill.compared_columns(p_table, p_columns)) as i;
$$;

comment on function backfill.same_image(backfill.tracked, integer[], text) is
'SQL condition: row t of the table equals the image of u (prefix b: before, a: after), stamped columns aside.';

create function backfill.same_bytes(p_table backfill.tracked, p_columns integer[], p_prefix text) returns text
language sql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
    select format('record_image_eq(row(%s), row(%s))',
        string_agg(format('t.%I::%s', p_table.columns[i], p_table.stored_types[i]), ', ' order by i),
        string_agg(format('u.%s%s', p_prefix, i), ', ' order by i))
    from unnest(backfill.compared_columns(p_table, p_columns)) as i;
$$;

comment on function backfill.same_bytes(backfill.tracked, integer[], text) is
'As same_image(), but to the byte: 1.00 is not 1.0.';

create function backfill.is_loose(p_type text) returns boolean
language sql immutable parallel safe
return p_type in ('numeric', 'real', 'double precision', 'interval', 'jsonb', 'bpchar');

comment on function backfill.is_loose(text) is 'Can equal values of the type differ in their bytes?';

create function backfill.setting_triggers(p_relation regclass)
returns table (trigger_name text, columns text[], stamps text[])
language sql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
    with trigger as (
        select t.tgname::text as name, p.proname, l.lanname,
            regexp_replace(regexp_replace(p.prosrc, '/[*].*?[*]/', ' ', 'g'), '--[^\n]*', ' ', 'g') as source,
            string_to_array(encode(t.tgargs, 'escape'), '\000') as arguments
        from pg_trigger as t
        join pg_proc as p on p.oid = t.tgfoid
        join pg_language as l on l.oid = p.prolang
        where t.tgrelid = p_relation and not t.tgisinternal and t.tgenabled <> 'D'
            and t.tgtype & 3 = 3 and t.tgtype & 20 <> 0  -- before, for each row, of insert or update
            and t.tgname in (select backfill.triggers_of_application(t.tgrelid))
    ),
    assigned as (
        select t.name, lower(coalesce(m.found[2], m.found[4])) as column_name, t.source, m.found[3] as value
        from trigger as t
        cross join lateral regexp_split_to_table(t.source, ';|\m(begin|then|else|loop)\M', 'i') as statement
        cross join lateral regexp_match(statement,
            '^\s*new\s*[.]\s*("?)([a-z_][a-z0-9_$]*)\1\s*:?=(.*)$|into\s+(?:strict\s+)?new\s*[.]\s*"?([a-z_][a-z0-9_$]*)', 'i') as m (found)
        where t.lanname = 'plpgsql' and m.found is not null
        union all
        select t.name, x.argument, t.proname, t.proname
        from trigger as t cross join lateral unnest(t.arguments) as x (argument)
        where t.lanname = 'c'
    )
    select t.name, coalesce(c.columns, '{}'), coalesce(c.stamps, '{}')
    from trigger as t
    left join lateral (
        select array_agg(distinct a.attname::text) as columns,
            array_agg(distinct a.attname::text) filter (where case when s.value ~* '^\s*case\M' then s.source else coalesce(s.value, s.source) end
                ~* '\m(now|clock_timestamp|statement_timestamp|transaction_timestamp|timeofday|current_timestamp|current_date|current_time'
                    '|localtimestamp|localtime|current_user|session_user|user|current_role|current_setting|nextval|gen_random_uuid'
                    '|random|random_normal|gen_random_bytes|uuidv4|uuidv7|uuid_generate_v1|uuid_generate_v4'
                    '|moddatetime|insert_username|autoinc)\M|\mold\s*[.]\s*\w+\s*[+]') as stamps
        from assigned as s
        join pg_attribute as a on a.attrelid = p_relation and a.attname = s.column_name and a.attnum > 0 and not a.attisdropped
        where s.name = t.name
    ) as c on true
    order by t.name;
$$;

comment on function backfill.setting_triggers(regclass) is
'The application''s triggers that may set columns of a row before it is written: all that a trigger sets as far as its text
says so, and those of them that it sets to something else each time (a time, a user, a number that counts).';

create function backfill.stamping_triggers()
returns table (table_name text, trigger_name text, columns text[], remedy text)
language sql stable
security definer
set search_path = pg_catalog, pg_temp
as $$
    select t.table_name, s.trigger_name, c.columns,
        format('select backfill.track(%L, p_stamped => %L);', t.table_name, t.stamped || c.columns)
    from backfill.tracked as t
    cross join lateral backfill.setting_triggers(to_regclass(t.table_name)) as s
    cross join lateral (
        select array_agg(x order by x) as columns from unnest(s.stamps) as x where x <> all (t.stamped || t.key_columns)
    ) as c
    where t.active and to_regclass(t.table_name) is not null and c.columns is not null
    order by t.table_name, s.trigger_name;
$$;

comment on function backfill.stamping_triggers() is
'Triggers of tracked tables that stamp columns (updated_at) nobody declared as stamped: an undo of such rows would be refused,
because they cannot come back as they were. With the call that declares them.';

create function backfill.digest_parts(p_run uuid) returns jsonb
language plpgsql stable
security definer
set search_path = pg_catalog, pg_temp
set jit = off
set enable_nestloop = off
as $$
declare
    v_log backfill.backfill_log;
    v_table backfill.tracked;
    v_operation "char";
    v_sql record;
    v_part jsonb;
    v_parts jsonb := '[]';
begin
    select * into v_log from backfill.backfill_log where run_id = p_run;
    if not found then
        raise exception 'there is no run %', p_run using errcode = 'BF009', hint = 'select run_id, backfill from backfill.backfill_log;';
    end if;
    for v_table in
        select t.* from backfill.tracked as t where t.pack_name in (select backfill.written_tables(p_run))
        order by backfill.name_in_run(v_log, t) collate "C"
    loop
        foreach v_operation in array '{D,I,U}'::"char"[] loop
            select * into v_sql from backfill.hashed_images(v_log, v_table, v_operation);
            continue when v_sql.hash is null;
            execute format('select jsonb_build_object(''operation'', $4, ''rows'', count(*), ''sum'', sum(%s)::text) from %s', v_sql.hash, v_sql.images)
            into v_part using p_run, v_log.started_at, v_log.started_at at time zone v_log.time_zone, v_operation;
            v_parts := v_parts || jsonb_build_array(jsonb_build_object('table', backfill.name_in_run(v_log, v_table)) || v_part);
        end loop;
    end loop;
    return v_parts;
end;
$$;

comment on function backfill.digest_parts(uuid) is
'By table and operation: how many rows a run wrote, and the sum of their hashes, whatever their order. Parts of a run, or runs of parts, add
up. The run''s own start time counts as equal wherever it was written.';

create function backfill.digest_of(p_parts jsonb) returns text
language sql immutable
security invoker
set search_path = pg_catalog, pg_temp
as $$
    select encode(sha256(convert_to(coalesce(string_agg(
        format('%s: %s %s %s;', x.part ->> 'table', x.part ->> 'operation', x.part ->> 'rows', x.part ->> 'sum'), '' order by x.i), ''), 'UTF8')), 'hex')
    from jsonb_array_elements(p_parts) with ordinality as x (part, i);
$$;

comment on function backfill.digest_of(jsonb) is 'The digest that parts add up to.';

create function backfill.run_digest(p_run uuid) returns text
language sql stable
security definer
set search_path = pg_catalog, pg_temp
as $$
    select backfill.digest_of(backfill.digest_parts(p_run));
$$;

comment on function backfill.run_digest(uuid) is
'Order-independent hash of all changes of a run. Equal for a rehearsal and an apply that write the same rows: the run''s
own start time counts as equal wherever it was written, and stamped columns are left out.';
