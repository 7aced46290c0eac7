-- Keys that the database assigns (identity, a sequence, a random uuid): which values of a run are such keys. They differ between a rehearsal and
-- its apply, so they are no part of the digest; a row that refers to one is known by the row that it refers to. And what a run drew from sequences,
-- and the moment that counts as equal.
-- Safe: functions that only read.
-- depends: 0029_backfill_taken

create function backfill.assigned_keys(p_table backfill.tracked) returns jsonb
language sql stable
security definer
set search_path = pg_catalog, pg_temp
as $$
    with assigned as (
        select t.pack_name, t.relation, a.attnum, array_position(t.columns, a.attname::text) as place
        from backfill.tracked as t
        join pg_attribute as a on a.attrelid = t.relation and a.attname = any (t.key_columns) and not a.attisdropped
        left join pg_attrdef as d on d.adrelid = a.attrelid and d.adnum = a.attnum
        where t.active and (a.attidentity <> '' or pg_get_expr(d.adbin, d.adrelid)
            ~ '\m(nextval|gen_random_uuid|uuidv4|uuidv7|uuid_generate_v[14]|uuid_generate_v1mc)\(')
    ),
    -- Once for each column: what it refers to, before what it is.
    held as (
        select distinct on (x.at) x.*
        from (
            select array_position(p_table.columns, a.attname::text) as at, k.pack_name as pack, k.place as key
            from pg_constraint as c
            cross join lateral generate_subscripts(c.conkey, 1) as j
            join assigned as k on k.relation = c.confrelid and k.attnum = c.confkey[j]
            join pg_attribute as a on a.attrelid = c.conrelid and a.attnum = c.conkey[j]
            where c.contype = 'f' and c.conrelid = p_table.relation
            union all
            select k.place, k.pack_name, k.place from assigned as k where k.pack_name = p_table.pack_name
        ) as x
        order by x.at, x.pack = p_table.pack_name, x.pack collate "C", x.key
    )
    select coalesce(jsonb_agg(to_jsonb(h) order by h.at), '[]') from held as h where h.at is not null and h.key is not null;
$$;

comment on function backfill.assigned_keys(backfill.tracked) is
'Columns of a table that hold keys which the database assigns, its own or another tracked table''s: at, the place of the column; pack, the table
whose key it is; key, that key''s place there. By places, which a rename leaves alone.';

create function backfill.held_keys(p_log backfill.backfill_log, p_table backfill.tracked) returns jsonb
language plpgsql stable
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_all jsonb := case when p_log.status = 'running' then backfill.assigned_keys(p_table)
        else coalesce(p_log.metrics -> 'assigned' -> p_table.pack_name, '[]') end;
    v_held jsonb := '[]';
    v_key jsonb;
    v_in_fact boolean;
begin
    for v_key in select x.k from jsonb_array_elements(v_all) as x (k) loop
        -- A uuid that the backfill made of a business key (version 5 or 8) stays what it is. One look at each pack: a statement makes
        -- its keys in one way.
        execute format('select coalesce(bool_or(%s), false) from backfill_audit.%I as p where p.run_id = $1 and p.operation = ''I''',
            (select case when t.stored_types[(v_key ->> 'key')::integer] = 'uuid'
                then format('substr((p.a%1$s)[1]::text, 15, 1) in (''1'', ''4'', ''7'')', v_key ->> 'key') else 'true' end
            from backfill.tracked as t where t.pack_name = v_key ->> 'pack'),
            (select t.images_name from backfill.tracked as t where t.pack_name = v_key ->> 'pack'))
        into v_in_fact using p_log.run_id;
        if v_in_fact then
            v_held := v_held || jsonb_build_array(v_key);
        end if;
    end loop;
    return v_held;
end;
$$;

comment on function backfill.held_keys(backfill.backfill_log, backfill.tracked) is
'assigned_keys() that the database did assign in this run; of a run that is closed as its log row has them.';

create function backfill.run_assigned(p_run uuid) returns jsonb
language sql stable
security definer
set search_path = pg_catalog, pg_temp
as $$
    select case when count(*) = 0 then '{}'::jsonb
        else jsonb_build_object('assigned', jsonb_object_agg(x.pack_name, x.keys)) end
    from (
        select t.pack_name, backfill.assigned_keys(t.*) as keys
        from backfill.tracked as t where t.pack_name in (select backfill.written_tables(p_run))
    ) as x
    where x.keys <> '[]';
$$;

comment on function backfill.run_assigned(uuid) is
'Which columns held keys that the database assigns, for the log of a run: its digest stays the same, also when a default changes later.';

create function backfill.run_time() returns timestamptz
language sql stable
security definer
set search_path = pg_catalog, pg_temp
as $$
    select coalesce((select l.started_at from backfill.backfill_log as l where l.run_id = backfill.open_run()), now());
$$;

comment on function backfill.run_time() is
'When the open run began, or without one the transaction: the value for a column that is to say when. It counts as equal in a rehearsal and its apply.';

create function backfill.drawn_values(p_runs uuid[])
returns table (
    name text, schema text, sequence text, increment bigint, cache bigint, drawn bigint, first bigint, last bigint
)
language plpgsql stable
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_sequence record;
begin
    for v_sequence in
        -- An identity owns its sequence; a default says which one it draws from.
        select s.seqincrement, s.seqcache, n.nspname, c.relname,
            string_agg(format('select unnest(p.a%s)::bigint as drawn from backfill_audit.%I as p where p.run_id = any ($1) and p.operation = ''I''',
                array_position(t.columns, a.attname::text), t.images_name), ' union all ') as query
        from pg_sequence as s
        join pg_class as c on c.oid = s.seqrelid
        join pg_namespace as n on n.oid = c.relnamespace
        join (
            select d.objid as sequence, d.refobjid as relation, d.refobjsubid::integer as attnum from pg_depend as d
            where d.classid = 'pg_class'::regclass and d.refclassid = 'pg_class'::regclass and d.deptype = 'i'
            union
            select d.refobjid, f.adrelid, f.adnum from pg_depend as d join pg_attrdef as f on f.oid = d.objid
            where d.classid = 'pg_attrdef'::regclass and d.refclassid = 'pg_class'::regclass
        ) as u on u.sequence = s.seqrelid
        join backfill.tracked as t on t.active and t.relation = u.relation
        join pg_attribute as a on a.attrelid = u.relation and a.attnum = u.attnum
        where t.stored_types[array_position(t.columns, a.attname::text)] in ('smallint', 'integer', 'bigint')
        group by s.seqrelid, s.seqincrement, s.seqcache, n.nspname, c.relname
    loop
        execute format('select count(distinct v.drawn), case when $2 > 0 then min(v.drawn) else max(v.drawn) end, '
            'case when $2 > 0 then max(v.drawn) else min(v.drawn) end from (%s) as v', v_sequence.query)
        into drawn, first, last using p_runs, v_sequence.seqincrement;
        continue when drawn = 0;
        schema := v_sequence.nspname;
        sequence := v_sequence.relname;
        name := format('%I.%I', schema, sequence);
        increment := v_sequence.seqincrement;
        cache := v_sequence.seqcache;
        return next;
    end loop;
end;
$$;

comment on function backfill.drawn_values(uuid[]) is
'Of each sequence that a tracked table''s identity or default draws from: how many values these runs put into the rows that they inserted, the first
and the last of them in its direction.';

revoke execute on function
backfill.run_time(),
backfill.drawn_values(uuid[]),
backfill.assigned_keys(backfill.tracked),
backfill.held_keys(backfill.backfill_log, backfill.tracked),
backfill.run_assigned(uuid)
from public;

do $do$
begin
    perform backfill.grant_to('backfill_operator', 'execute on function backfill.drawn_values(uuid[])');
    perform backfill.grant_to('backfill_auditor', 'execute on function backfill.run_time()');  -- due views ask it as their reader
    perform backfill.hand_over(true);
end;
$do$;
