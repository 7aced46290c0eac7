{%- set tolerance = var('finance_ledger_tolerance', 0) -%}
{%- set most = var('finance_ledger_tolerance_total', tolerance) | string | replace("'", "''") -%}
select
    currency,
    sum(apart_cents) as apart_cents,
    '{{ most }}' as most
from {{ ref('finance_ledger_classes') }}
where apart_cents > 0
group by currency
having sum(apart_cents) > '{{ most }}'::numeric * backfill.minor_factor(currency)
