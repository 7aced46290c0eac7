with sides as (
    select
        'ledger' as side,
        coalesce(sum(ledger_rows), 0) as class_rows,
        coalesce(sum(ledger_cents), 0) as class_cents
    from {{ ref('finance_ledger_classes') }}
    union all
    select
        'database' as side,
        coalesce(sum(db_rows), 0) as class_rows,
        coalesce(sum(db_cents), 0) as class_cents
    from {{ ref('finance_ledger_classes') }}
),

totals as (
    select
        'ledger' as side,
        count(*) as total_rows,
        coalesce(sum(amount_cents), 0) as total_cents
    from {{ ref('stg_landed__finance_ledger_lines') }}
    union all
    select
        'database' as side,
        count(*) as total_rows,
        coalesce(sum(cents), 0) as total_cents
    from {{ ref('stg_billing__finance_invoices') }}
)

select
    totals.side,
    sides.class_rows,
    totals.total_rows,
    sides.class_cents,
    totals.total_cents
from totals
inner join sides on totals.side = sides.side
where sides.class_rows <> totals.total_rows or sides.class_cents <> totals.total_cents
