with written as (
    select
        runs.run_id,
        runs.backfill,
        runs.started_at,
        runs.transactions_ago,
        totals.table_name,
        coalesce((totals.counts ->> 'inserted')::bigint, 0) as rows_inserted
    from {{ ref('stg_backfill__runs') }} as runs
    cross join lateral jsonb_each(runs.tables) as totals (table_name, counts)
    where runs.mode = 'apply' and runs.status in ('succeeded', 'partial')
),

-- A run that found nothing due leaves the one before it to be judged.
ranked as (
    select
        *,
        rank() over (partition by backfill, table_name order by started_at desc) as nth
    from written
    where rows_inserted > 0
)

select
    run_id,
    backfill,
    table_name,
    started_at,
    transactions_ago,
    rows_inserted,
    concat_ws('|', run_id, table_name) as last_run_key
from ranked
where nth = 1
