select
    snapshots.file_name,
    snapshots.period,
    snapshots.version
from {{ ref('stg_staging__snapshots') }} as snapshots
left join {{ ref('stg_rent__calculations') }} as calculations on snapshots.file_sha256 = calculations.file_sha256
where
    (
        calculations.file_sha256 is null
        or (calculations.inputs is distinct from snapshots.document -> 'constants')
        or (calculations.roommates is distinct from snapshots.document -> 'roommates')
        or (calculations.results is distinct from snapshots.document -> 'final_results')
        or (calculations.title is distinct from snapshots.document -> 'metadata' ->> 'title')
        or calculations.period <> snapshots.period
        or calculations.version <> snapshots.version
    )
    and not exists (
        select 1 from {{ ref('stg_backfill__rejects') }} as rejects
        where rejects.backfill = 'rent_history' and rejects.source_key = snapshots.file_name
    )
order by snapshots.period, snapshots.version
