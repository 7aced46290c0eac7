select
    ledger.id as ledger_id,
    ledger.tenant,
    ledger.period,
    ledger.amount_due::bigint as amount_due_ore,
    ledger.currency,
    ledger.days_stayed,
    ledger.room_adjustment as room_adjustment_ore,
    ledger.base_monthly_rent as base_monthly_rent_ore,
    ledger.calculation_title,
    ledger.calculation_date,
    ledger.calculation_version,
    accepted.reason as accepted_reason
from {{ source('rent', 'rent_ledger') }} as ledger
left join {{ source('rent', 'accepted_finding') }} as accepted
    on
        ledger.tenant = accepted.tenant
        and ledger.period = accepted.period
        and ledger.amount_due = accepted.amount_due
