-- What a person signs: a sha256 over each row that a run wrote, and one over all of them.
-- Safe: functions that only read.
-- depends: 0035_backfill_erase

create function backfill.signed_rows(p_run uuid)
returns table (table_name text, business_key text, operation text, currency text, amount numeric, sha256 text)
language plpgsql stable
security definer
set search_path = pg_catalog, pg_temp
set client_encoding = 'UTF8'  -- what record_send() writes texts in
set timezone = 'UTC'  -- a key that is a moment is written alike in every session
set jit = off
set enable_nestloop = off
as $$
declare
    v_log backfill.backfill_log;
    v_table backfill.tracked;
    v_operation "char";
    v_sql record;
    v_key integer[];
    v_money integer[];
    v_currency text;
begin
    select * into v_log from backfill.backfill_log as l where l.run_id = p_run;
    for v_table in
        select t.* from backfill.tracked as t where t.pack_name in (select backfill.written_tables(p_run)) order by t.table_name collate "C"
    loop
        -- A key that the database assigns names no row twice: it is left out.
        v_key := array(select c.place from (select array_position(v_table.columns, k.name) as place, k.i from unnest(v_table.business_key)
                with ordinality as k (name, i)) as c
            where not exists (select from jsonb_to_recordset(backfill.held_keys(v_log, v_table)) as h (at integer, pack text, key integer)
                where h.at = c.place and h.pack = v_table.pack_name and h.key = h.at) order by c.i);
        v_money := array[array_position(v_table.columns, v_table.money), array_position(v_table.columns, v_table.currency_column),
            array_position(v_table.columns, v_table.void[1])];
        v_currency := case when v_table.money is not null then
            backfill.currency_sql('u.also' || v_money[2], v_table.currency, 'u.also' || v_money[3], v_table.void[2:]) end;
        foreach v_operation in array '{D,I,U}'::"char"[] loop
            select * into v_sql from backfill.hashed_images(v_log, v_table, v_operation, false, true,
                array(select distinct x from unnest(v_key || v_money) as x where x is not null));
            continue when v_sql.hash is null;
            return query execute format('select $4, concat_ws('' / '', %s), $5::text, %s, %s%s, %s from %s',
                coalesce((select string_agg(format('to_jsonb(u.also%s) #>> ''{}''', k.place), ', ' order by k.i)
                    from unnest(v_key) with ordinality as k (place, i)), 'null'),
                coalesce(v_currency, 'null::text'), case when v_operation = 'D' then '-' else '' end,
                coalesce(backfill.minor_sql('u.also' || v_money[1], v_table.stored_types[v_money[1]], v_currency), 'null::numeric'),
                v_sql.hash, v_sql.images)
            using p_run, v_log.started_at, v_log.started_at at time zone v_log.time_zone, v_table.table_name, v_operation;
        end loop;
    end loop;
end;
$$;

comment on function backfill.signed_rows(uuid) is
'Each row that a run wrote: its business key without keys that the database assigns, its money (taken away, of a row that is deleted), and the
sha256 over what the digest is over.';

create function backfill.signature(p_run uuid, p_more jsonb default '[]') returns text
language sql stable
security definer
set search_path = pg_catalog, pg_temp
set jit = off
set work_mem = '64MB'
as $$
    -- In portions, so that no value grows with the rows.
    select encode(sha256(coalesce(string_agg(p.sha256, '' order by p.portion), '')), 'hex')
    from (
        select x.portion, sha256(string_agg(convert_to(format('%s %s %s %L;', x.table_name, x.operation, x.sha256, x.business_key), 'UTF8'), '' order by x.n)) as sha256
        from (
            select r.*, row_number() over w as n, row_number() over w / 100000 as portion
            from (
                select s.table_name, s.business_key, s.operation, s.sha256 from backfill.signed_rows(p_run) as s
                union all
                select m.table_name, m.business_key, 'I', m.sha256
                from jsonb_to_recordset(p_more) as m (table_name text, business_key text, sha256 text)
            ) as r
            window w as (order by r.table_name collate "C", r.business_key collate "C", r.operation collate "C", r.sha256 collate "C")
        ) as x
        group by x.portion
    ) as p;
$$;

comment on function backfill.signature(uuid, jsonb) is
'sha256 over the rows that a run wrote, in the order of their tables and business keys: what a person signs. As the digest, it leaves out keys
that the database assigns and stamped columns, and counts the run''s own time as equal. More: rows that it did not
insert, as signed_rows() had them in a rehearsal, to see what it would be with them.';

revoke execute on function
backfill.signed_rows(uuid),
backfill.signature(uuid, jsonb)
from public;

do $do$
begin
    perform backfill.grant_to('backfill_auditor', 'execute on function backfill.signed_rows(uuid), backfill.signature(uuid, jsonb)');
    perform backfill.hand_over(true);
end;
$do$;
