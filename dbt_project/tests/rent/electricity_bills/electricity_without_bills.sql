{{ config(severity='warn') }}

select
    period,
    config_ore
from {{ ref('electricity_months') }}
where bills = 0
order by period
