-- Only where a snapshot could be taken: what was rejected as a whole leaves nothing to compare.
select seen.source
from (
    select
        'rent.calculation' as source,
        count(*) as row_count
    from {{ ref('stg_rent__calculations') }}
    union all
    select
        'rent.rent_ledger' as source,
        count(*) as row_count
    from {{ ref('stg_rent__ledger') }}
) as seen
where
    seen.row_count = 0
    and exists (
        select 1 from {{ ref('stg_staging__snapshots') }} as snapshots
        where
            not exists (
                select 1 from {{ ref('stg_backfill__rejects') }} as rejects
                where rejects.backfill = 'rent_history' and rejects.source_key = snapshots.file_name
            )
    )
order by seen.source
