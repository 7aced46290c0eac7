select
    schedule_id as schedule,
    count(*) as mortgages,
    string_agg(mortgage_number, ', ' order by mortgage_number) as listed
from {{ ref('stg_lending__mortgages') }}
where schedule_id is not null
group by schedule_id
having count(*) > 1
order by schedule_id
