-- How the server plans what a backfill does, and what it is told of the rows that one has written.
-- Safe: functions only; ANALYZE keeps nobody from reading or writing.
-- depends: 0038_backfill_weigh

create function backfill.call_backfill(p_function text, p_parameters jsonb) returns jsonb
language plpgsql volatile
security definer
set search_path = pg_catalog, pg_temp
-- A function of anybody's own writes what its due view shows, which groups and compares whole tables of which the planner may know
-- nothing yet. One that looks up few rows at a time, by several tables, says `set enable_nestloop = on` itself.
set enable_nestloop = off
set jit = off
set work_mem = '64MB'
set hash_mem_multiplier = 4
as $$
declare
    v_metrics jsonb;
begin
    execute format('select %s($1)', p_function) into v_metrics using p_parameters;
    return v_metrics;
end;
$$;

comment on function backfill.call_backfill(text, jsonb) is
'Calls a backfill''s function, planned for many rows unless the function itself sets otherwise. It is part of backfill.run().';

create function backfill.analyze_tables(p_tables text[]) returns void
language plpgsql volatile
-- With the rights of whoever calls: the engine's owner owns none of the tables, and membership of pg_maintain would let him lock all.
security invoker
set search_path = pg_catalog, pg_temp
-- A table in which somebody creates an index is passed over, and that is no news.
set client_min_messages = error
as $$
declare
    v_table record;
begin
    for v_table in
        select c.oid::regclass as name, (
            select string_agg(quote_ident(a.attname), ', ' order by a.attnum) from pg_attribute as a
            where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
        ) as columns
        from backfill.tracked as t
        inner join pg_class as c on t.relation = c.oid
        where t.active and t.table_name = any (p_tables)
            -- Others would be warned, and nothing done.
            and case when current_setting('server_version_num')::integer < 170000 then pg_has_role(current_user, c.relowner, 'usage')
                else has_table_privilege(c.oid, 'maintain') end
        order by t.table_name
    loop
        -- Named columns: autovacuum goes on counting from where it was, and comes by when it would have.
        execute format('analyze (skip_locked) %s (%s)', v_table.name, v_table.columns);
    end loop;
end;
$$;

comment on function backfill.analyze_tables(text[]) is
'Statistics of tracked tables as this transaction sees them, for what reads them next in it. A table that the caller may not
analyze (own it, or the right to maintain it from PostgreSQL 17 on), or that somebody has locked, is passed over.';

revoke execute on function backfill.call_backfill(text, jsonb), backfill.analyze_tables(text[]) from public;

do $do$
begin
    perform backfill.grant_to('backfill_operator', 'execute on function backfill.analyze_tables(text[])');
end;
$do$;
