select
    run_id as run,
    tables
from {{ ref('stg_backfill__runs') }} as runs
where
    backfill = 'billing_profiles' and mode = 'apply' and status in ('succeeded', 'partial')
    and (tables -> 'billing.invoices' ->> 'updated')::bigint > 0
    and not exists (
        select 1 from {{ ref('stg_billing__profile_assignments') }} as assignments
        where assignments.run_id = runs.run_id
    )
