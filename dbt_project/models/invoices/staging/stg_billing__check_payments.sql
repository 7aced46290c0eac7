select
    id as check_payment_id,
    company_id,
    facility_id,
    check_number,
    received_on,
    amount_cents::bigint as amount_cents
from {{ source('billing', 'check_payments') }}
