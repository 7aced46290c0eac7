select
    invoice_number,
    sent_at,
    due_date,
    currency,
    total_cents as cents
from {{ ref('stg_billing__invoices') }}
where origin = 'backfill' and (sent_at is null or due_date is null)
order by invoice_number
