-- What was rejected as a whole leaves nothing to compare.
with taken as (
    select count(*) as calculations from {{ ref('stg_landed__calculations') }} as landed
    where
        not exists (
            select 1 from {{ ref('stg_backfill__rejects') }} as rejects
            where rejects.backfill = 'rent_history' and rejects.source_key = landed.file_name
        )
)

{{ reconciled_on_nothing(
    wanted='select calculations from taken',
    seen={'rent.calculation': ref('stg_rent__calculations'), 'rent.rent_ledger': ref('stg_rent__ledger')},
) }}
