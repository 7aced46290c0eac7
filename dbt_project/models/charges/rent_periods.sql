with periods as (
    select
        tenant_user_id,
        unit_id,
        billing_period,
        case when is_usable then largest_payment_cents end as largest_payment_cents,
        case when is_usable then payments else 0 end as payments,
        case when is_usable then coalesce(payment_cents, 0) else 0 end as payment_cents,
        case when billing_period is not null then rent_charges else 0 end as rent_charges,
        case when billing_period is not null then coalesce(charge_cents, 0) else 0 end as charge_cents
    from {{ ref('entries_by_period') }}
)

select
    tenant_user_id,
    unit_id,
    billing_period,
    largest_payment_cents,
    concat_ws('|', tenant_user_id, unit_id, billing_period) as rent_period_key,
    payments,
    payment_cents,
    rent_charges,
    charge_cents,
    case
        when
            rent_charges = 0 and exists (
                select 1 from {{ ref('stg_property__payments_in_flight') }} as in_flight
                where
                    in_flight.tenant_user_id = periods.tenant_user_id
                    and in_flight.unit_id = periods.unit_id
                    and in_flight.billing_period = periods.billing_period
            ) then 'not settled yet'
        when rent_charges = 0 then 'payment without charge'
        when rent_charges > 1 then 'charged more than once'
        when payments = 0 then 'charged and not paid'
        else 'charged'
    end as status
from periods
where payments > 0 or rent_charges > 0
