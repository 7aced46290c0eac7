with lines as (
    select
        invoice_id,
        sum(amount_cents)::bigint as line_cents
    from {{ ref('stg_billing__invoice_lines') }}
    group by invoice_id
),

-- A link that the application made itself is not always counted in what the invoice says is paid.
links as (
    select
        invoice_id,
        sum(amount_cents)::bigint as linked_cents
    from {{ ref('stg_billing__applications') }}
    where linked
    group by invoice_id
)

select
    invoices.invoice_id,
    invoices.company_id,
    invoices.facility_id,
    invoices.invoice_number,
    invoices.origin,
    invoices.status,
    invoices.due_date,
    balances.currency,
    invoices.total_cents,
    invoices.amount_paid_cents,
    coalesce(lines.line_cents, 0) as line_cents,
    balances.checks_cents,
    balances.payments_cents,
    balances.credits_cents,
    balances.write_offs_cents,
    balances.opening_cents,
    balances.given_cents,
    balances.rows_cents,
    coalesce(links.linked_cents, 0) as linked_cents,
    balances.applied_cents,
    balances.open_cents
from {{ ref('stg_billing__invoices') }} as invoices
inner join {{ ref('stg_billing__invoice_balances') }} as balances on invoices.invoice_id = balances.invoice_id
left join lines on invoices.invoice_id = lines.invoice_id
left join links on invoices.invoice_id = links.invoice_id
