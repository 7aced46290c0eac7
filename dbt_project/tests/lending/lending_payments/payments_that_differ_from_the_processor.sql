select
    payments.reference,
    mortgages.mortgage_number as linked_mortgage,
    payments.mortgage_id as payments_mortgage,
    payments.amount_cents as cents,
    seen.amount_cents as processor_cents,
    payments.settlement_date,
    seen.settlement_date as processor_settlement_date
from {{ ref('stg_lending__payments') }} as payments
inner join {{ ref('stg_lending__transactions') }} as seen on payments.reference = seen.reference
inner join {{ ref('stg_lending__mortgages') }} as mortgages on seen.schedule_id = mortgages.schedule_id
where
    payments.ledger_transaction_id is not null
    and (
        payments.amount_cents <> seen.amount_cents
        or payments.customer_id <> seen.customer_id
        or payments.mortgage_id <> mortgages.mortgage_id
        or (seen.status = 'Approved' and (payments.settlement_date is distinct from seen.settlement_date))
    )
order by payments.reference
