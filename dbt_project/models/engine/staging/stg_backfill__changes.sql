select
    run_id,
    table_name,
    operation,
    primary_key,
    amount_after,
    currency_after,
    before,
    after,
    concat_ws('|', run_id, table_name, statement, pack, row_no) as change_key
from {{ source('backfill', 'change_log') }}
