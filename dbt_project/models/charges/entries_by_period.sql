-- Payments and charges in one pass: most gates count them by tenant, unit and period, and each would read both again.
with entries as (
    select
        tenant_user_id,
        unit_id,
        billing_period,
        1 as payment,
        case when status in ('succeeded', 'pending') and amount_cents > 0 then amount_cents end as payment_cents,
        transactions_ago,
        null::integer as charge,
        null::integer as rent_charge,
        null::bigint as rent_charge_cents
    from {{ ref('stg_property__payments') }}
    union all
    select
        tenant_user_id,
        unit_id,
        billing_period,
        null as payment,
        null as payment_cents,
        null as transactions_ago,
        1 as charge,
        case when type = 'rent' then 1 end as rent_charge,
        case when type = 'rent' then amount_cents end as rent_charge_cents
    from {{ ref('stg_property__charges') }}
),

periods as (
    select
        tenant_user_id,
        unit_id,
        billing_period,
        count(payment) as payments_of_any_status,
        count(payment_cents) as payments,
        max(payment_cents) as largest_payment_cents,
        sum(payment_cents)::bigint as payment_cents,
        min(transactions_ago) as transactions_ago,
        count(charge) as charges,
        count(rent_charge) as rent_charges,
        sum(rent_charge_cents)::bigint as charge_cents
    from entries
    group by tenant_user_id, unit_id, billing_period
)

select
    periods.tenant_user_id,
    periods.unit_id,
    periods.billing_period,
    -- Of a row, in which null differs from nothing.
    row(periods.tenant_user_id, periods.unit_id, periods.billing_period)::text as entries_key,
    periods.payments_of_any_status,
    periods.payments,
    periods.largest_payment_cents,
    periods.payment_cents,
    periods.transactions_ago,
    periods.charges,
    periods.rent_charges,
    periods.charge_cents,
    -- What depends on the three alone is asked once a period, not once a payment.
    units.unit_id is not null
    and periods.tenant_user_id is not null
    and coalesce(units.rent_cents, 0) >= 0
    and coalesce(periods.billing_period ~ '^[0-9]{4}-(0[1-9]|1[0-2])$', false) as is_usable
from periods
left join {{ ref('stg_property__units') }} as units on periods.unit_id = units.unit_id
