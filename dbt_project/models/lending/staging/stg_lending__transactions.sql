select
    transaction_id,
    reference,
    customer_id,
    schedule_id,
    amount_cents,
    status,
    process_date,
    settlement_date,
    -- On the status and the date, never on the date alone: Future and Pending rows can carry one.
    status = 'Approved' and settlement_date <= (now() at time zone 'UTC')::date as is_settled
from {{ source('lending', 'transactions') }}
