select
    invoices.invoice_id,
    invoices.invoice_number,
    facilities.facility,
    invoices.period_start,
    invoices.period_end,
    invoices.status,
    invoices.sent_at,
    invoices.due_date,
    balances.currency,
    invoices.total_cents,
    balances.applied_cents,
    balances.open_cents,
    invoices.pdf_storage_path,
    case
        when invoices.total_cents < 0 then 'Credit'
        when invoices.origin = 'backfill' then 'Historical'
    end as label
from {{ ref('stg_billing__invoices') }} as invoices
left join {{ ref('stg_billing__facilities') }} as facilities on invoices.facility_id = facilities.facility_id
left join {{ ref('invoice_balances') }} as balances on invoices.invoice_id = balances.invoice_id
