-- The rule of a month's rent: which values count, and who pays what of their total.
-- Safe: functions only; they read.
-- depends: 0304_rent_closed

create function rent.kronor(p_value jsonb, p_name text) returns bigint
language plpgsql immutable
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
    v_ore numeric;
begin
    if jsonb_typeof(p_value) is distinct from 'number' then
        raise exception '% is no number: %', p_name, coalesce(left(p_value::text, 40), 'null') using errcode = 'BF022';
    end if;
    v_ore := (p_value #>> '{}')::numeric * 100;
    if v_ore <> trunc(v_ore) or abs(v_ore) > 100000000000 then
        raise exception '% is no amount in kronor with at most two decimals, up to 1,000,000,000: %',
            p_name, left(p_value::text, 40) using errcode = 'BF022';
    end if;
    return v_ore::bigint;
end;
$$;

comment on function rent.kronor(jsonb, text) is
'Kronor as a JSON number (4526, 4526.0, 5935.98) in ore; refused (BF022), naming it, where it is none.';

create function rent.config_used(p_period text, p_config jsonb) returns jsonb
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
    v_key text;
    v_used jsonb := '{}';
    v_row rent.rent_config;
    v_missing text[] := '{}';
    v_quarterly boolean;
begin
    foreach v_key in array array(select jsonb_object_keys(p_config)) loop
        if v_key <> all (array['kallhyra', 'el', 'bredband', 'drift_rakning', 'vattenavgift', 'va', 'larm', 'gas',
            'saldo_innan', 'extra_in', 'year', 'month']) then
            raise exception 'config holds %, which no rule knows', quote_literal(left(v_key, 60))
                using errcode = 'BF022',
                    hint = 'Known: kallhyra, el, bredband, drift_rakning, vattenavgift, va, larm, gas, saldo_innan, extra_in, year, month.';
        end if;
    end loop;
    -- The quarterly invoice stands for one month: it is never carried over.
    v_quarterly := coalesce(jsonb_typeof(p_config -> 'drift_rakning'), 'null') <> 'null'
        and rent.kronor(p_config -> 'drift_rakning', 'drift_rakning') <> 0;
    foreach v_key in array array['kallhyra', 'el', 'bredband', 'drift_rakning', 'vattenavgift', 'va', 'larm', 'gas',
        'saldo_innan', 'extra_in'] loop
        continue when v_key = 'drift_rakning' and not v_quarterly;
        continue when v_key in ('vattenavgift', 'va', 'larm') and v_quarterly;
        if coalesce(jsonb_typeof(p_config -> v_key), 'null') <> 'null' then
            v_used := v_used || jsonb_build_object(v_key,
                jsonb_build_object('ore', rent.kronor(p_config -> v_key, v_key), 'from', 'given'));
            continue;
        end if;
        select * into v_row from rent.rent_config
        where key = v_key and period <= p_period order by period desc limit 1;
        if found then
            v_used := v_used || jsonb_build_object(v_key, jsonb_build_object('ore', v_row.value, 'from', v_row.period));
        elsif v_key in ('gas', 'saldo_innan', 'extra_in') then
            v_used := v_used || jsonb_build_object(v_key, jsonb_build_object('ore', 0, 'from', 'none'));
        else
            v_missing := v_missing || v_key;
        end if;
    end loop;
    if v_missing <> '{}' then
        raise exception 'calculation of %: % is not given, and rent_config knows no earlier value',
            p_period, array_to_string(v_missing, ', ')
            using errcode = 'BF022', hint = 'Give it in config, in kronor; 0 where there is none.';
    end if;
    return v_used;
end;
$$;

comment on function rent.config_used(text, jsonb) is
'The values that a calculation of a month is made from, in ore, each with where it comes from: given, the period of
rent_config that it was carried from, or none (gas, saldo_innan and extra_in are 0 then). A key that nobody knows is refused (BF022).';

create function rent.shares(p_total bigint, p_days_of_month integer, p_roommates jsonb)
returns table (tenant text, days numeric, room_adjustment bigint, share numeric, amount bigint)
language sql immutable
security invoker
set search_path = pg_catalog, pg_temp
as $$
    -- p_roommates: {"name": {"days": numeric, "ore": bigint}}. All over one denominator: days of the month x days
    -- of everybody. So floor and remainder are exact, and thirds do not drift.
    with person as (
        select key as tenant, (value ->> 'days')::numeric as days, (value ->> 'ore')::numeric as adjustment
        from jsonb_each(p_roommates)
    ),
    whole as (
        select sum(days) as days, p_total * p_days_of_month - sum(adjustment * days) as left_over
        from person
    ),
    exact as (
        select p.tenant, p.days, p.adjustment,
            w.left_over * p.days + p.adjustment * p.days * w.days as numerator,
            p_days_of_month * w.days * 100 as denominator
        from person as p cross join whole as w
    ),
    floored as (
        select e.*, floor(div(e.numerator, e.denominator)) as kronor, mod(e.numerator, e.denominator) as remainder
        from exact as e
    ),
    ranked as (
        select f.*, row_number() over (order by f.remainder desc, f.tenant collate "C") as place,
            ceil(p_total / 100.0) - sum(f.kronor) over () as still
        from floored as f
    )
    select r.tenant, r.days, r.adjustment::bigint, round(r.numerator / r.denominator, 4),
        ((r.kronor + case when r.place <= r.still then 1 else 0 end) * 100)::bigint
    from ranked as r
    order by r.tenant collate "C";
$$;

comment on function rent.shares(bigint, integer, jsonb) is
'Who pays what of a total (ore): by days, adjustments prorated by days and redistributed among all by days; rounded at the
end only, to whole kronor by largest remainder (ties by name), so that the amounts sum to the total rounded up.';
