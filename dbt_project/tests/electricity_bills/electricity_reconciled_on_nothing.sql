select
    lines.provider,
    lines.bill_date
from {{ ref('stg_staging__bill_lines') }} as lines
where
    not exists (select 1 from {{ ref('stg_rent__bills') }})
    and not exists (
        select 1 from {{ ref('stg_backfill__rejects') }} as rejects
        where
            rejects.backfill = 'electricity_bills'
            and rejects.source_key = left(lines.file_sha256, 12) || ' line ' || lines.line
    )
order by lines.bill_date, lines.provider
