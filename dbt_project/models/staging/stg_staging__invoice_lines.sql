select
    company_id,
    invoice_number,
    line_no,
    amount_cents,
    concat_ws('|', company_id, invoice_number, line_no) as staged_line_key
from {{ source('staging', 'invoice_lines') }}
