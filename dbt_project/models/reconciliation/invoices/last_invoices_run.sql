with applied as (
    select
        run_id,
        started_at,
        coalesce((tables -> 'billing.invoices' ->> 'inserted')::bigint, 0) as invoices_written
    from {{ ref('stg_backfill__runs') }}
    where backfill = 'invoices' and mode = 'apply' and status in ('running', 'succeeded', 'partial')
)

select
    run_id,
    started_at,
    invoices_written
from applied
where invoices_written > 0
order by started_at desc, run_id asc
limit 1
