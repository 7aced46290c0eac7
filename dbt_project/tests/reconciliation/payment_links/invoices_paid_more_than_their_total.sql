select
    invoice_number,
    currency,
    -uncovered_cents as exceeded_by_cents
from {{ ref('stg_billing__uncovered_invoices') }}
where uncovered_cents < 0
order by invoice_number
