with sums as (
    select
        side,
        currency,
        sum(side_rows) as class_rows,
        sum(cents) as class_cents,
        0 as total_rows,
        0 as total_cents
    from {{ ref('finance_ledger_classes') }}
    group by side, currency
    union all
    select
        'ledger' as side,
        currency,
        0 as class_rows,
        0 as class_cents,
        count(*) as total_rows,
        sum(amount_cents) as total_cents
    from {{ ref('stg_landed__finance_ledger_lines') }}
    group by currency
    union all
    select
        'database' as side,
        currency,
        0 as class_rows,
        0 as class_cents,
        count(*) as total_rows,
        sum(cents) as total_cents
    from {{ ref('stg_billing__finance_invoices') }}
    group by currency
)

select
    side,
    currency,
    sum(class_rows) as class_rows,
    sum(total_rows) as total_rows,
    sum(class_cents) as class_cents,
    sum(total_cents) as total_cents
from sums
group by side, currency
having
    (sum(class_rows) <> sum(total_rows) or sum(class_cents) <> sum(total_cents))
    -- A part makes no totals, and without a ledger there are no classes.
    and exists (select 1 from {{ ref('stg_landed__finance_ledger_lines') }})
    and {{ 'false' if var('finance_ledger_from', none) or var('finance_ledger_to', none) else 'true' }}
