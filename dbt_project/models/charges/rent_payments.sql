select
    payments.payment_id,
    payments.tenant_user_id,
    payments.unit_id,
    payments.billing_period,
    payments.amount_cents,
    payments.transactions_ago,
    case
        when in_flight.payment_id is not null then 'not settled yet'
        when coalesce(payments.status not in ('succeeded', 'pending'), true) then 'not paid'
        when payments.tenant_user_id is null then 'tenant is unknown'
        when units.unit_id is null then 'unit is unknown'
        when coalesce(payments.billing_period !~ '^[0-9]{4}-(0[1-9]|1[0-2])$', true) then 'period is not YYYY-MM'
        when coalesce(payments.amount_cents, 0) <= 0 then 'amount is not positive'
        when units.rent_cents < 0 then 'rent of the unit is negative'
        else 'usable'
    end as bucket
from {{ ref('stg_property__payments') }} as payments
left join {{ ref('stg_property__units') }} as units on payments.unit_id = units.unit_id
left join {{ ref('stg_property__payments_in_flight') }} as in_flight on payments.payment_id = in_flight.payment_id
