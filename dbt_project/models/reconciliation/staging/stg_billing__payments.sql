select
    id as payment_id,
    company_id,
    customer_id,
    invoice_id,
    amount_cents,
    currency,
    status
from {{ source('billing', 'payments') }}
