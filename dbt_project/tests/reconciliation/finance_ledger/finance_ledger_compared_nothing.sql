with sides as (
    select
        count(*) filter (where side = 'ledger') as of_ledger,
        count(*) filter (where side = 'database') as of_database
    from {{ ref('finance_ledger_classes') }}
)

select
    of_ledger,
    of_database
from sides
where
    (of_ledger = 0 or of_database = 0)
    -- Without a ledger there is nothing to compare with; see the test finance_ledger_reconciled_on_nothing.
    and exists (select 1 from {{ ref('stg_landed__finance_ledger_lines') }})
