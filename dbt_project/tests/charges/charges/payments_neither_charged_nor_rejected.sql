select
    payments.tenant_user_id as tenant,
    payments.unit_id as unit,
    payments.billing_period as period,
    payments.amount_cents as cents,
    payments.bucket as finding,
    payments.payment_id as payment
from {{ ref('rent_payments') }} as payments
where
    payments.bucket not in ('usable', 'not paid', 'not settled yet')
    and not exists (
        select 1 from {{ ref('stg_backfill__rejects') }} as rejects
        where rejects.backfill = 'charges' and rejects.source_key = payments.payment_id::text
    )
    and not exists (
        select 1 from {{ ref('stg_property__charges') }} as charges
        where
            charges.type = 'rent'
            and charges.tenant_user_id = payments.tenant_user_id
            and charges.unit_id = payments.unit_id
            and charges.billing_period = payments.billing_period
    )
order by tenant, unit, period, cents
