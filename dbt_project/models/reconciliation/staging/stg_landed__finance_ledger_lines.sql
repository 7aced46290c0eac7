select
    file_sha256,
    line,
    ledger_id,
    invoice_id,
    invoice_number,
    entry_date,
    amount_cents,
    currency,
    status
from {{ source('staging', 'current_finance_ledger') }}
