select
    transaction_id as ledger_transaction_id,
    line_no,
    account,
    asset,
    amount,
    concat_ws('|', transaction_id, line_no) as posting_key
from {{ source('ledger', 'postings') }}
