select
    id as line_id,
    invoice_id,
    line_no,
    amount_cents::bigint as amount_cents
from {{ source('billing', 'invoice_lines') }}
