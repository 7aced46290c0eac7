select
    checks.check_payment_id,
    checks.check_number,
    checks.facility_id,
    checks.received_on,
    balances.currency,
    balances.amount_cents,
    balances.applied_cents,
    balances.unapplied_cents
from {{ ref('stg_billing__check_payments') }} as checks
inner join {{ ref('stg_billing__source_balances') }} as balances
    on checks.check_payment_id = balances.source_id and balances.source = 'check'
