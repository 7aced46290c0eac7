with applied as (
    select
        run_id,
        started_at,
        coalesce((tables -> 'lending.payments' ->> 'inserted')::bigint, 0) as payments_written
    from {{ ref('stg_backfill__runs') }}
    where backfill = 'lending_payments' and mode = 'apply' and status in ('succeeded', 'partial')
),

wrote as (
    select * from applied
    where payments_written > 0
)

select
    run_id,
    started_at,
    payments_written
from wrote
where started_at = (select max(latest.started_at) from wrote as latest)
