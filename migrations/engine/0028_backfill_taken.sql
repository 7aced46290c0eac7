-- The hash of each row that a run wrote: they add up to its digest; and compared one by one they tell what an apply left to an
-- application that wrote it meanwhile.
-- Safe: functions that only read.
-- depends: 0027_backfill_trust

create function backfill.hashed_images(
    p_log backfill.backfill_log, p_table backfill.tracked, p_operation text, out hash text, out images text
)
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
    v_unnest text;
    v_had text;
    v_values text;
    v_before boolean[];
    v_after boolean[];
    -- Such a column differs between a rehearsal and its apply.
    v_stamped integer[] := case when p_log.status = 'running' then array(select array_position(p_table.columns, s) from unnest(p_table.stamped) as s)
        else array(select jsonb_array_elements_text(coalesce(p_log.metrics -> 'stamped' -> p_table.pack_name -> 'places', '[]'))::integer) end;
begin
    -- A column that was added after the run is in none of its packs: an old run keeps its digest. Arrays that
    -- no pack holds (what an update left alone) are not even unpacked.
    execute format('select array[%s], array[%s] from backfill_audit.%I where run_id = $1 and operation = $2',
        (select string_agg(format('bool_or(b%s is not null)', i), ', ' order by i) from generate_subscripts(p_table.columns, 1) as i),
        (select string_agg(format('bool_or(a%s is not null)', i), ', ' order by i) from generate_subscripts(p_table.columns, 1) as i),
        p_table.images_name)
    into v_before, v_after using p_log.run_id, p_operation::"char";
    if array_position(v_before || v_after, true) is null then
        return;
    end if;
    -- Of an update it is the key and what changed, from what to what: the rest is as it was and would only cost time.
    select string_agg(format('unnest(p.%1$s%2$s) as %1$s%2$s', s.side, s.i), ', ' order by s.side, s.i),
        string_agg(distinct format('p.b%1$s is not null as had%1$s', s.i), ', '),
        -- "Now" differs between a rehearsal and its apply; the moment the run began counts as equal.
        string_agg(case s.stored
            when 'timestamp with time zone' then format('case when %1$s = $2 then ''-infinity'' else %1$s end', s.value)
            when 'timestamp without time zone' then format('case when %1$s = $3 then ''-infinity'' else %1$s end', s.value)
            else s.value end || s.told, ', ' order by s.name collate "C", s.side)
    into v_unnest, v_had, v_values
    from (
        select c.name, c.stored, c.i, d.side,
            case when p_operation <> 'U' or c.name = any(p_table.key_columns) and d.side = 'a' then format('u.%s%s', d.side, c.i)
                -- A pack without the array before left the column alone in all its rows.
                else format('case when u.had%1$s and u.b%1$s is distinct from u.a%1$s then u.%2$s%1$s end', c.i, d.side)
            end as value,
            -- A second value tells a change from null, or to null, from none.
            case when p_operation = 'U' and d.side = 'b'
                then format(', u.had%1$s and u.b%1$s is distinct from u.a%1$s', c.i) else '' end as told
        from unnest(p_table.columns, p_table.stored_types) with ordinality as c (name, stored, i)
        cross join (values ('a'), ('b')) as d (side)
        where c.i <> all (v_stamped) and case when p_operation = 'U' then v_before[c.i] or c.name = any(p_table.key_columns) and d.side = 'a'
            when d.side = 'a' then v_after[c.i] else v_before[c.i] end
    ) as s;
    -- A record's hash is linear in those of its columns: without hashing it once more, two rows that
    -- exchange an amount would add up to the same.
    hash := format('hashint8extended(hash_record_extended(row(%s), 0), 0)', v_values);
    images := format('(select %s, %s from backfill_audit.%I as p where p.run_id = $1 and p.operation = $4) as u', v_unnest, v_had, p_table.images_name);
end;
$$;

comment on function backfill.hashed_images(backfill.backfill_log, backfill.tracked, text) is
'SQL of the hash of a row that a run wrote, and of the rows u it is taken of; null where the run did nothing of the kind. $1 to $4: the run, when it
began, that without a zone, the operation.';

create function backfill.change_hashes(p_run uuid)
returns table (table_name text, operation text, business_key text, cents bigint, hash bigint)
language plpgsql stable
security definer
set search_path = pg_catalog, pg_temp
set jit = off
as $$
declare
    v_log backfill.backfill_log;
    v_table backfill.tracked;
    v_operation "char";
    v_sql record;
    v_key text;
begin
    select * into v_log from backfill.backfill_log as l where l.run_id = p_run;
    for v_table in
        select t.* from backfill.tracked as t where t.pack_name in (select backfill.written_tables(p_run)) order by t.table_name collate "C"
    loop
        foreach v_operation in array '{D,I,U}'::"char"[] loop
            select * into v_sql from backfill.hashed_images(v_log, v_table, v_operation);
            continue when v_sql.hash is null;
            -- Only rows that were to be inserted can be somebody else's by now.
            v_key := case when v_operation = 'I' then (
                select format('concat_ws('' / '', %s)', string_agg(format('to_jsonb(u.a%s) #>> ''{}''', array_position(v_table.columns, k.name)), ', ' order by k.i))
                from unnest(v_table.business_key) with ordinality as k (name, i)) end;
            return query execute format('select $5, $4::text, %s, %s, %s from %s', coalesce(v_key, 'null'),
                coalesce('u.a' || case when v_operation = 'I' then array_position(v_table.columns, v_table.money) end || '::bigint', 'null::bigint'),
                v_sql.hash, v_sql.images)
            using p_run, v_log.started_at, v_log.started_at at time zone v_log.time_zone, v_operation, v_table.table_name;
        end loop;
    end loop;
end;
$$;

comment on function backfill.change_hashes(uuid) is
'Each row that a run wrote with the hash that it adds to the run''s digest; of an insert also its business key and its cents.';

create function backfill.written_since(p_table text, p_keys text[], p_snapshot pg_snapshot) returns setof text
language plpgsql stable
security definer
set search_path = pg_catalog, pg_temp
set jit = off
as $$
declare
    v_table backfill.tracked;
begin
    select * into strict v_table from backfill.tracked as t where t.table_name = p_table and t.active;
    return query execute format('select distinct k.key from unnest($1) as k (key) join %s as t on k.key = concat_ws('' / '', %s) '
        -- Older than the counter reaches is older than any snapshot.
        'where age(t.xmin) < 2147483647 and not pg_visible_in_snapshot((pg_current_xact_id()::text::numeric - age(t.xmin))::text::xid8, $2)',
        v_table.relation::regclass,
        (select string_agg(format('to_jsonb(t.%I) #>> ''{}''', k.name), ', ' order by k.i) from unnest(v_table.business_key) with ordinality as k (name, i)))
    using p_keys, p_snapshot;
end;
$$;

comment on function backfill.written_since(text, text[], pg_snapshot) is
'Which of these business keys a tracked table holds in a row that was written after a snapshot was taken.';

revoke execute on function
backfill.hashed_images(backfill.backfill_log, backfill.tracked, text),
backfill.change_hashes(uuid),
backfill.written_since(text, text[], pg_snapshot)
from public;

do $do$
begin
    perform backfill.grant_to('backfill_auditor', 'execute on function backfill.change_hashes(uuid), backfill.written_since(text, text[], pg_snapshot)');
    perform backfill.hand_over(true);
end;
$do$;
