with sums as (
    select
        ledger_transaction_id,
        asset,
        sum(amount) as total
    from {{ ref('stg_ledger__postings') }}
    group by ledger_transaction_id, asset
)

select
    transactions.reference,
    sums.asset,
    sums.total
from {{ ref('stg_ledger__transactions') }} as transactions
left join sums on transactions.ledger_transaction_id = sums.ledger_transaction_id
where sums.asset is null or sums.total <> 0
order by transactions.reference, sums.asset
