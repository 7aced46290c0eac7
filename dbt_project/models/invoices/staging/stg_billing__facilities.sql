select
    id as facility_id,
    company_id,
    name as facility
from {{ source('billing', 'facilities') }}
