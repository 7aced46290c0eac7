with findings as (
    select
        'invoice ' || invoice_number as paid,
        currency,
        total_cents as cents,
        rows_cents as applied_cents
    from {{ ref('invoice_balances') }}
    where rows_cents > greatest(total_cents, 0)
    union all
    select
        source || ' ' || label as paid,
        currency,
        amount_cents as cents,
        applied_cents
    from {{ ref('stg_billing__source_balances') }}
    where applied_cents > amount_cents
)

select * from findings
order by paid
