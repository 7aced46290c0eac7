select
    run_id,
    backfill,
    mode,
    status,
    started_at,
    metrics -> 'tables' as tables,
    age(xmin) as transactions_ago
from {{ source('backfill', 'backfill_log') }}
