select
    seen.reference,
    seen.status as processor_status,
    seen.settlement_date,
    seen.amount_cents as cents
from {{ ref('stg_lending__transactions') }} as seen
inner join {{ ref('stg_ledger__transactions') }} as posted on seen.reference = posted.reference
where not seen.is_settled and seen.status <> 'Chargeback'
order by seen.reference
