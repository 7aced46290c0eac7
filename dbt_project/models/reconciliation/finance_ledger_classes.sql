with sides as (
    select
        class,
        'ledger' as side,
        ledger_currency as currency,
        ledger_cents as cents
    from {{ ref('finance_ledger_comparison') }}
    where line is not null
    union all
    select
        class,
        'database' as side,
        db_currency as currency,
        db_cents as cents
    from {{ ref('finance_ledger_comparison') }}
    where invoice_id is not null
)

select
    class,
    side,
    currency,
    count(*) as side_rows,
    sum(cents) as cents,
    concat_ws('|', class, side, currency) as class_key
from sides
group by class, side, currency
