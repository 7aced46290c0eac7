select
    class,
    count(line) as ledger_rows,
    coalesce(sum(ledger_cents), 0) as ledger_cents,
    count(invoice_id) as db_rows,
    coalesce(sum(db_cents), 0) as db_cents
from {{ ref('finance_ledger_comparison') }}
group by class
