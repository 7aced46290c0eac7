{{ config(severity='warn') }}

select
    period,
    bills_ore,
    config_ore,
    difference_ore
from {{ ref('electricity_months') }}
where difference_ore <> 0 and (abs(difference_ore) <= 100 or is_closed)
order by period
