with posted as (
    select count(*) as payments from {{ ref('stg_lending__payments') }}
    where ledger_transaction_id is not null and reference like 'rotessa:tx:%'
)

{{ reconciled_on_nothing(
    wanted=rows_inserted('lending_payments', 'lending.payments'),
    seen={
        'backfill.change_log': rows_captured('lending_payments', 'lending.payments'),
        'lending.payments': 'select payments from posted',
    },
) }}
union all
{{ reconciled_on_nothing(
    wanted='select payments from posted',
    seen={
        'lending.transactions': ref('stg_lending__transactions'),
        'ledger.postings': ref('stg_ledger__postings'),
    },
) }}
