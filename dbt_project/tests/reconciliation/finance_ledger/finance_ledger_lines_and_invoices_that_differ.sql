{{ config(store_failures=true) }}

select
    class,
    differs,
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
from {{ ref('finance_ledger_findings') }}
order by class, line, db_number
