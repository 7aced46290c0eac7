{{ config(severity='warn') }}

select
    transactions.reference,
    pushed.state,
    pushed.code,
    pushed.reason,
    pushed.attempts,
    pushed.sent_at
from {{ ref('stg_ledger__push') }} as pushed
inner join {{ ref('stg_ledger__transactions') }} as transactions
    on pushed.ledger_transaction_id = transactions.ledger_transaction_id
where pushed.state <> 'confirmed'
order by transactions.reference
