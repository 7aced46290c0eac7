-- Charges for historical payments (backfill "charges"), and the balance that they make true.
-- Safe: the one thing it puts on an existing table is a partial unique index on property.charges; it is
-- refused, listing them, while there are two rent charges for one tenant, unit and period.
-- depends: 0006_property_baseline

do $$
declare
    v_count bigint;
    v_listed text;
begin
    select count(*), string_agg(d.named, e'\n' order by d.named) filter (where d.place <= 10)
    into v_count, v_listed
    from (
        select format('%s / %s / %s: %s rent charges', tenant_user_id, unit_id, billing_period, count(*)) as named,
            row_number() over (order by tenant_user_id, unit_id, billing_period) as place
        from property.charges
        where type = 'rent' and billing_period is not null
        group by tenant_user_id, unit_id, billing_period
        having count(*) > 1
    ) as d;
    if v_count > 0 then
        raise exception 'property.charges has more than one rent charge for % tenants, units and periods', v_count
            using errcode = 'BF007', detail = v_listed, hint = 'Decide which one stands, remove the others, and apply again.';
    end if;
end;
$$;

create unique index charges_one_rent_per_period on property.charges (tenant_user_id, unit_id, billing_period)
where type = 'rent';

comment on index property.charges_one_rent_per_period is
'At most one rent charge for a tenant, unit and billing period, also against a concurrent writer.';

create function backfill.is_billing_period(p_period text) returns boolean
language sql immutable parallel safe
return p_period is not null and p_period ~ '^[0-9]{4}-(0[1-9]|1[0-2])$';

comment on function backfill.is_billing_period(text) is 'Is it YYYY-MM, with a month from 01 to 12?';

create view backfill.charges_due as
select
    p.tenant_user_id,
    p.unit_id,
    p.billing_period,
    p.payments,
    coalesce(u.rent_amount_cents::bigint, p.largest_payment_cents) as cents
from (
    select
        tenant_user_id,
        unit_id,
        billing_period,
        count(*) as payments,
        max(amount_cents)::bigint as largest_payment_cents
    from property.payments
    where status in ('succeeded', 'pending') and amount_cents > 0 and tenant_user_id is not null
    group by tenant_user_id, unit_id, billing_period
    having backfill.is_billing_period(min(billing_period))  -- min: looked at once a period, not once a payment
) as p
inner join property.units as u on p.unit_id = u.id
where
    coalesce(u.rent_amount_cents, 0) >= 0
    and not exists (
        select from property.charges as c
        where
            c.type = 'rent' and c.tenant_user_id = p.tenant_user_id and c.unit_id = p.unit_id
            and c.billing_period = p.billing_period
    );

comment on view backfill.charges_due is
'Rent charges still to write: one for each tenant, unit and billing period with a payment and no rent charge.';
comment on column backfill.charges_due.tenant_user_id is 'Who owes it.';
comment on column backfill.charges_due.unit_id is 'For which unit.';
comment on column backfill.charges_due.billing_period is 'YYYY-MM.';
comment on column backfill.charges_due.payments is 'Payments of the period, succeeded or pending.';
comment on column backfill.charges_due.cents is 'The unit''s rent (zero is a rent), or the largest payment where the unit has none.';

create view backfill.charges_rejects as
select
    'property.payments'::text as source,
    p.id::text as source_key,
    null::bigint as line,
    case
        when p.tenant_user_id is null then 'payment has no tenant'
        when u.id is null then format('there is no unit %s', coalesce(p.unit_id::text, 'null'))
        when not backfill.is_billing_period(p.billing_period)
            then format('billing_period is not YYYY-MM: %L', p.billing_period)
        when coalesce(p.amount_cents, 0) <= 0
            then format('amount is not positive: %s cents', coalesce(p.amount_cents::text, 'null'))
        else format('rent of unit %s is negative: %s cents', p.unit_id, u.rent_amount_cents)
    end as reason,
    p.amount_cents::bigint as cents,
    jsonb_build_object(
        'tenant', p.tenant_user_id, 'unit', p.unit_id, 'period', p.billing_period, 'status', p.status
    ) as payload
from property.payments as p
left join property.units as u on p.unit_id = u.id  -- an application's table need not have the foreign key
where
    p.status in ('succeeded', 'pending')
    and (
        p.tenant_user_id is null or u.id is null or not backfill.is_billing_period(p.billing_period)
        or coalesce(p.amount_cents, 0) <= 0 or u.rent_amount_cents < 0
    )
    and not exists (
        select from property.charges as c
        where
            c.type = 'rent' and c.tenant_user_id = p.tenant_user_id and c.unit_id = p.unit_id
            and c.billing_period = p.billing_period
    );

comment on view backfill.charges_rejects is
'Payments without a rent charge from which none can be made: a period that is none, an amount or a rent below what is possible.';
comment on column backfill.charges_rejects.source is 'Always property.payments.';
comment on column backfill.charges_rejects.source_key is 'The payment''s id.';
comment on column backfill.charges_rejects.line is 'Null: the source is a table.';
comment on column backfill.charges_rejects.reason is 'Why, with the value.';
comment on column backfill.charges_rejects.cents is 'Amount of the payment.';
comment on column backfill.charges_rejects.payload is 'Tenant, unit, period and status of the payment.';

create function backfill.charges(p_parameters jsonb default '{}') returns jsonb
language plpgsql volatile
security definer
set search_path = pg_catalog, pg_temp
set jit = off
-- Never a loop over the table that grows meanwhile: it would visit its own new rows.
set enable_nestloop = off
set work_mem = '64MB'
as $$
declare
    v_moved text;
begin
    begin
        insert into property.charges
            (id, tenant_user_id, unit_id, type, description, amount_cents, billing_period, created_by, created_at)
        select backfill.business_id('charge', 'rent', d.tenant_user_id, d.unit_id::text, d.billing_period),
            d.tenant_user_id, d.unit_id, 'rent', 'Rent for ' || d.billing_period, d.cents, d.billing_period, null, now()
        from backfill.charges_due as d
        -- In the order of the index, which is then filled from left to right; bytes compare fastest.
        order by d.tenant_user_id collate "C", d.unit_id, d.billing_period collate "C";
    exception
        -- Somebody else charged one of them since. ON CONFLICT waits for them, at a sixth more time for all rows.
        when unique_violation then
            select string_agg(format('%s (rent of %s / %s / %s)', c.id, d.tenant_user_id, d.unit_id, d.billing_period), e'\n')
            into v_moved
            from backfill.charges_due as d
            inner join property.charges as c
                on c.id = backfill.business_id('charge', 'rent', d.tenant_user_id, d.unit_id::text, d.billing_period);
            if v_moved is not null then
                raise exception 'charges that an earlier run made are no longer the rent of their tenant, unit and period'
                    using errcode = 'BF007', detail = v_moved,
                        hint = 'Make them so again, or delete them: the same charge cannot be made twice.';
            end if;
            insert into property.charges
                (id, tenant_user_id, unit_id, type, description, amount_cents, billing_period, created_by, created_at)
            select backfill.business_id('charge', 'rent', d.tenant_user_id, d.unit_id::text, d.billing_period),
                d.tenant_user_id, d.unit_id, 'rent', 'Rent for ' || d.billing_period, d.cents, d.billing_period, null, now()
            from backfill.charges_due as d
            on conflict (tenant_user_id, unit_id, billing_period) where type = 'rent' do nothing;
    end;
    return '{}';
end;
$$;

comment on function backfill.charges(jsonb) is
'Writes what backfill.charges_due shows. Run it as a run: select * from backfill.run(''charges'');';

create view property.tenant_balance as
select
    tenant_user_id,
    coalesce(sum(charged_cents), 0)::bigint as charged_cents,
    coalesce(sum(paid_cents), 0)::bigint as paid_cents,
    coalesce(sum(pending_cents), 0)::bigint as pending_cents,
    (coalesce(sum(charged_cents), 0) - coalesce(sum(paid_cents), 0))::bigint as balance_cents
from (
    select
        tenant_user_id,
        case when type = 'credit' then -abs(amount_cents) else amount_cents end as charged_cents,
        null::bigint as paid_cents,
        null::bigint as pending_cents
    from property.charges
    union all
    select
        tenant_user_id,
        null as charged_cents,
        case when status = 'succeeded' then amount_cents end as paid_cents,
        case when status = 'pending' then amount_cents end as pending_cents
    from property.payments
    where status in ('succeeded', 'pending')
) as entries
group by tenant_user_id;

comment on view property.tenant_balance is 'What each tenant was charged, paid, and owes. A credit is a negative charge, whichever sign it was stored with.';
comment on column property.tenant_balance.tenant_user_id is 'The tenant.';
comment on column property.tenant_balance.charged_cents is 'Sum of all charges, credits subtracted.';
comment on column property.tenant_balance.paid_cents is 'Sum of the payments that succeeded.';
comment on column property.tenant_balance.pending_cents is 'Sum of the payments under way; not yet subtracted.';
comment on column property.tenant_balance.balance_cents is 'Charged minus paid: positive is owed.';

do $do$
begin
    perform backfill.register(
        'charges', 'charges', 'Rent charges for payments that were taken before charges existed', 100,
        'backfill.charges_due', 'backfill.charges', '{property.charges}', 'backfill.charges_rejects'
    );
end;
$do$;

revoke execute on all functions in schema backfill from public;
do $do$
begin
    perform backfill.grant_to('backfill_auditor', 'select on backfill.charges_due, backfill.charges_rejects');
    perform backfill.grant_to('backfill_auditor', 'execute on function backfill.is_billing_period(text)');
    -- The gates read as whoever runs them.
    perform backfill.grant_to('backfill_auditor', 'usage on schema property');
    perform backfill.grant_to('backfill_auditor',
        'select on property.units, property.payments, property.charges, property.tenant_balance');
end;
$do$;
