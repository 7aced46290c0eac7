select
    reference,
    effective_at,
    recorded_at
from {{ ref('stg_ledger__transactions') }}
where effective_at > recorded_at
order by reference
