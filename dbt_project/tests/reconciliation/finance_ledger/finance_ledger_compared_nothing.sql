with sums as (
    select
        coalesce(sum(lines), 0) as lines,
        coalesce(sum(invoices), 0) as invoices
    from {{ ref('finance_ledger_comparison') }}
)

select
    lines,
    invoices
from sums
where
    (lines = 0 or invoices = 0)
    -- Without a ledger there is nothing to compare with; see the test finance_ledger_reconciled_on_nothing.
    and exists (select 1 from {{ ref('stg_landed__finance_ledger_lines') }})
