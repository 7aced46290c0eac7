select
    id as charge_id,
    tenant_user_id,
    unit_id,
    billing_period,
    type,
    description,
    created_by,
    amount_cents::bigint as amount_cents
from {{ source('property', 'charges') }}
