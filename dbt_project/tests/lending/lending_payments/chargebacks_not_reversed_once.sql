with reversals as (
    select
        reversing.reverses,
        count(*) as reversals
    from {{ ref('stg_ledger__transactions') }} as reversing
    where reversing.reverses is not null
    group by reversing.reverses
),

-- What is left of a payment's lines when its reversal is added to them.
lines as (
    select
        coalesce(transactions.reverses, transactions.ledger_transaction_id) as ledger_transaction_id,
        postings.account,
        postings.asset,
        sum(postings.amount) as total
    from {{ ref('stg_ledger__transactions') }} as transactions
    inner join {{ ref('stg_ledger__postings') }} as postings
        on transactions.ledger_transaction_id = postings.ledger_transaction_id
    group by
        coalesce(transactions.reverses, transactions.ledger_transaction_id), postings.account, postings.asset
),

left_over as (
    select ledger_transaction_id
    from lines
    where total <> 0
    group by ledger_transaction_id
)

select
    payments.reference,
    seen.status as processor_status,
    payments.status as payment_status,
    coalesce(reversals.reversals, 0) as reversals,
    left_over.ledger_transaction_id is not null as something_left
from {{ ref('stg_lending__payments') }} as payments
inner join {{ ref('stg_lending__transactions') }} as seen on payments.reference = seen.reference
inner join {{ ref('stg_lending__mortgages') }} as mortgages on seen.schedule_id = mortgages.schedule_id
left join reversals on payments.ledger_transaction_id = reversals.reverses
left join left_over on payments.ledger_transaction_id = left_over.ledger_transaction_id
where
    payments.ledger_transaction_id is not null
    and (
        (
            seen.status = 'Chargeback'
            and (
                payments.status <> 'chargeback' or coalesce(reversals.reversals, 0) <> 1
                or left_over.ledger_transaction_id is not null
            )
        )
        or (seen.status <> 'Chargeback' and reversals.reversals > 0)
    )
    and not (
        coalesce(reversals.reversals, 0) = 0
        and exists (
            select 1 from {{ ref('stg_backfill__rejects') }} as rejects
            where rejects.backfill = 'lending_payments' and rejects.source_key = seen.transaction_id::text
        )
    )
order by payments.reference
