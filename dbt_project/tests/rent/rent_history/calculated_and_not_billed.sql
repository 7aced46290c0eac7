select
    tenant,
    period,
    latest_version as version,
    latest_ore as calculated_ore
from {{ ref('rent_ledger_comparison') }}
where status = 'missing'
order by period, tenant
