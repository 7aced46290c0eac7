with rejects as (
    select distinct source_key as invoice_number
    from {{ ref('stg_backfill__rejects') }}
    where backfill = 'invoices'
),

backfilled as (
    select * from {{ ref('stg_billing__invoices') }}
    where origin = 'backfill'
)

select
    coalesce(staged.invoice_id, backfilled.invoice_id) as invoice_id,
    coalesce(staged.invoice_number, backfilled.invoice_number) as invoice_number,
    coalesce(staged.currency, backfilled.currency) as currency,
    coalesce(staged.total_cents, backfilled.total_cents) as cents,
    case
        when staged.invoice_id is null then 'unexpected'
        when backfilled.invoice_id is not null then 'created'
        when staged.withdrawn is not null then 'withdrawn'
        when rejects.invoice_number is not null then 'rejected'
        else 'not written'
    end as bucket
from {{ ref('stg_landed__invoices') }} as staged
full join backfilled on staged.invoice_id = backfilled.invoice_id
left join rejects on staged.invoice_number = rejects.invoice_number
