select
    id as profile_id,
    company_id,
    customer_id,
    currency,
    valid_from,
    valid_to
from {{ source('billing', 'billing_profiles') }}
