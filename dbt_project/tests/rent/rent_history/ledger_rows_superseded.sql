{{ config(severity='warn') }}

select
    tenant,
    period,
    amount_due_ore,
    calculation_version,
    latest_version,
    latest_ore
from {{ ref('rent_ledger_comparison') }}
where status = 'superseded'
order by period, tenant
