select
    id as invoice_id,
    company_id,
    facility_id,
    invoice_number,
    period_start,
    period_end,
    status,
    origin,
    sent_at,
    due_date,
    currency,
    total_cents::bigint as total_cents,
    amount_paid_cents::bigint as amount_paid_cents,
    pdf_storage_path,
    substring(invoice_number from '([0-9]{1,15})[^0-9]*$')::bigint as number_ordinal
from {{ source('billing', 'invoices') }}
