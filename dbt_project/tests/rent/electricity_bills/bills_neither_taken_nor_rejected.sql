select
    lines.provider,
    lines.bill_date,
    lines.line,
    lines.amount_ore,
    bills.amount_ore as kept_ore,
    lines.bill_period,
    bills.bill_period as kept_period
from {{ ref('stg_landed__bill_lines') }} as lines
left join {{ ref('stg_rent__bills') }} as bills
    on lines.provider = bills.provider and lines.bill_date = bills.bill_date
where
    ((bills.amount_ore, bills.bill_period) is distinct from (lines.amount_ore, lines.bill_period))
    and not exists (
        select 1 from {{ ref('stg_backfill__rejects') }} as rejects
        where
            rejects.backfill = 'electricity_bills'
            and rejects.source_key = left(lines.file_sha256, 12) || ' line ' || lines.line
    )
order by lines.bill_date, lines.provider
