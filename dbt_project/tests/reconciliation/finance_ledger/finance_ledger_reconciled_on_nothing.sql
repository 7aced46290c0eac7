with imports as (
    select count(*) + {{ 1 if var('require_finance_ledger', false) else 0 }} as imports
    from {{ ref('stg_backfill__runs') }}
    where backfill = 'load finance_ledger' and mode = 'load'
)

{{ reconciled_on_nothing(
    wanted='select imports from imports',
    seen={
        'staging.current_finance_ledger': ref('stg_landed__finance_ledger_lines'),
        'billing.finance_invoices': ref('stg_billing__finance_invoices'),
    },
) }}
