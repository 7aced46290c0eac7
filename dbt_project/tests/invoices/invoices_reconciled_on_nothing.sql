with seen as (
    select
        'backfill.change_log' as source,
        count(*) as rows_seen
    from {{ ref('stg_backfill__changes') }} as changes
    inner join {{ ref('last_invoices_run') }} as last_run on changes.run_id = last_run.run_id
    where changes.table_name = 'billing.invoices'
    union all
    -- For the application's tables it is enough that they are not empty: rows may rightly go after a run.
    select
        'billing.invoices' as source,
        case when exists (select 1 from {{ ref('stg_billing__invoices') }}) then null else 0 end as rows_seen
    union all
    select
        'billing.invoice_lines' as source,
        case when exists (select 1 from {{ ref('stg_billing__invoice_lines') }}) then null else 0 end as rows_seen
    union all
    select
        'staging.invoices' as source,
        case when exists (select 1 from {{ ref('stg_staging__invoices') }}) then null else 0 end as rows_seen
)

select
    seen.source,
    last_run.run_id as run,
    last_run.invoices_written,
    seen.rows_seen
from seen
cross join {{ ref('last_invoices_run') }} as last_run
where seen.rows_seen < last_run.invoices_written
order by seen.source
