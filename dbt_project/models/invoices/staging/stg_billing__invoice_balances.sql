select
    invoice_id,
    issued_on,
    currency,
    checks_cents,
    payments_cents,
    credits_cents,
    write_offs_cents,
    opening_cents,
    given_cents,
    applied_cents,
    applied_cents - opening_cents as rows_cents,
    open_cents
from {{ source('billing', 'invoice_balances') }}
