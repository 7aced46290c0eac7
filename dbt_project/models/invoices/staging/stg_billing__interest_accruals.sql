select
    id as accrual_id,
    invoice_id,
    accrued_through,
    amount_cents::bigint as amount_cents
from {{ source('billing', 'interest_accruals') }}
