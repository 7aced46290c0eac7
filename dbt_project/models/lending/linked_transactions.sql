with paid as (
    select
        reference,
        count(*) as payments,
        min(payment_id::text) as payment_id,
        min(origin) as origin,
        min(status) as payment_status
    from {{ ref('stg_lending__payments') }}
    group by reference
),

posted as (
    select
        reference,
        count(*) as ledger_transactions,
        min(effective_at) as effective_at,
        min(recorded_at) as recorded_at
    from {{ ref('stg_ledger__transactions') }}
    group by reference
)

select
    seen.transaction_id,
    seen.reference,
    mortgages.mortgage_id,
    mortgages.mortgage_number,
    seen.schedule_id,
    seen.amount_cents,
    seen.status,
    seen.settlement_date,
    seen.is_settled,
    paid.payment_id,
    paid.payment_status,
    posted.effective_at,
    coalesce(paid.payments, 0) as payments,
    case
        when posted.reference is null then 0
        -- Live sync posts when it happens, a backfill at the settlement date.
        when paid.origin = 'backfill' and posted.effective_at <> seen.settlement_date::timestamp at time zone 'UTC'
            then 0
        else posted.ledger_transactions
    end as postings_at_its_date
from {{ ref('stg_lending__transactions') }} as seen
inner join {{ ref('stg_lending__mortgages') }} as mortgages on seen.schedule_id = mortgages.schedule_id
left join paid on seen.reference = paid.reference
left join posted on seen.reference = posted.reference
