{{ config(severity='warn') }}

select
    period,
    bills,
    providers
from {{ ref('electricity_months') }}
where bills > 0 and (bills <> 2 or providers <> 2)
order by period
