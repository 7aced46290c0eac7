select
    invoice_number,
    currency,
    total_cents as cents,
    line_cents
from {{ ref('invoice_balances') }}
where origin = 'backfill' and total_cents <> line_cents
order by invoice_number
