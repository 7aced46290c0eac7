{{ config(severity='warn') }}

with unpaid as (
    select
        tenant_user_id,
        unit_id,
        billing_period
    from {{ ref('entries_by_period') }}
    where payments_of_any_status = 0 and rent_charges > 0
),

findings as (
    select
        charges.tenant_user_id as tenant,
        charges.unit_id as unit,
        charges.billing_period as period,
        charges.amount_cents as cents,
        case
            when units.unit_id is null then 'no unit'
            when
                charges.type = 'rent'
                and charges.created_by is null
                and charges.description = 'Rent for ' || charges.billing_period
                and (unpaid.unit_id is not null or charges.tenant_user_id is null)
                then 'no payment of any status'
        end as finding
    from {{ ref('stg_property__charges') }} as charges
    left join {{ ref('stg_property__units') }} as units on charges.unit_id = units.unit_id
    left join unpaid
        on
            charges.tenant_user_id = unpaid.tenant_user_id
            and charges.unit_id = unpaid.unit_id
            and charges.billing_period = unpaid.billing_period
)

select * from findings
where finding is not null
order by tenant, unit, period
