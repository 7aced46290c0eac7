select
    invoice_id,
    company_id,
    invoice_number,
    facility_id,
    period_start,
    period_end,
    sent_at,
    due_date,
    total_cents,
    currency,
    withdrawn,
    line
from {{ source('staging', 'invoices') }} as landed
where
    not exists (
        select 1 from {{ ref('stg_staging__files_in_flight') }} as files
        where files.sha256 = landed.file_sha256
    )
