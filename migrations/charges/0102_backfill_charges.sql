-- Charges for historical payments (backfill "charges"): which are due, which payments cannot have one, how they are written.
-- Safe: the one thing it puts on an existing table is a partial unique index on property.charges; it is
-- refused, listing them, while there are two rent charges for one tenant, unit and period.
-- depends: 0101_property_baseline

-- An application's table need not say when a payment was made: then there is no as-of for it.
do $do$
begin
    execute 'create view backfill.charges_in_flight as select p.id, p.tenant_user_id, p.unit_id, p.billing_period from property.payments as p where '
        || case when backfill.settled('property.payments', 'created_at') is null then 'false' else 'p.created_at >= (select backfill.as_of())' end;
end;
$do$;

comment on view backfill.charges_in_flight is
'Payments that were not settled before backfill.as_of(), by created_at: their tenant, unit and period is left out whole. Empty without as-of.';
comment on column backfill.charges_in_flight.id is 'The payment.';
comment on column backfill.charges_in_flight.tenant_user_id is 'Its tenant.';
comment on column backfill.charges_in_flight.unit_id is 'Its unit.';
comment on column backfill.charges_in_flight.billing_period is 'Its period.';

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
    having backfill.is_period(min(billing_period))  -- min: looked at once a period, not once a payment
) as p
inner join property.units as u on p.unit_id = u.id
where
    coalesce(u.rent_amount_cents, 0) >= 0
    and not exists (
        select from property.charges as c
        where
            c.type = 'rent' and c.tenant_user_id = p.tenant_user_id and c.unit_id = p.unit_id
            and c.billing_period = p.billing_period
    )
    and not exists (
        select from backfill.charges_in_flight as f
        where f.tenant_user_id = p.tenant_user_id and f.unit_id = p.unit_id and f.billing_period = p.billing_period
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
        when not backfill.is_period(p.billing_period)
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
        p.tenant_user_id is null or u.id is null or not backfill.is_period(p.billing_period)
        or coalesce(p.amount_cents, 0) <= 0 or u.rent_amount_cents < 0
    )
    and not exists (
        select from property.charges as c
        where
            c.type = 'rent' and c.tenant_user_id = p.tenant_user_id and c.unit_id = p.unit_id
            and c.billing_period = p.billing_period
    )
    and not exists (
        select from backfill.charges_in_flight as f
        where f.id = p.id
    );

comment on view backfill.charges_rejects is
'Payments without a rent charge from which none can be made: a period that is none, an amount or a rent below what is possible.';
comment on column backfill.charges_rejects.source is 'Always property.payments.';
comment on column backfill.charges_rejects.source_key is 'The payment''s id.';
comment on column backfill.charges_rejects.line is 'Null: the source is a table.';
comment on column backfill.charges_rejects.reason is 'Why, with the value.';
comment on column backfill.charges_rejects.cents is 'Amount of the payment.';
comment on column backfill.charges_rejects.payload is 'Tenant, unit, period and status of the payment.';

do $do$
begin
    perform backfill.create_unique_index(
        'charges_one_rent_per_period', 'property.charges', '{tenant_user_id,unit_id,billing_period}', 'type = ''rent''',
        p_message => 'property.charges has more than one rent charge for %s tenants, units and periods',
        p_found => 'count(*) || '' rent charges''',
        p_hint => 'Decide which one stands, remove the others, and apply again.'
    );
end;
$do$;

comment on index property.charges_one_rent_per_period is
'At most one rent charge for a tenant, unit and billing period, also against a concurrent writer.';

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

do $do$
begin
    perform backfill.register(
        'charges', 'charges', 'Rent charges for payments that were taken before charges existed', 100,
        'backfill.charges_due', 'backfill.charges', '{property.charges}', 'backfill.charges_rejects',
        p_settled => backfill.settled('property.payments', 'created_at'), p_dimensions => '{billing_period,tenant_user_id}'
    );
end;
$do$;
