select
    id as payment_id,
    mortgage_id,
    source_reference as reference,
    rotessa_customer_id as customer_id,
    amount_cents::bigint as amount_cents,
    status,
    process_date,
    settlement_date,
    origin,
    ledger_transaction_id
from {{ source('lending', 'payments') }}
