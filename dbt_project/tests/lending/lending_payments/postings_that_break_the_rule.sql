with written as (
    select
        payments.payment_id,
        postings.line_no,
        postings.account,
        postings.asset,
        postings.amount
    from {{ ref('stg_lending__payments') }} as payments
    inner join {{ ref('stg_ledger__postings') }} as postings
        on payments.ledger_transaction_id = postings.ledger_transaction_id
),

wanted as (
    select
        legs.payment_id,
        legs.line_no,
        legs.account,
        legs.asset,
        legs.amount
    from {{ ref('stg_ledger__collection_legs') }} as legs
    inner join {{ ref('stg_lending__payments') }} as payments on legs.payment_id = payments.payment_id
    where payments.ledger_transaction_id is not null
)

select
    payments.reference,
    written.account,
    written.amount,
    wanted.account as wanted_account,
    wanted.amount as wanted_amount,
    coalesce(written.line_no, wanted.line_no) as line_no
from written
full outer join wanted
    on
        written.payment_id = wanted.payment_id and written.line_no = wanted.line_no
        and written.account = wanted.account and written.asset = wanted.asset and written.amount = wanted.amount
inner join {{ ref('stg_lending__payments') }} as payments
    on payments.payment_id = coalesce(written.payment_id, wanted.payment_id)
where written.payment_id is null or wanted.payment_id is null
order by payments.reference, line_no
