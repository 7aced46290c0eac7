-- What a run wrote by month and by what matters (tenant, facility, mortgage), and rows by keys that people know: for whoever signs.
-- Safe: functions that only read.
-- depends: 0039_backfill_planning

create function backfill.known_as(
    p_relation regclass, p_column text, out parent regclass, out key_column text, out shown text
)
language sql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
    -- One column that refers to one column; of several keys the first by name.
    select t.relation::regclass, a.attname, format('concat_ws('' / '', %s)',
        (select string_agg(format('to_jsonb(k.%I) #>> ''{}''', b.name), ', ' order by b.i) from unnest(t.business_key) with ordinality as b (name, i)))
    from pg_constraint as c
    join backfill.tracked as t on t.relation = c.confrelid and t.active
    join pg_attribute as a on a.attrelid = c.confrelid and a.attnum = c.confkey[1]
    where c.contype = 'f' and c.conrelid = p_relation and cardinality(c.conkey) = 1
        and c.conkey[1] = (select x.attnum from pg_attribute as x where x.attrelid = p_relation and x.attname = p_column and not x.attisdropped)
        and not a.attname = any (t.business_key)
    order by c.conname
    limit 1;
$$;

comment on function backfill.known_as(regclass, text) is
'What a column refers to, where that is a row of a tracked table which people know by another key: the table, the column referred to, and an SQL expression
of its business key, of the row k. Nulls where there is none.';

create function backfill.shown_key(p_table text, p_row jsonb) returns text
language plpgsql stable
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_table backfill.tracked;
    v_column text;
    v_known record;
    v_part text;
    v_parts text[] := '{}';
begin
    select t.* into v_table from backfill.tracked as t where t.table_name = p_table;
    foreach v_column in array v_table.business_key loop
        v_part := p_row ->> v_column;
        select * into v_known from backfill.known_as(v_table.relation, v_column);
        if v_known.parent is not null and v_part is not null then
            execute format('select %s from %s as k where k.%I = $1::%s', v_known.shown, v_known.parent, v_known.key_column,
                v_table.stored_types[array_position(v_table.columns, v_column)])
            into v_part using v_part;
        end if;
        v_parts := v_parts || coalesce(v_part, p_row ->> v_column);
    end loop;
    return array_to_string(v_parts, ' / ');
end;
$$;

comment on function backfill.shown_key(text, jsonb) is
'The business key of a row, by its image in backfill.change_log, with what it refers to as people know that: an invoice''s line by the invoice''s number.';

create function backfill.by_dimension(p_run uuid, p_column text, p_now boolean default false)
returns table (value text, currency text, row_count bigint, before numeric, change numeric, after numeric)
language plpgsql stable
security definer
set search_path = pg_catalog, pg_temp
set row_security = off  -- a hidden row is an error, not one row less
set jit = off
as $$
declare
    v_log backfill.backfill_log;
    v_table backfill.tracked;
    v_own text;
    v_place integer;
    v_money integer;
    v_type text;
    v_value text;
    v_sides text;
    v_total text;
    v_known record;
    v_join text;
    v_shown text;
begin
    select * into v_log from backfill.backfill_log as l where l.run_id = p_run;
    v_own := (select c.tables[1] from backfill.catalog as c where c.backfill = v_log.backfill);
    select t.* into v_table from backfill.tracked as t
    where t.pack_name in (select backfill.written_tables(p_run)) and p_column = any (t.columns) and (v_own is null or t.table_name = v_own)
    order by t.money is null, t.table_name limit 1;
    if not found then
        return;  -- it did not write the table, or that has no such column any more
    end if;
    v_place := array_position(v_table.columns, p_column);
    v_money := array_position(v_table.columns, v_table.money);
    v_type := v_table.stored_types[v_money];
    v_value := case when v_table.stored_types[v_place] in ('date', 'timestamp without time zone') then 'to_char(%s, ''YYYY-MM'')'
        when v_table.stored_types[v_place] = 'timestamp with time zone' then 'to_char(%s at time zone ' || quote_literal(v_log.time_zone) || ', ''YYYY-MM'')'
        else '(to_jsonb(%s) #>> ''{}'')' end;
    -- An update takes a row away where it was and puts it where it is; what it left alone is as it is after.
    select string_agg(format('select %s as value, %s as currency, %s as amount, %s as counts from (select unnest(%s) as d%s%s%s) as u where p.operation <> %L',
            format(v_value, 'u.d'), coalesce(m.currency, 'null::text'), coalesce(s.sign || backfill.minor_sql('u.m', v_type, m.currency), 'null::numeric'), s.counts,
            replace(s.image, '%', v_place::text), ', unnest(' || replace(s.image, '%', v_money::text) || ') as m',
            ', unnest(' || replace(s.image, '%', array_position(v_table.columns, v_table.currency_column)::text) || ') as c',
            ', unnest(' || replace(s.image, '%', array_position(v_table.columns, v_table.void[1])::text) || ') as v', s.without), ' union all ')
    into v_sides
    from (values ('', 'p.a%', 'D', 'true'), ('-', 'coalesce(p.b%, case p.operation when ''U'' then p.a% end)', 'I', 'p.operation = ''D''')) as s (sign, image, without, counts)
    cross join lateral (select case when v_money is not null then backfill.currency_sql(case when v_table.currency_column is not null then 'u.c' end,
        v_table.currency, case when v_table.void <> '{}' then 'u.v' end, v_table.void[2:]) end as currency) as m;
    v_total := backfill.currency_sql('x.' || quote_ident(v_table.currency_column), v_table.currency, 'x.' || quote_ident(v_table.void[1]), v_table.void[2:]);
    select * into v_known from backfill.known_as(v_table.relation, p_column);
    v_join := case when v_known.parent is null then '' else format('left join %s as k on k.%I::text = c.value', v_known.parent, v_known.key_column) end;
    v_shown := case when v_known.parent is null then 'c.value' else format('coalesce(%s, c.value)', v_known.shown) end;
    return query execute format(
        'with changed as (select x.value, x.currency, count(*) filter (where x.counts) as n, trim_scale(coalesce(sum(x.amount), 0)) as amount '
        'from backfill_audit.%I as p cross join lateral (%s) as x where p.run_id = $1 group by x.value, x.currency) %s',
        v_table.images_name, v_sides,
        case when p_now and v_money is not null then format(
            ', total as (select %1$s as value, %2$s as currency, trim_scale(sum(%3$s)) as amount from %4$s as x where %1$s in (select c.value from changed as c) '
            'or %1$s is null group by 1, 2) '
            'select %6$s, c.currency, c.n, coalesce(t.amount, 0) - c.amount, c.amount, coalesce(t.amount, 0) from changed as c '
            'left join total as t on t.value is not distinct from c.value and t.currency = c.currency %5$s',
            format(v_value, 'x.' || quote_ident(p_column)), v_total, backfill.minor_sql('x.' || quote_ident(v_table.money), v_type, v_total),
            v_table.relation::regclass, v_join, v_shown)
        else format('select %2$s, c.currency, c.n, null::numeric, case when c.currency is not null then c.amount end, null::numeric from changed as c %1$s',
            v_join, v_shown) end
        || ' order by 1, 2')
    using p_run;
end;
$$;

comment on function backfill.by_dimension(uuid, text, boolean) is
'What a run wrote into its backfill''s own table by the values of one column, a moment by its month (in the run''s time zone): rows, and the change in minor
units by currency. Now: also what the table holds now under these values, and held before, for a run of this transaction. Nothing where it wrote none.';

revoke execute on function
backfill.known_as(regclass, text),
backfill.shown_key(text, jsonb),
backfill.by_dimension(uuid, text, boolean)
from public;

do $do$
begin
    perform backfill.grant_to('backfill_auditor', 'execute on function backfill.by_dimension(uuid, text, boolean), backfill.shown_key(text, jsonb), '
        'backfill.known_as(regclass, text)');
    perform backfill.hand_over(true);
end;
$do$;
