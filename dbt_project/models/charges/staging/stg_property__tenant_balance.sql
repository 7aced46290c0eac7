select
    tenant_user_id,
    charged_cents::bigint as charged_cents,
    paid_cents::bigint as paid_cents,
    pending_cents::bigint as pending_cents,
    balance_cents::bigint as balance_cents
from {{ source('property', 'tenant_balance') }}
