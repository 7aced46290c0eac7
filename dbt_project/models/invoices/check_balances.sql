with applications as (
    select
        check_payment_id,
        sum(amount_cents)::bigint as applied_cents
    from {{ ref('stg_billing__check_payment_applications') }}
    group by check_payment_id
)

select
    checks.check_payment_id,
    checks.check_number,
    checks.facility_id,
    checks.received_on,
    checks.amount_cents,
    coalesce(applications.applied_cents, 0) as applied_cents,
    checks.amount_cents - coalesce(applications.applied_cents, 0) as unapplied_cents
from {{ ref('stg_billing__check_payments') }} as checks
left join applications on checks.check_payment_id = applications.check_payment_id
