{%- set asked = [] -%}
{%- for name in ('finance_ledger_from', 'finance_ledger_to') -%}
    {%- set day = var(name, none) | string | replace("'", "''") -%}
    {%- do asked.append("'" ~ day ~ "'::date" if var(name, none) else 'null::date') -%}
{%- endfor -%}
with ledger as (
    select min(lines.file_sha256) as file_sha256
    from {{ ref('stg_landed__finance_ledger_lines') }} as lines
    having min(lines.file_sha256) is not null  -- without a ledger nothing is compared
)

select
    comparison.class,
    comparison.differs,
    comparison.line,
    comparison.lines,
    comparison.invoices,
    comparison.invoice_id,
    comparison.ledger_number,
    comparison.db_number,
    comparison.ledger_cents,
    comparison.db_cents,
    comparison.apart_cents,
    comparison.ledger_date,
    comparison.db_date,
    comparison.ledger_status,
    comparison.db_status,
    comparison.ledger_currency,
    comparison.db_currency,
    concat_ws(
        '|', comparison.class, comparison.line, comparison.invoice_id,
        comparison.ledger_currency, comparison.db_currency
    ) as comparison_key
from ledger
cross join lateral staging.ledger_comparison(
    ledger.file_sha256,
    '{{ var("finance_ledger_tolerance", 0) | string | replace("'", "''") }}'::numeric,
    {{ asked | join(', ') }}
) as comparison
