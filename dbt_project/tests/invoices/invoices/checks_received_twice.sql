{{ config(severity='warn') }}

select
    facilities.facility,
    checks.check_number,
    checks.received_on,
    checks.currency,
    checks.amount_cents as cents,
    case when checks.has_paid then 'both have paid' else 'it pays nothing by itself' end as finding
from {{ ref('stg_billing__checks_received_twice') }} as checks
left join {{ ref('stg_billing__facilities') }} as facilities on checks.facility_id = facilities.facility_id
order by facilities.facility, checks.check_number
