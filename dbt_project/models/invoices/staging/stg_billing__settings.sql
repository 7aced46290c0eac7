select
    company_id,
    next_invoice_number
from {{ source('billing', 'settings') }}
