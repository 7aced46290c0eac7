select
    account,
    asset,
    effective_at,
    reference,
    amount,
    balance,
    may_be_negative,
    concat_ws('|', account, asset, transaction_id) as balance_key
from {{ source('ledger', 'running_balance') }}
