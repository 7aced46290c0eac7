select
    invoice_id,
    company_id,
    customer_id,
    invoice_number,
    currency,
    uncovered_cents
from {{ source('billing', 'uncovered_invoices') }}
