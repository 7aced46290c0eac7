with entries as (
    select
        billing_period,
        0 as rent_charges,
        0 as rent_charge_cents,
        0 as other_charge_cents,
        (status = 'succeeded')::integer as succeeded_payments,
        case when status = 'succeeded' then amount_cents else 0 end as succeeded_cents,
        case when status = 'pending' then amount_cents else 0 end as pending_cents
    from {{ ref('stg_property__payments') }}
    union all
    select
        coalesce(billing_period, 'no period') as billing_period,
        (type = 'rent')::integer as rent_charges,
        case when type = 'rent' then amount_cents else 0 end as rent_charge_cents,
        case type when 'rent' then 0 when 'credit' then -abs(amount_cents) else amount_cents end as other_charge_cents,
        0 as succeeded_payments,
        0 as succeeded_cents,
        0 as pending_cents
    from {{ ref('stg_property__charges') }}
)

select
    billing_period,
    sum(rent_charges)::bigint as rent_charges,
    sum(rent_charge_cents)::bigint as rent_charge_cents,
    sum(other_charge_cents)::bigint as other_charge_cents,
    sum(succeeded_payments)::bigint as succeeded_payments,
    sum(succeeded_cents)::bigint as succeeded_cents,
    sum(pending_cents)::bigint as pending_cents
from entries
group by billing_period
