select
    id as payment_id,
    tenant_user_id,
    unit_id,
    billing_period,
    status,
    amount_cents::bigint as amount_cents,
    age(xmin) as transactions_ago
from {{ source('property', 'payments') }}
