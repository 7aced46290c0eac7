select
    invoices.invoice_number,
    sources.source || ' ' || sources.label as applied,
    sources.currency,
    invoices.currency as invoice_currency,
    applications.amount_cents as cents
from {{ ref('stg_billing__applications') }} as applications
inner join {{ ref('stg_billing__source_balances') }} as sources
    on applications.source = sources.source and applications.source_id = sources.source_id
inner join {{ ref('invoice_balances') }} as invoices on applications.invoice_id = invoices.invoice_id
where
    applications.effective_until is null
    and (
        invoices.company_id <> sources.company_id
        or (
            invoices.currency is distinct from sources.currency
            and not (invoices.currency is null and sources.currency_unsaid)
        )
    )
order by invoices.invoice_number
