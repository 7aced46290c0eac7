with lines as (
    select
        lines.line,
        lines.ledger_id,
        lines.invoice_number,
        lines.entry_date,
        lines.amount_cents,
        lines.currency,
        lines.status,
        matches.invoice_id,
        matches.result
    from {{ ref('stg_landed__finance_ledger_lines') }} as lines
    inner join {{ ref('finance_ledger_matches') }} as matches on lines.line = matches.line
),

both_sides as (
    select
        lines.line,
        lines.ledger_id,
        invoices.invoice_id,
        lines.invoice_number as ledger_number,
        invoices.invoice_number as db_number,
        lines.amount_cents as ledger_cents,
        invoices.cents as db_cents,
        lines.entry_date as ledger_date,
        invoices.entry_date as db_date,
        lines.status as ledger_status,
        invoices.status as db_status,
        lines.currency as ledger_currency,
        invoices.currency as db_currency,
        lines.result
    from lines
    full join {{ ref('stg_billing__finance_invoices') }} as invoices on lines.invoice_id = invoices.invoice_id
)

select
    *,
    case
        when result in ('duplicate', 'unclear') then 'duplicate key'
        when
            line is null
            and db_number in (
                select lines.invoice_number from lines
                where lines.result = 'unclear'
            ) then 'duplicate key'
        when line is null then 'missing in the ledger'
        when invoice_id is null then 'missing in the database'
        when (ledger_currency is distinct from db_currency) then 'currency differs'
        when abs(ledger_cents - db_cents) > {{ var('finance_ledger_tolerance_cents', 0) }} then 'amount differs'
        when (ledger_date is distinct from db_date) then 'date differs'
        when (ledger_status is distinct from db_status) then 'status differs'
        when result = 'number' then 'matched by number only'
        else 'identical'
    end as class,
    concat_ws('|', line, invoice_id) as comparison_key
from both_sides
