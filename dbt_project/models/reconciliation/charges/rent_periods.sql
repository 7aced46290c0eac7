with payments as (
    select
        tenant_user_id,
        unit_id,
        billing_period,
        count(*) as payments,
        max(amount_cents) as largest_payment_cents,
        sum(amount_cents)::bigint as payment_cents
    from {{ ref('rent_payments') }}
    where bucket = 'usable'
    group by tenant_user_id, unit_id, billing_period
),

charges as (
    select
        tenant_user_id,
        unit_id,
        billing_period,
        count(*) as rent_charges,
        sum(amount_cents)::bigint as charge_cents
    from {{ ref('stg_property__charges') }}
    where type = 'rent' and billing_period is not null
    group by tenant_user_id, unit_id, billing_period
)

select
    tenant_user_id,
    unit_id,
    billing_period,
    payments.largest_payment_cents,
    concat_ws('|', tenant_user_id, unit_id, billing_period) as rent_period_key,
    coalesce(payments.payments, 0) as payments,
    coalesce(payments.payment_cents, 0) as payment_cents,
    coalesce(charges.rent_charges, 0) as rent_charges,
    coalesce(charges.charge_cents, 0) as charge_cents,
    case
        when charges.rent_charges is null then 'payment without charge'
        when charges.rent_charges > 1 then 'charged more than once'
        when payments.payments is null then 'charged and not paid'
        else 'charged'
    end as status
from payments
full join charges using (tenant_user_id, unit_id, billing_period) -- noqa: ST07
