select
    tenant_user_id as tenant,
    status,
    balance_cents,
    expected_balance_cents,
    charged_cents,
    expected_charged_cents,
    paid_cents,
    expected_paid_cents,
    pending_cents,
    expected_pending_cents
from {{ ref('tenant_balance_comparison') }}
where status <> 'identical'
order by tenant
