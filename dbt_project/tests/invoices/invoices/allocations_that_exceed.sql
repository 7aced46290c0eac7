with findings as (
    select
        'invoice ' || invoice_number as paid,
        total_cents as cents,
        applied_cents
    from {{ ref('invoice_balances') }}
    where applied_cents > total_cents
    union all
    select
        'check ' || check_number as paid,
        amount_cents as cents,
        applied_cents
    from {{ ref('check_balances') }}
    where unapplied_cents < 0
)

select * from findings
order by paid
