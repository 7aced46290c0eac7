-- The hash of each row that a run wrote: they add up to its digest; and compared one by one they tell what an apply left to an
-- application that wrote it meanwhile.
-- Safe: functions that only read.
-- depends: 0028_backfill_trust

create function backfill.hashed_images(
    p_log backfill.backfill_log, p_table backfill.tracked, p_operation text, p_own boolean default false,
    p_signed boolean default false, p_also integer[] default '{}', out hash text, out images text
)
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
    v_unnest text;
    v_had text;
    v_values text;
    v_names text;
    v_also text;
    v_before boolean[];
    v_after boolean[];
    v_held jsonb := backfill.held_keys(p_log, p_table);
    v_keys jsonb := '{}';  -- the alias of the join that tells what a key stands for, by the side and place of its column
    v_joins text := '';
    v_key record;
    v_parent backfill.tracked;
    v_sql record;
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
    -- What a key stands for: the row that this run inserted under it. Of itself it is nothing, of a row from before it is itself.
    for v_key in
        select k.at, k.pack, k.key, d.side, format('r%s%s', d.side, k.at) as alias
        from jsonb_to_recordset(v_held) as k (at integer, pack text, key integer)
        cross join (values ('a'), ('b')) as d (side)
        where not p_own and not (p_operation = 'I' and k.pack = p_table.pack_name and k.key = k.at)
            -- Only of a column that is in u, below: of an update the key and what changed.
            and case when d.side = 'b' then v_before[k.at] and p_operation <> 'I' when p_operation = 'D' then false
                when p_operation = 'U' then coalesce(v_before[k.at], false) or p_table.columns[k.at] = any (p_table.key_columns)
                else v_after[k.at] end
    loop
        select t.* into v_parent from backfill.tracked as t where t.pack_name = v_key.pack;
        select * into v_sql from backfill.hashed_images(p_log, v_parent, 'I', true, p_signed);
        continue when v_sql.hash is null;
        v_keys := v_keys || jsonb_build_object(v_key.side || v_key.at, v_key.alias);
        v_joins := v_joins || format(
            ' left join (select u.a%1$s::text as held, min(%2$s) as hash from %3$s group by 1) as %4$s on %4$s.held = u.%5$s%6$s::text',
            v_key.key, v_sql.hash, v_sql.images, v_key.alias, v_key.side, v_key.at);
    end loop;
    -- Of an update it is the key and what changed, from what to what: the rest is as it was and would only cost time.
    select string_agg(format('unnest(p.%1$s%2$s) as %1$s%2$s', s.side, s.i), ', ' order by s.side, s.i) filter (where not s.also),
        string_agg(format(', unnest(p.%1$s%2$s) as also%2$s', s.side, s.i), '' order by s.i) filter (where s.also),
        string_agg(quote_ident(s.name), ', ' order by s.name collate "C", s.side) filter (where not s.also),
        string_agg(distinct format('p.b%1$s is not null as had%1$s', s.i), ', '),
        -- "Now" differs between a rehearsal and its apply; the moment the run began counts as equal.
        string_agg(case
            when s.unsaid or s.also then null
            when s.stands is not null then format('case when %1$s is not null then coalesce(%2$s.hash::text, %1$s::text) end', s.value, s.stands) || s.told
            else case s.stored
            when 'timestamp with time zone' then format('case when %1$s = $2 then ''-infinity'' else %1$s end', s.value)
            when 'timestamp without time zone' then format('case when %1$s = $3 then ''-infinity'' else %1$s end', s.value)
            else s.value end || s.told end, ', ' order by s.name collate "C", s.side)
    into v_unnest, v_also, v_names, v_had, v_values
    from (
        select c.name, c.stored, c.i, d.side,
            case when p_operation <> 'U' or c.name = any(p_table.key_columns) and d.side = 'a' then format('u.%s%s', d.side, c.i)
                -- A pack without the array before left the column alone in all its rows.
                else format('case when u.had%1$s and u.b%1$s is distinct from u.a%1$s then u.%2$s%1$s end', c.i, d.side)
            end as value,
            -- A second value tells a change from null, or to null, from none.
            case when p_operation = 'U' and d.side = 'b'
                then format(', u.had%1$s and u.b%1$s is distinct from u.a%1$s', c.i) else '' end as told,
            v_keys ->> (d.side || c.i) as stands,
            exists (
                select 1 from jsonb_to_recordset(v_held) as k (at integer, pack text, key integer)
                where k.at = c.i and (p_own or p_operation = 'I' and k.pack = p_table.pack_name and k.key = k.at)
            ) as unsaid, false as also
        from unnest(p_table.columns, p_table.stored_types) with ordinality as c (name, stored, i)
        cross join (values ('a'), ('b')) as d (side)
        where c.i <> all (v_stamped) and case when p_operation = 'U' then v_before[c.i] or c.name = any(p_table.key_columns) and d.side = 'a'
            when d.side = 'a' then v_after[c.i] else v_before[c.i] end
        union all  -- for who wants to say which row it is
        select null, null, c.i, case p_operation when 'D' then 'b' else 'a' end, null, null, null, false, true from unnest(p_also) as c (i)
    ) as s;
    -- A record's hash is linear in those of its columns: without hashing it once more, two rows that
    -- exchange an amount would add up to the same.
    hash := case when p_signed then format('encode(sha256(record_send(row(%L::text, %s))), ''hex'')', v_names, coalesce(v_values, '0'))
        else format('hashint8extended(hash_record_extended(row(%s), 0), 0)', coalesce(v_values, '0')) end;
    images := format('(select %s, %s%s from backfill_audit.%I as p where p.run_id = $1 and p.operation = %L) as u%s',
        v_unnest, v_had, v_also, p_table.images_name, p_operation, v_joins);
end;
$$;

comment on function backfill.hashed_images(backfill.backfill_log, backfill.tracked, text, boolean, boolean, integer[]) is
'SQL of the hash of a row that a run wrote, and of the rows u it is taken of; null where the run did nothing of the kind. $1 to $3: the run, when it
began, that without a zone. Own: of what the row says by itself, without its keys that the database assigns and what they refer to.
Signed: a sha256, hexadecimal, which is evidence, where the hash is quick. Also: places that stand in u as also<place>, after the operation.';

create function backfill.change_hashes(p_run uuid)
returns table (table_name text, operation text, business_key text, currency text, amount numeric, hash bigint)
language plpgsql stable
security definer
set search_path = pg_catalog, pg_temp
set timezone = 'UTC'  -- a key that is a moment is written alike in every session
set jit = off
set enable_nestloop = off
as $$
declare
    v_log backfill.backfill_log;
    v_table backfill.tracked;
    v_operation "char";
    v_sql record;
    v_key text;
    v_currency text;
    v_amount text;
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
            v_currency := case when v_operation = 'I' and v_table.money is not null then
                backfill.currency_sql('u.a' || array_position(v_table.columns, v_table.currency_column), v_table.currency,
                    'u.a' || array_position(v_table.columns, v_table.void[1]), v_table.void[2:]) end;
            v_amount := backfill.minor_sql('u.a' || array_position(v_table.columns, v_table.money),
                v_table.stored_types[array_position(v_table.columns, v_table.money)], v_currency);
            return query execute format('select $5, $4::text, %s, %s, %s, %s from %s', coalesce(v_key, 'null'), coalesce(v_currency, 'null::text'),
                coalesce(case when v_currency is not null then v_amount end, 'null::numeric'), v_sql.hash, v_sql.images)
            using p_run, v_log.started_at, v_log.started_at at time zone v_log.time_zone, v_operation, v_table.table_name;
        end loop;
    end loop;
end;
$$;

comment on function backfill.change_hashes(uuid) is
'Each row that a run wrote with the hash that it adds to the run''s digest; of an insert also its business key, currency and amount in minor units.';

create function backfill.written_since(p_table text, p_keys text[], p_snapshot pg_snapshot) returns setof text
language plpgsql stable
security definer
set search_path = pg_catalog, pg_temp
set timezone = 'UTC'
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
backfill.hashed_images(backfill.backfill_log, backfill.tracked, text, boolean, boolean, integer[]),
backfill.change_hashes(uuid),
backfill.written_since(text, text[], pg_snapshot)
from public;

do $do$
begin
    perform backfill.grant_to('backfill_auditor', 'execute on function backfill.change_hashes(uuid), backfill.written_since(text, text[], pg_snapshot)');
    perform backfill.hand_over(true);
end;
$do$;
