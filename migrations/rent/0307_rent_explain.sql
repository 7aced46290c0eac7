-- rent.explain(): why a tenant was billed an amount.
-- Safe: a function only; it reads.
-- depends: 0306_rent_calculation

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
