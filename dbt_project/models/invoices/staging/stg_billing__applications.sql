select
    id as application_id,
    company_id,
    source,
    source_id,
    invoice_id,
    amount_cents,
    currency,
    effective_from,
    effective_until,
    reason_code,
    linked
from {{ source('billing', 'applications') }}
