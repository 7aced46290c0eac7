select
    period,
    bills,
    bills_ore
from {{ ref('electricity_months') }}
where bills > 0 and config_ore is null and not is_closed
order by period
