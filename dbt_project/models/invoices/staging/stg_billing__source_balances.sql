select
    source,
    source_id,
    company_id,
    facility_id,
    customer_id,
    label,
    currency,
    currency_unsaid,
    amount_cents,
    received_on,
    usable,
    applied_cents,
    unapplied_cents
from {{ source('billing', 'source_balances') }}
