select
    id as application_id,
    check_payment_id,
    invoice_id,
    amount_cents::bigint as amount_cents
from {{ source('billing', 'check_payment_applications') }}
