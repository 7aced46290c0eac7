select
    tenant_user_id as tenant,
    unit_id as unit,
    billing_period as period,
    rent_charges,
    charge_cents as cents
from {{ ref('rent_periods') }}
where rent_charges > 1
order by tenant, unit, period
