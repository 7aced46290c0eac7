select
    id as ledger_transaction_id,
    reference,
    effective_at,
    recorded_at,
    reverses
from {{ source('ledger', 'transactions') }}
