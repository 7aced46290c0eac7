with judged as (
    select
        *,
        concat_ws(
            ', ',
            case when amount_cents is distinct from expected_cents then 'amount is not the ' || basis end,
            case when type <> 'rent' then 'type is ' || type end,
            case
                when (description is distinct from 'Rent for ' || billing_period)
                    then 'description is ' || coalesce(description, 'null')
            end,
            case when created_by is not null then 'created by ' || created_by end
        ) as finding
    from {{ ref('charges_of_last_run') }}
    where status = 'as written' and payments > 0
)

select
    tenant_user_id as tenant,
    unit_id as unit,
    billing_period as period,
    amount_cents as cents,
    expected_cents,
    finding
from judged
where finding <> ''
order by tenant, unit, period
