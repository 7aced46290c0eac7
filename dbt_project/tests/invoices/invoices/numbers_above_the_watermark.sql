select
    invoices.invoice_number,
    invoices.origin,
    invoices.number_ordinal,
    settings.next_invoice_number
from {{ ref('stg_billing__invoices') }} as invoices
left join {{ ref('stg_billing__settings') }} as settings on invoices.company_id = settings.company_id
where invoices.number_ordinal >= coalesce(settings.next_invoice_number, 0)
order by invoices.invoice_number
