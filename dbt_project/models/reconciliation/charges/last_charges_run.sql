with applied as (
    select
        run_id,
        started_at,
        transactions_ago,
        coalesce((tables -> 'property.charges' ->> 'inserted')::bigint, 0) as charges_written
    from {{ ref('stg_backfill__runs') }}
    where backfill = 'charges' and mode = 'apply' and status in ('running', 'succeeded', 'partial')
),

-- A run that found nothing due leaves the one before it to be judged.
wrote as (
    select * from applied
    where charges_written > 0
)

select
    run_id,
    started_at,
    transactions_ago,
    charges_written
from wrote
where started_at = (select max(latest.started_at) from wrote as latest)
