select
    tenant_user_id as tenant,
    unit_id as unit,
    billing_period as period,
    amount_cents as cents,
    concat_ws(
        ' and ',
        case when payments = 0 then 'no usable payment' end,
        case when not has_unit then 'no unit' end
    ) as finding
from {{ ref('charges_of_last_run') }}
where status = 'as written' and (payments = 0 or not has_unit)
order by tenant, unit, period
