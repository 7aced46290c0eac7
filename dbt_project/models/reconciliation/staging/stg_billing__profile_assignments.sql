select
    run_id,
    invoice_id,
    billing_profile_id,
    concat_ws('|', run_id, invoice_id) as assignment_key
from {{ source('billing', '_backfill_profiles') }}
