with entries as (
    select
        tenant_user_id,
        case when type = 'credit' then -abs(amount_cents) else amount_cents end as charged_cents,
        0 as paid_cents,
        0 as pending_cents
    from {{ ref('stg_property__charges') }}
    union all
    select
        tenant_user_id,
        0 as charged_cents,
        case when status = 'succeeded' then amount_cents else 0 end as paid_cents,
        case when status = 'pending' then amount_cents else 0 end as pending_cents
    from {{ ref('stg_property__payments') }}
    -- Whoever has tried to pay, and no more, has no balance.
    where status in ('succeeded', 'pending')
),

expected as (
    select
        tenant_user_id,
        sum(charged_cents)::bigint as charged_cents,
        sum(paid_cents)::bigint as paid_cents,
        sum(pending_cents)::bigint as pending_cents
    from entries
    group by tenant_user_id
)

select
    tenant_user_id,
    balance.charged_cents,
    balance.paid_cents,
    balance.pending_cents,
    balance.balance_cents,
    expected.charged_cents as expected_charged_cents,
    expected.paid_cents as expected_paid_cents,
    expected.pending_cents as expected_pending_cents,
    expected.charged_cents - expected.paid_cents as expected_balance_cents,
    case
        when balance.charged_cents is null then 'missing'
        when expected.charged_cents is null then 'unexpected'
        when (balance.charged_cents, balance.paid_cents, balance.pending_cents, balance.balance_cents)
            = (
                expected.charged_cents, expected.paid_cents, expected.pending_cents,
                expected.charged_cents - expected.paid_cents
            ) then 'identical'
        else 'modified'
    end as status
from expected
full join {{ ref('stg_property__tenant_balance') }} as balance using (tenant_user_id) -- noqa: ST07
