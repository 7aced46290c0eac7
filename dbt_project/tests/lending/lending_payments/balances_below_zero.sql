select
    account,
    asset,
    effective_at,
    reference,
    amount,
    balance
from {{ ref('stg_ledger__running_balance') }}
where balance < 0 and not may_be_negative
order by account, asset, effective_at, reference
