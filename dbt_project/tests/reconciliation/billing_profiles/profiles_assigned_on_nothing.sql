with wrote as (
    select run_id from {{ ref('stg_backfill__runs') }}
    where
        backfill = 'billing_profiles' and mode = 'apply' and status in ('succeeded', 'partial')
        and (tables -> 'billing.invoices' ->> 'updated')::bigint > 0
),

assigned as (
    select distinct wrote.run_id from wrote
    inner join {{ ref('stg_billing__profile_assignments') }} as assignments on wrote.run_id = assignments.run_id
)

{{ reconciled_on_nothing(
    wanted='select count(*) from wrote', seen={'billing._backfill_profiles': 'select count(*) from assigned'}
) }}
