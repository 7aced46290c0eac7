with sides as (
    select
        class,
        'ledger' as side,
        ledger_currency as currency,
        lines as side_rows,
        ledger_cents as cents,
        apart_cents
    from {{ ref('finance_ledger_comparison') }}
    where lines > 0
    union all
    select
        class,
        'database' as side,
        db_currency as currency,
        invoices as side_rows,
        db_cents as cents,
        0 as apart_cents
    from {{ ref('finance_ledger_comparison') }}
    where invoices > 0
)

select
    class,
    side,
    currency,
    sum(side_rows) as side_rows,
    sum(cents) as cents,
    sum(apart_cents) as apart_cents,
    concat_ws('|', class, side, currency) as class_key
from sides
group by class, side, currency
