select
    provider,
    bill_date,
    count(*) as bills,
    sum(amount_ore)::bigint as amount_ore
from {{ ref('stg_rent__bills') }}
group by provider, bill_date
having count(*) > 1
order by provider, bill_date
