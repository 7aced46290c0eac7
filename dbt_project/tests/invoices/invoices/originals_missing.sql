{{ config(severity='warn') }}

select
    invoice_number,
    status,
    currency,
    total_cents as cents
from {{ ref('stg_billing__invoices') }}
where origin = 'backfill' and status <> 'void' and pdf_storage_path is null
order by invoice_number
