select
    payments.payment_id as payment,
    payments.amount_cents as cents,
    payments.currency,
    invoices.invoice_number,
    invoices.currency as invoice_currency
from {{ ref('stg_billing__payments') }} as payments
left join {{ ref('stg_billing__uncovered_invoices') }} as invoices on payments.invoice_id = invoices.invoice_id
where
    payments.invoice_id is not null and payments.status in ('pending', 'succeeded')
    and (
        invoices.invoice_id is null
        or payments.company_id <> invoices.company_id
        or payments.customer_id <> invoices.customer_id
        or (payments.currency is distinct from invoices.currency)
    )
order by invoices.invoice_number, payments.payment_id
