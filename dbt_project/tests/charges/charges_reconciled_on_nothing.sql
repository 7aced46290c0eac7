with last_run as (
    select sum(charges_written)::bigint as charges_written
    from {{ ref('last_charges_run') }}
),

seen as (
    select
        'backfill.change_log' as source,
        count(*) as rows_seen
    from {{ ref('stg_backfill__changes') }}
    where
        run_id = any(array(select last_run.run_id from {{ ref('last_charges_run') }} as last_run))
        and table_name = 'property.charges'
        and operation = 'INSERT'
    union all
    -- For the applications' tables it is enough that they are not empty: rows may rightly go after a run.
    select
        'property.units' as source,
        case when exists (select 1 from {{ ref('stg_property__units') }}) then null else 0 end as rows_seen
    union all
    select
        'property.payments' as source,
        case when exists (select 1 from {{ ref('stg_property__payments') }}) then null else 0 end as rows_seen
    union all
    select
        'property.charges' as source,
        case when exists (select 1 from {{ ref('stg_property__charges') }}) then null else 0 end as rows_seen
    union all
    select
        'property.tenant_balance' as source,
        case when exists (select 1 from {{ ref('stg_property__tenant_balance') }}) then null else 0 end as rows_seen
)

select
    seen.source,
    last_run.charges_written,
    seen.rows_seen
from seen
cross join last_run
where seen.rows_seen < last_run.charges_written
order by seen.source
