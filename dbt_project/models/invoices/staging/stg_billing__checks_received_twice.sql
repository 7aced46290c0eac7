select
    concat_ws(' ', check_payment_id, same_as) as pair_id,
    check_payment_id,
    facility_id,
    check_number,
    received_on,
    currency,
    amount_cents,
    same_as,
    has_paid
from {{ source('billing', 'checks_received_twice') }}
