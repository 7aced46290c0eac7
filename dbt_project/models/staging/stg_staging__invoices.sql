select
    invoice_id,
    company_id,
    invoice_number,
    facility_id,
    period_start,
    period_end,
    sent_at,
    due_date,
    total_cents,
    withdrawn,
    line
from {{ source('staging', 'invoices') }}
