select
    mortgages.mortgage_number as mortgage,
    to_char(payments.settlement_date, 'YYYY-MM') as month,
    concat_ws('|', payments.mortgage_id, to_char(payments.settlement_date, 'YYYY-MM')) as mortgage_month_key,
    count(*) filter (where payments.status = 'approved') as payments,
    coalesce(sum(payments.amount_cents) filter (where payments.status = 'approved'), 0)::bigint as cents,
    coalesce(sum(payments.amount_cents) filter (where payments.status = 'chargeback'), 0)::bigint as chargeback_cents
from {{ ref('stg_lending__payments') }} as payments
inner join {{ ref('stg_lending__mortgages') }} as mortgages on payments.mortgage_id = mortgages.mortgage_id
where payments.ledger_transaction_id is not null
group by mortgages.mortgage_number, payments.mortgage_id, to_char(payments.settlement_date, 'YYYY-MM')
