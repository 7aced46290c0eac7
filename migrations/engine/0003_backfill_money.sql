-- Money: the minor unit of each currency, amounts by currency as {"EUR": 123450}, and the SQL that sums a column without
-- ever adding one currency to another.
-- Safe: functions only.
-- depends: 0002_backfill_helpers

create function backfill.minor_digits(p_currency text) returns integer
language sql immutable parallel safe
-- ISO 4217; elsewhere two. CAD/2 is how a ledger names an asset and its digits; EUR void are void rows of EUR.
return case
    when p_currency ~ '/[0-9]( void)?$' then substring(p_currency from '/([0-9])')::integer
    when split_part(p_currency, ' ', 1) in ('BIF', 'CLP', 'DJF', 'GNF', 'ISK', 'JPY', 'KMF', 'KRW', 'PYG') then 0
    when split_part(p_currency, ' ', 1) in ('RWF', 'UGX', 'UYI', 'VND', 'VUV', 'XAF', 'XOF', 'XPF') then 0
    when split_part(p_currency, ' ', 1) in ('BHD', 'IQD', 'JOD', 'KWD', 'LYD', 'OMR', 'TND') then 3
    when split_part(p_currency, ' ', 1) in ('CLF', 'UYW') then 4
    else 2
end;

comment on function backfill.minor_digits(text) is
'Decimals of a currency''s minor unit by ISO 4217: JPY 0, KWD 3, CLF 4, all others and "amounts" (no currency) 2; of an asset USD/4 those it names.';

create function backfill.minor_factor(p_currency text) returns numeric
language sql immutable parallel safe
return case backfill.minor_digits(p_currency)
    when 2 then 100
    else ('1e' || backfill.minor_digits(p_currency)::text)::numeric
end;

comment on function backfill.minor_factor(text) is 'Minor units in one unit of a currency: EUR 100, JPY 1, KWD 1000.';

create function backfill.minor_units(p_amount numeric, p_currency text) returns numeric
language sql immutable parallel safe
return case
    when p_amount not in ('NaN', 'Infinity', '-Infinity') then trim_scale(p_amount * backfill.minor_factor(p_currency))
end;

comment on function backfill.minor_units(numeric, text) is
'An amount in the minor units of its currency, 12.5 EUR as 1250: exact, with decimals where it has more than the currency. Null for what is no amount (NaN).';

create function backfill.currency_code(p_value text) returns text
language sql immutable parallel safe
return coalesce(nullif(upper(btrim(p_value)), ''), 'amounts');

comment on function backfill.currency_code(text) is 'A currency as a key of money: in capitals, without blanks; "amounts" where there is none.';

create function backfill.minor_sql(p_value text, p_type text, p_currency text) returns text
language sql immutable parallel safe
return case
    when p_value is null then null
    when p_type = 'numeric' then format('backfill.minor_units(%s, %s)', p_value, p_currency)
    else format('(%s)::numeric', p_value)
end;

comment on function backfill.minor_sql(text, text, text) is
'SQL expression: a value of the money column in minor units. Type as stored: numeric holds units, integers hold minor units. Currency: an expression.';

create function backfill.currency_sql(
    p_value text, p_constant text, p_void text default null, p_values text[] default null
) returns text
language sql immutable parallel safe
return format(
    case
        when p_void is null then '%1$s'
        else '(%1$s || case when (%2$s)::text = any (%3$L::text[]) then '' void'' else '''' end)'
    end,
    case
        when p_value is null then quote_literal(coalesce(p_constant, 'amounts'))
        else format('backfill.currency_code((%s)::text)', p_value)
    end,
    p_void, p_values
);

comment on function backfill.currency_sql(text, text, text, text[]) is
'SQL expression: the key of a row''s money: its currency, from its column''s value, or the constant where there is none; "EUR void" where the value
of another column is one of those that mean void.';

create function backfill.sums_by_currency(p_groups text, p_type text) returns text
language sql immutable
security invoker
set search_path = pg_catalog, pg_temp
as $$
    -- Converted as sums, of amounts with as many decimals: row by row it would cost more than all the rest.
    select format('select coalesce(sum(s.n), 0)::bigint, coalesce(jsonb_object_agg(s.currency, trim_scale(s.amount)) '
        'filter (where s.amount <> 0), ''{}''), coalesce(sum(s.finer), 0)::bigint '
        'from (select g.currency, sum(g.n) as n, sum(%s) as amount, sum(g.given) filter (where %s) as finer from (%s) as g group by g.currency) as s',
        backfill.minor_sql('g.total', p_type, 'g.currency'),
        -- Without decimals that could be counted (NaN), it is no amount that a currency can have.
        case when p_type = 'numeric' then 'g.told and (g.digits <= backfill.minor_digits(g.currency)) is not true' else 'false' end, p_groups);
$$;

comment on function backfill.sums_by_currency(text, text) is
'SQL query of one row, of groups (currency, digits, told, n, given, total) of amounts of this stored type: how many rows, their money by currency,
and how many of the amounts that are to be told of have more decimals than their currency.';

create function backfill.sum_of_money(p_from text, p_amount text, p_type text, p_currency text) returns text
language sql immutable
security invoker
set search_path = pg_catalog, pg_temp
as $$
    -- Of one currency in one group, whatever there is.
    select case when p_amount is null then format('select count(*), null::jsonb, 0::bigint from %s', p_from)
        else backfill.sums_by_currency(format(
            'select %1$s as currency, %2$s as digits, true as told, count(*) as n, count(%3$s) as given, sum(%3$s) as total from %4$s group by %5$s',
            p_currency, d.digits, p_amount, p_from,
            coalesce(nullif(concat_ws(', ', case when p_currency not like '''%' then p_currency end, case when p_type = 'numeric' then d.digits end), ''),
                '()')), p_type)
        end
    from (select case when p_type = 'numeric' then format('scale(trim_scale(%s))', p_amount) else '0' end as digits) as d;
$$;

comment on function backfill.sum_of_money(text, text, text, text) is
'SQL query of one row: how many rows stand after FROM, their money by currency (null without an amount; what is zero is not named), and how many of the amounts have more
decimals than their currency. Amount: an expression of this stored type; currency: an expression.';

create function backfill.money_images(
    p_money integer, p_type text, p_currency_place integer, p_currency text, p_void_place integer, p_void text[]
) returns text
language plpgsql immutable
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
    v_amount text;
begin
    if p_money is null then
        return 'null::numeric, null::numeric, null::text, null::text';
    end if;
    -- Amount and currency of both sides; where a pack left a column alone, it is as it is after.
    select string_agg(format('case when %s then %s end', x.there, x.minor), ', ' order by x.n)
        || ', ' || string_agg(format('case when %s then %s end', x.there, x.currency), ', ' order by x.n)
    into v_amount
    from (
        select s.n, s.there, c.currency,
            backfill.minor_sql(replace(s.image, '%', p_money::text), p_type, c.currency) as minor
        from (values
            (1, 'p.operation <> ''I''', 'case when p.b% is null and p.operation = ''U'' then u.a% else u.b% end'),
            (2, 'p.operation <> ''D''', 'u.a%')
        ) as s (n, there, image)
        cross join lateral (
            select backfill.currency_sql(replace(s.image, '%', p_currency_place::text), p_currency,
                replace(s.image, '%', p_void_place::text), p_void) as currency) as c
    ) as x;
    return v_amount;
end;
$$;

comment on function backfill.money_images(integer, text, integer, text, integer, text[]) is
'SQL expressions over a pack p and its row u: amount before and after, currency before and after. Which places hold the money, of this stored
type, its currency and what says void; or the currency of all.';

create function backfill.changed_money(
    p_images text, p_money integer, p_type text, p_currency_place integer, p_currency text, p_void_place integer,
    p_void text[], p_gross boolean default false
) returns text
language plpgsql immutable
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
    v_sides text;
begin
    if p_money is null then
        return 'select null::jsonb, 0::bigint';
    end if;
    -- Where a whole pack left a column alone, b is null and it was as it is after; where it left both alone, nothing is to be said.
    select string_agg(format('select %s as currency, %s(u.m::numeric) as amount, %s as digits, %L::boolean as told '
            'from (select unnest(%s) as m%s%s) as u where p.operation <> %L',
            backfill.currency_sql(case when p_currency_place is not null then 'u.c' end, p_currency,
                case when p_void_place is not null then 'u.v' end, p_void),
            case when p_gross then 'abs' else s.sign end, case when p_type = 'numeric' then 'scale(trim_scale(u.m))' else '0' end, s.sign = '',
            replace(s.image, '%', p_money::text), ', unnest(' || replace(s.image, '%', p_currency_place::text) || ') as c',
            ', unnest(' || replace(s.image, '%', p_void_place::text) || ') as v', s.without), ' union all ')
    into v_sides
    from (values ('', 'p.a%', 'D'), ('-', 'coalesce(p.b%, case p.operation when ''U'' then p.a% end)', 'I')) as s (sign, image, without);
    return format('select t.money, t.finer from (%s) as t (n, money, finer)', backfill.sums_by_currency(format(
        'select x.currency, x.digits, x.told, count(*) as n, count(x.amount) as given, sum(x.amount) as total '
        'from backfill_audit.%I as p cross join lateral (%s) as x '
        'where p.run_id = $1 and (%L or p.operation <> ''U'' or p.b%s is not null%s%s) group by x.currency, x.digits, x.told',
        p_images, v_sides, p_gross, p_money, ' or p.b' || p_currency_place || ' is not null', ' or p.b' || p_void_place || ' is not null'), p_type));
end;
$$;

comment on function backfill.changed_money(text, integer, text, integer, text, integer, text[], boolean) is
'SQL query of one row: the change in money by currency of the run $1 in a table, null where it has none; and how many amounts it wrote that have
more decimals than their currency. Gross: before and after added, without their signs, also where they are the same.';

create function backfill.add_money(p_one jsonb, p_other jsonb) returns jsonb
language sql immutable
security invoker
set search_path = pg_catalog, pg_temp
as $$
    select case when p_one is not null or p_other is not null then coalesce((
        select jsonb_object_agg(s.currency, trim_scale(s.amount))
        from (
            select x.key as currency, sum(x.value::numeric) as amount
            from (select * from jsonb_each_text(p_one) union all select * from jsonb_each_text(p_other)) as x
            group by x.key
        ) as s
        where s.amount <> 0), '{}') end;
$$;

comment on function backfill.add_money(jsonb, jsonb) is 'Two sums of money as one, each currency by itself; null where both are.';

create function backfill.same_money(p_one jsonb, p_other jsonb) returns boolean
language sql immutable
security invoker
set search_path = pg_catalog, pg_temp
as $$
    select not exists (
        select 1 from jsonb_each_text(p_one) as a full join jsonb_each_text(p_other) as b on b.key = a.key
        where coalesce(a.value::numeric, 0) <> coalesce(b.value::numeric, 0)
    );
$$;

comment on function backfill.same_money(jsonb, jsonb) is 'Is it as much in every currency? What is not named is nothing.';

create function backfill.money_text(p_money jsonb) returns text
language sql immutable
security invoker
set search_path = pg_catalog, pg_temp
as $$
    select coalesce(string_agg(
        (x.value::numeric * ('1e-' || backfill.minor_digits(x.key))::numeric)::text || case when x.key = 'amounts' then '' else ' ' || replace(x.key, 'amounts ', '') end,
        ', ' order by x.key collate "C"), '0.00')
    from jsonb_each_text(p_money) as x;
$$;

comment on function backfill.money_text(jsonb) is 'Money for a message: 1234.50 EUR, 900 JPY, 12.00 EUR void.';

create function backfill.money_column(
    p_relation regclass, p_amount text, p_currency text, p_void text[]
) returns text
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
    v_type text;
    v_why text;
begin
    -- What is wrong with a table's money, as words; null where nothing is.
    select format_type(t.oid, null), case
        when a.attgenerated = 'v' then 'is a virtual generated column, which no trigger sees: make it STORED'
        when t.typname in ('float4', 'float8', 'money') and t.typnamespace = 'pg_catalog'::regnamespace then format(
            'is of type %s, which is not exact: name a generated column, alter table %s add column %I numeric generated always as (%I::numeric) stored; '
            'or track it without money, as any other column', format_type(t.oid, null), p_relation, p_amount || '_exact', p_amount)
        when t.oid not in ('int2'::regtype, 'int4'::regtype, 'int8'::regtype, 'numeric'::regtype) then format(
            'is of type %s: money is smallint, integer or bigint (minor units) or numeric; name a generated column of such a type', format_type(a.atttypid, a.atttypmod))
        end
    into v_type, v_why
    from pg_attribute as a
    join pg_type as t on t.oid = coalesce((
        with recursive base (type, kind, below) as (
            select d.oid, d.typtype, d.typbasetype from pg_type as d where d.oid = a.atttypid
            union all
            select d.oid, d.typtype, d.typbasetype from base as b join pg_type as d on d.oid = b.below
        )
        select b.type from base as b where b.kind <> 'd'), a.atttypid)
    where a.attrelid = p_relation and a.attname = p_amount and not a.attisdropped;
    if v_why is not null then
        return format('its money column %s %s', p_amount, v_why);
    elsif cardinality(p_void) = 1 then
        return format('p_void names the column %s and no value that means void: {%1$s,void}', p_void[1]);
    elsif cardinality(p_void) > 1 and not exists (
        select 1 from pg_attribute as a where a.attrelid = p_relation and a.attname = p_void[1] and a.attnum > 0 and not a.attisdropped
            and a.attgenerated <> 'v'
    ) then
        return format('it has no column %s that is stored, which p_void names first, before the values that mean void', p_void[1]);
    end if;
    return (
        select case
            when a.attname is null and p_currency !~ '^[A-Z][A-Z0-9]{2,15}(/[0-9])?$'
                then format('it has no currency column %s, and that is no code of a currency (USD, CAD/2)', p_currency)
            when a.attgenerated = 'v' then format('its currency column %s is a virtual generated column, which no trigger sees', p_currency)
            when a.attname is not null and backfill.is_wordless(a.atttypid)
                then format('its currency column %s is of type %s: it must be text, or an enum', p_currency, format_type(a.atttypid, a.atttypmod))
            end
        from (values (1)) as c
        left join pg_attribute as a on a.attrelid = p_relation and a.attname = p_currency and not a.attisdropped and a.attnum > 0
        where p_currency is not null
    );
end;
$$;

comment on function backfill.money_column(regclass, text, text, text[]) is
'What keeps these from being a table''s money: its type, a currency that is neither a column of words nor a code, and what is to say void, a column
and its values. Null where nothing does.';
