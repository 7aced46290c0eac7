-- rent.record_calculation(): the forward path that replaces the JSON snapshots; rent.explain(): why an amount.
-- Safe: functions only.
-- depends: 0022_rent_closed

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
'Kronor as a JSON number (4526, 4526.0, 5935.98) in öre; refused (BF022), naming it, where it is none.';

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
'The values that a calculation of a month is made from, in öre, each with where it comes from: given, the period of
rent_config that it was carried from, or none (gas, saldo_innan and extra_in are 0 then). A key that nobody knows is refused (BF022).';

create function rent.shares(p_total bigint, p_days_of_month integer, p_roommates jsonb)
returns table (tenant text, days numeric, room_adjustment bigint, share numeric, amount bigint)
language sql immutable
security invoker
set search_path = pg_catalog, pg_temp
as $$
    -- p_roommates: {"name": {"days": numeric, "ore": bigint}}. All over one denominator: days of the month × days
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
'Who pays what of a total (öre): by days, adjustments prorated by days and redistributed among all by days; rounded at the
end only, to whole kronor by largest remainder (ties by name), so that the amounts sum to the total rounded up.';

create function rent.record_calculation(
    p_period text, p_roommates jsonb, p_config jsonb default '{}', p_title text default null
)
returns table (
    tenant text, period text, version integer, days numeric, days_of_month integer, room_adjustment bigint,
    share numeric, amount bigint, amount_due bigint, written boolean
)
language plpgsql volatile
security definer
set search_path = pg_catalog, pg_temp
set jit = off
as $$
#variable_conflict use_column
declare
    v_year integer;
    v_month integer;
    v_calculated text;
    v_lived text;
    v_days integer;
    v_person record;
    v_named text[];
    v_ready jsonb := '{}';
    v_used jsonb;
    v_total bigint;
    v_version integer;
    v_opened boolean;
    v_now timestamptz := now();
begin
    if not coalesce(rent.is_period(p_period), false) then
        raise exception 'period % is not YYYY-MM', coalesce(quote_literal(p_period), 'null') using errcode = 'BF022';
    elsif jsonb_typeof(p_roommates) is distinct from 'object' or p_roommates = '{}' then
        raise exception 'roommates is no object with at least one name' using errcode = 'BF022',
            hint = 'For example {"Adam": {"days": 15.5}, "Nils": {}}.';
    elsif jsonb_typeof(p_config) is distinct from 'object' then
        raise exception 'config is no object' using errcode = 'BF022', hint = 'For example {"kallhyra": 24530, "el": 5945}.';
    end if;

    -- As in the files: the calculation's month is the rent month or the one before, and lived in is the one after.
    v_calculated := p_period;
    if coalesce(jsonb_typeof(p_config -> 'month'), 'null') <> 'null' then
        v_month := rent.kronor(p_config -> 'month', 'month') / 100;
        v_year := coalesce(
            case when jsonb_typeof(p_config -> 'year') <> 'null' then rent.kronor(p_config -> 'year', 'year') / 100 end,
            left(p_period, 4)::integer - case when v_month = 12 and right(p_period, 2) = '01' then 1 else 0 end);
        v_calculated := format('%s-%s', v_year, lpad(v_month::text, 2, '0'));
        if v_calculated <> all (array[p_period, rent.next_period(p_period, -1)]) then
            raise exception 'config says that the calculation is of %, which is neither % nor the month before',
                v_calculated, p_period using errcode = 'BF022';
        end if;
    end if;
    v_lived := rent.next_period(v_calculated);
    v_days := extract(day from rent.month_start(rent.next_period(v_lived)) - interval '1 day');

    for v_person in select r.key as name, r.value from jsonb_each(p_roommates) as r order by r.key collate "C" loop
        declare
            v_tenant rent.tenants;
            v_stayed numeric;
            v_ore bigint;
        begin
            select * into v_tenant from rent.tenants as t where t.name = v_person.name;
            if not found then
                raise exception 'there is no tenant %', quote_literal(left(v_person.name, 60))
                    using errcode = 'BF022', hint = 'Add the person to rent.tenants first.';
            elsif rent.lives_there(v_tenant.start_date, v_tenant.departure_date, p_period, v_lived) is false then
                raise exception '% did not live there in % or %: %', v_person.name, p_period, v_lived,
                    concat_ws(', ', 'from ' || v_tenant.start_date, 'until ' || v_tenant.departure_date)
                    using errcode = 'BF022', hint = 'Correct rent.tenants, or leave the person out.';
            elsif jsonb_typeof(v_person.value) <> 'object' then
                raise exception '%: %  is no object like {"days": 15.5, "room_adjustment": -1400}',
                    v_person.name, left(v_person.value::text, 40) using errcode = 'BF022';
            end if;
            select array_agg(k) into v_named from jsonb_object_keys(v_person.value) as k
            where k not in ('days', 'room_adjustment');
            if v_named is not null then
                raise exception '%: % is neither days nor room_adjustment', v_person.name, array_to_string(v_named, ', ')
                    using errcode = 'BF022';
            end if;
            v_stayed := v_days;
            if coalesce(jsonb_typeof(v_person.value -> 'days'), 'null') <> 'null' then
                if jsonb_typeof(v_person.value -> 'days') <> 'number' then
                    raise exception '%: days is no number: %', v_person.name, left(v_person.value ->> 'days', 40) using errcode = 'BF022';
                end if;
                v_stayed := (v_person.value ->> 'days')::numeric;
                if v_stayed <= 0 or v_stayed > v_days or scale(v_stayed) > 6 then
                    raise exception '%: % days of the % days of %', v_person.name, left(v_stayed::text, 40), v_days, v_lived
                        using errcode = 'BF022', hint = 'More than 0, and no more than the month lived in has.';
                end if;
            end if;
            v_ore := case
                when not v_person.value ? 'room_adjustment' then coalesce(v_tenant.room_adjustment, 0)
                when jsonb_typeof(v_person.value -> 'room_adjustment') = 'null' then 0
                else rent.kronor(v_person.value -> 'room_adjustment', v_person.name || ': room_adjustment') end;
            v_ready := v_ready || jsonb_build_object(v_person.name, jsonb_build_object('days', v_stayed, 'ore', v_ore));
        end;
    end loop;

    v_opened := backfill.ensure_run('rent: calculation of ' || p_period, jsonb_build_object('period', p_period));
    -- Only now, below the lock of runs: two calculations at once are two versions.
    v_used := rent.config_used(p_period, p_config);
    select sum((u.value ->> 'ore')::bigint * case when u.key in ('saldo_innan', 'extra_in') then -1 else 1 end) into v_total
    from jsonb_each(v_used) as u;
    if v_total < 0 or exists (select from rent.shares(v_total, v_days, v_ready) as s where s.share < 0) then
        raise exception 'calculation of %: a share would be negative (total % öre)', p_period, v_total
            using errcode = 'BF022', detail = (
                select string_agg(format('%s: %s kr', s.tenant, s.share), ', ') from rent.shares(v_total, v_days, v_ready) as s),
                hint = 'Is an adjustment or a balance too large?';
    end if;
    select coalesce(max(c.version), 0) + 1 into v_version from rent.calculation as c where c.period = p_period;

    insert into rent.calculation
        (period, version, calculation_month, title, calculated_at, inputs, roommates, results, used, total)
    select p_period, v_version, v_calculated, p_title, v_now, p_config, p_roommates,
        jsonb_object_agg(s.tenant, s.amount / 100), v_used, v_total
    from rent.shares(v_total, v_days, v_ready) as s;

    insert into rent.rent_config as c (id, key, period, value)
    select backfill.business_id('rent_config', u.key, p_period), u.key, p_period, (u.value ->> 'ore')::bigint
    from jsonb_each(v_used) as u
    where u.value ->> 'from' = 'given'
    on conflict (key, period) do update set value = excluded.value
    where c.value <> excluded.value;

    insert into rent.rent_ledger
        (id, tenant, period, amount_due, days_stayed, room_adjustment, base_monthly_rent, calculation_title,
        calculation_date, calculation_version)
    select backfill.business_id('rent_ledger', s.tenant, p_period), s.tenant, p_period, s.amount, s.days, s.room_adjustment,
        round((v_used -> 'kallhyra' ->> 'ore')::numeric / (count(*) over ()))::bigint, p_title, v_now, v_version
    from rent.shares(v_total, v_days, v_ready) as s
    on conflict (tenant, period) do nothing;

    return query
    select s.tenant, p_period, v_version, s.days, v_days, s.room_adjustment, s.share, s.amount, l.amount_due,
        l.calculation_version is not distinct from v_version
    from rent.shares(v_total, v_days, v_ready) as s
    join rent.rent_ledger as l on l.tenant = s.tenant and l.period = p_period
    order by s.tenant collate "C";
    if v_opened then
        perform backfill.finish_run();
    end if;
end;
$$;

comment on function rent.record_calculation(text, jsonb, jsonb, text) is
'Computes each share of a month, keeps the calculation as its next version and the given values in rent_config, and bills
who is not billed yet, all in one run. period: rent month. roommates: {"name": {"days": 15.5, "room_adjustment": -1400}};
no days = the whole month; no room_adjustment = the tenant''s standing one. config: kronor; a key that is not given is the
latest earlier value in rent_config. Returns each person''s exact share (kronor), its rounded amount, and what the ledger
bills (öre); written = false where the month had been billed before, which stays. Refused (BF022) with the reason.
Example: select * from rent.record_calculation(''2025-06'', ''{"Adam": {}, "Nils": {"days": 10}}'', ''{"el": 1972}'', ''July'');';

create function rent.explain(p_tenant text, p_period text)
returns table (
    tenant text, period text, amount_due bigint, currency text, amount_paid bigint, payment_date date,
    lived_in text, days_stayed numeric, days_of_month integer, room_adjustment bigint, base_monthly_rent bigint,
    calculation_title text, calculation_date timestamptz, calculation_version integer, inputs jsonb, roommates jsonb,
    used jsonb, calculated_amount bigint, source text, run_id uuid, recorded_by text, recorded_at timestamptz,
    explanation text
)
language sql stable
security definer
set search_path = pg_catalog, pg_temp
set timezone = 'UTC'
as $$
    select l.tenant, l.period, l.amount_due::bigint, l.currency, l.amount_paid::bigint, l.payment_date,
        m.lived_in, l.days_stayed, m.days_of_month, l.room_adjustment, l.base_monthly_rent,
        l.calculation_title, l.calculation_date, l.calculation_version, c.inputs, c.roommates, c.used,
        m.calculated, coalesce('file ' || c.file_name, case when c.period is not null then 'rent.record_calculation' end),
        w.run_id, w.actor, w.started_at,
        case when l.calculation_date is null then
            format('%s was billed %s kr for %s; no calculation is known', l.tenant, m.kronor, l.period)
        else concat_ws('; ',
            format('%s was billed %s kr for %s, lived in %s', l.tenant, m.kronor, l.period, coalesce(m.lived_in, 'an unknown month')),
            format('%s days', coalesce(trim_scale(l.days_stayed)::text || ' of ' || m.days_of_month, 'all ' || m.days_of_month)),
            case when l.room_adjustment <> 0 then format('room adjustment %s kr a month', trim_scale(l.room_adjustment / 100.0)) end,
            format('base rent %s kr (kallhyra by %s roommates)', trim_scale(round(l.base_monthly_rent / 100.0, 2)), m.persons),
            format('calculated %s as version %s%s', to_char(l.calculation_date, 'YYYY-MM-DD HH24:MI "UTC"'), l.calculation_version,
                coalesce(': ' || l.calculation_title, '')),
            'cost of the month ' || trim_scale(round(c.total / 100.0, 2)) || ' kr',
            case when m.calculated <> l.amount_due then format('the calculation says %s kr', trim_scale(round(m.calculated / 100.0, 2))) end,
            'accepted as it is: ' || f.reason)
        end
    from rent.rent_ledger as l
    left join rent.calculation as c on c.period = l.period and c.version = l.calculation_version
    left join rent.accepted_finding as f on f.tenant = l.tenant and f.period = l.period and f.amount_due = l.amount_due
    cross join lateral (
        select rent.next_period(c.calculation_month) as lived_in,
            extract(day from rent.month_start(rent.next_period(c.calculation_month, 2)) - interval '1 day')::integer as days_of_month,
            ((c.results ->> l.tenant)::numeric * 100)::bigint as calculated,
            (select count(*) from jsonb_object_keys(c.roommates)) as persons,
            to_char(l.amount_due / 100.0, case when l.amount_due % 100 = 0 then 'FM999,999,990' else 'FM999,999,990.00' end) as kronor
    ) as m
    left join lateral (
        select g.run_id, g.actor, g.started_at
        from backfill.change_log as h
        join backfill.backfill_log as g on g.run_id = h.run_id
        where h.table_name = 'rent.rent_ledger' and h.business_key = l.tenant || ' / ' || l.period
            and g.status <> 'reversed' and g.mode <> 'reversal'
            and (h.after ->> 'calculation_date') is not null and (h.before ->> 'calculation_date') is null
        order by g.started_at desc limit 1
    ) as w on true
    where l.tenant = p_tenant and l.period = p_period;
$$;

comment on function rent.explain(text, text) is
'One row that says what a tenant was billed for a month, from which inputs, when, by whom and why; no row where nothing was
billed. Example: select explanation from rent.explain(''Adam'', ''2025-02'');';

create function rent.lives_there(p_start date, p_departure date, p_period text, p_lived text) returns boolean
language sql immutable parallel safe
security invoker
set search_path = pg_catalog, pg_temp
as $$
    select (p_start is null or p_start < rent.month_start(rent.next_period(greatest(p_period, p_lived))))
        and (p_departure is null or p_departure >= rent.month_start(least(p_period, p_lived)));
$$;

comment on function rent.lives_there(date, date, text, text) is
'Did a tenant live there on at least one day of the rent month or of the month lived in?';

revoke execute on all functions in schema rent from public;
do $do$
begin
    perform backfill.grant_to('backfill_auditor', 'execute on function rent.explain(text, text)');
    perform backfill.grant_to('backfill_auditor', 'execute on function rent.shares(bigint, integer, jsonb)');
    perform backfill.grant_to('backfill_auditor', 'execute on function rent.lives_there(date, date, text, text)');
    perform backfill.grant_to('backfill_operator', 'execute on function rent.record_calculation(text, jsonb, jsonb, text)');
end;
$do$;
