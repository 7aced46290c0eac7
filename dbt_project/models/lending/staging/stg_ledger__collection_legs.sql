select
    payment_id,
    reference,
    line_no,
    account,
    asset,
    amount,
    concat_ws('|', payment_id, line_no) as leg_key
from {{ source('ledger', 'collection_legs') }}
