select
    sha256 as file_sha256,
    run_id
from {{ source('staging', 'file') }}
where loader = 'finance_ledger'
