select
    transactions.reference,
    transactions.mortgage_number as mortgage,
    transactions.amount_cents as cents,
    transactions.settlement_date,
    transactions.payments,
    transactions.postings_at_its_date
from {{ ref('linked_transactions') }} as transactions
where
    transactions.is_settled and transactions.settlement_date::timestamp at time zone 'UTC' < (select backfill.as_of())
    and (transactions.payments <> 1 or transactions.postings_at_its_date <> 1)
    and not (
        transactions.payments <= 1 and transactions.postings_at_its_date = 0 and transactions.effective_at is null
        and exists (
            select 1 from {{ ref('stg_backfill__rejects') }} as rejects
            where
                rejects.backfill = 'lending_payments'
                and rejects.source_key = transactions.transaction_id::text
        )
    )
order by transactions.reference
