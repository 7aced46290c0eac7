select
    transaction_id as ledger_transaction_id,
    state,
    attempts,
    formance_id,
    code,
    reason,
    sent_at
from {{ source('ledger', 'push') }}
