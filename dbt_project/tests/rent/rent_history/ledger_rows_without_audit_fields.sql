select
    tenant,
    period,
    amount_due_ore,
    calculation_version
from {{ ref('rent_ledger_comparison') }}
where status = 'unexplained'
order by period, tenant
