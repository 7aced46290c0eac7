with posted as (
    select count(*) as payments
    from {{ ref('stg_lending__payments') }}
    where ledger_transaction_id is not null and reference like 'rotessa:tx:%'
),

last_run as (
    select
        run_id,
        payments_written
    from {{ ref('last_lending_run') }}
),

seen as (
    select
        'backfill.change_log' as source,
        last_run.payments_written as wanted,
        (
            select count(*) from {{ ref('stg_backfill__changes') }} as changes
            where
                changes.run_id = last_run.run_id and changes.table_name = 'lending.payments'
                and changes.operation = 'INSERT'
        ) as rows_seen
    from last_run
    union all
    select
        'lending.payments' as source,
        last_run.payments_written as wanted,
        posted.payments as rows_seen
    from last_run cross join posted
    union all
    select
        'lending.transactions' as source,
        posted.payments as wanted,
        case
            when exists (select 1 from {{ ref('stg_lending__transactions') }}) then posted.payments
            else 0
        end as rows_seen
    from posted
    union all
    select
        'ledger.postings' as source,
        posted.payments as wanted,
        case
            when exists (select 1 from {{ ref('stg_ledger__postings') }}) then posted.payments
            else 0
        end as rows_seen
    from posted
)

select
    source,
    wanted,
    rows_seen
from seen
where rows_seen < wanted
order by source
