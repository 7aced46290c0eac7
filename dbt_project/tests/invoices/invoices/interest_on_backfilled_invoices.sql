select
    invoices.invoice_number,
    accruals.accrued_through,
    invoices.currency,
    accruals.amount_cents as cents
from {{ ref('stg_billing__interest_accruals') }} as accruals
inner join {{ ref('stg_billing__invoices') }} as invoices on accruals.invoice_id = invoices.invoice_id
where invoices.origin = 'backfill'
order by invoices.invoice_number, accruals.accrued_through
