select
    id as invoice_id,
    company_id,
    customer_id,
    invoice_number,
    currency,
    billing_profile_id,
    total_cents,
    (coalesce(sent_at, created_at) at time zone 'UTC')::date as issued_on
from {{ source('billing', 'profiled_invoices') }}
