with last_runs as (
    select
        run_id,
        transactions_ago
    from {{ ref('last_runs') }}
    where backfill = 'charges' and table_name = 'property.charges'
),

images as materialized (
    select
        run_id,
        primary_key,
        amount_after
    from {{ ref('stg_backfill__changes') }}
    where
        -- As a value, the run is looked up in the log; as a join, the whole log would be unpacked.
        run_id = any(array(select last_runs.run_id from last_runs))
        and table_name = 'property.charges'
        and operation = 'INSERT'
),

written as (
    select
        last_runs.run_id,
        last_runs.transactions_ago,
        images.primary_key as id,
        images.amount_after::bigint as amount_cents
    from images
    inner join last_runs on images.run_id = last_runs.run_id
)

select
    written.id as charge_id,
    written.run_id,
    charges.tenant_user_id,
    charges.unit_id,
    charges.billing_period,
    charges.type,
    charges.description,
    charges.created_by,
    charges.amount_cents,
    units.unit_id is not null as has_unit,
    case when periods.is_usable then periods.payments else 0 end as payments,
    coalesce(units.rent_cents, case when periods.is_usable then periods.largest_payment_cents end) as expected_cents,
    case when units.rent_cents is null then 'largest payment' else 'rent of the unit' end as basis,
    case
        when charges.charge_id is null then 'removed since'
        when (charges.amount_cents is distinct from written.amount_cents) then 'changed since'
        -- Lower is later: the rent or a payment was written after the run, which cannot have seen it.
        when least(units.transactions_ago, periods.transactions_ago) < written.transactions_ago
            then 'inputs changed since'
        else 'as written'
    end as status
from written
left join {{ ref('stg_property__charges') }} as charges on written.id = charges.charge_id::text
left join {{ ref('stg_property__units') }} as units on charges.unit_id = units.unit_id
left join {{ ref('entries_by_period') }} as periods
    on
        charges.tenant_user_id = periods.tenant_user_id
        and charges.unit_id = periods.unit_id
        and charges.billing_period = periods.billing_period
