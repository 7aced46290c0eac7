select
    id as payment_id,
    tenant_user_id,
    unit_id,
    billing_period
from {{ source('backfill_charges', 'charges_in_flight') }}
