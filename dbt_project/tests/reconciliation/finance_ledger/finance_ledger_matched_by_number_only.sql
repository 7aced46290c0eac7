{{ config(severity='warn') }}

select
    line,
    ledger_number,
    ledger_cents as cents
from {{ ref('finance_ledger_comparison') }}
where class = 'matched by number only'
order by line
