select
    run_id,
    backfill,
    source,
    source_key,
    reason,
    amount,
    currency,
    concat_ws('|', run_id, backfill, source, source_key, reason) as reject_key
from {{ source('backfill', 'reject') }}
