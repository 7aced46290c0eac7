select
    id as unit_id,
    rent_amount_cents::bigint as rent_cents,
    age(xmin) as transactions_ago
from {{ source('property', 'units') }}
