select
    tenant_user_id as tenant,
    unit_id as unit,
    billing_period as period,
    payments,
    largest_payment_cents
from {{ ref('rent_periods') }}
where status = 'payment without charge'
order by tenant, unit, period
