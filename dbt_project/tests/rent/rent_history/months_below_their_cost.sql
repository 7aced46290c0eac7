select
    period,
    billed_ore,
    cost_ore,
    cost_ore - billed_ore as missing_ore
from {{ ref('rent_months') }}
where billed_ore < cost_ore
order by period
