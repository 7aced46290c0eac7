with taken as (
    select count(*) as bills from {{ ref('stg_landed__bill_lines') }} as lines
    where
        not exists (
            select 1 from {{ ref('stg_backfill__rejects') }} as rejects
            where
                rejects.backfill = 'electricity_bills'
                and rejects.source_key = left(lines.file_sha256, 12) || ' line ' || lines.line
        )
)

{{ reconciled_on_nothing(
    wanted='select bills from taken', seen={'rent.electricity_bills': ref('stg_rent__bills')}
) }}
