select
    period,
    bills_ore,
    config_ore,
    difference_ore
from {{ ref('electricity_months') }}
where abs(difference_ore) > 100 and not is_closed
order by period
