-- rent.record_calculation(): the forward path that replaces the JSON files.
-- Safe: a function only.
-- depends: 0305_rent_shares

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
    if not coalesce(backfill.is_period(p_period), false) then
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
        raise exception 'calculation of %: a share would be negative (total % ore)', p_period, v_total
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
bills (ore); written = false where the month had been billed before, which stays. Refused (BF022) with the reason.
Example: select * from rent.record_calculation(''2025-06'', ''{"Adam": {}, "Nils": {"days": 10}}'', ''{"el": 1972}'', ''July'');';
