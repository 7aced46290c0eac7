select
    comparison_key,
    class,
    array_to_string(differs, ', ') as differs,
    line,
    lines,
    ledger_number,
    db_number,
    ledger_cents,
    db_cents,
    ledger_date,
    db_date,
    ledger_status,
    db_status,
    ledger_currency,
    db_currency
from {{ ref('finance_ledger_comparison') }}
where
    class not in ('identical', 'matched by number only', 'no receivable')
