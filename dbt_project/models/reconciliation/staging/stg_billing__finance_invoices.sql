select
    invoice_id,
    invoice_number,
    entry_date,
    cents,
    currency,
    status
from {{ source('billing', 'finance_invoices') }}
