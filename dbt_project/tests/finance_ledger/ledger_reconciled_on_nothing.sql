with ledger as (
    select count(*) as ledger_lines from {{ ref('stg_staging__ledger_lines') }}
),

invoices as (
    select count(*) as invoices from {{ ref('stg_billing__invoice_ledger') }}
),

imports as (
    select count(*) as imports from {{ ref('stg_backfill__runs') }}
    where backfill = 'load ledger' and mode = 'load'
)

select
    ledger.ledger_lines,
    invoices.invoices,
    imports.imports
from ledger
cross join invoices
cross join imports
where
    (ledger.ledger_lines = 0 or invoices.invoices = 0)
    and (imports.imports > 0 or {{ var('require_ledger', false) }})
