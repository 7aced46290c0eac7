select
    id as mortgage_id,
    number as mortgage_number,
    rotessa_schedule_id as schedule_id
from {{ source('lending', 'mortgages') }}
