select
    tenant,
    period,
    amount_due_ore,
    calculated_ore,
    amount_due_ore - calculated_ore as difference_ore
from {{ ref('rent_ledger_comparison') }}
where status = 'modified'
order by period, tenant
