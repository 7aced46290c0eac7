with lines as (
    select
        invoice_id,
        sum(amount_cents)::bigint as line_cents
    from {{ ref('stg_billing__invoice_lines') }}
    group by invoice_id
),

applications as (
    select
        invoice_id,
        sum(amount_cents)::bigint as applied_cents
    from {{ ref('stg_billing__check_payment_applications') }}
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
    invoices.total_cents,
    invoices.amount_paid_cents,
    coalesce(lines.line_cents, 0) as line_cents,
    coalesce(applications.applied_cents, 0) as applied_cents,
    case
        when invoices.status in ('draft', 'void') then 0
        else invoices.total_cents - invoices.amount_paid_cents
    end as open_cents
from {{ ref('stg_billing__invoices') }} as invoices
left join lines on invoices.invoice_id = lines.invoice_id
left join applications on invoices.invoice_id = applications.invoice_id
