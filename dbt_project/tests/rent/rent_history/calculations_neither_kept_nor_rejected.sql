select
    landed.file_name,
    landed.period,
    landed.version
from {{ ref('stg_landed__calculations') }} as landed
left join {{ ref('stg_rent__calculations') }} as calculations on landed.file_sha256 = calculations.file_sha256
where
    (
        calculations.file_sha256 is null
        or (calculations.inputs is distinct from landed.document -> 'constants')
        or (calculations.roommates is distinct from landed.document -> 'roommates')
        or (calculations.results is distinct from landed.document -> 'final_results')
        or (calculations.title is distinct from landed.document -> 'metadata' ->> 'title')
        or calculations.period <> landed.period
        or calculations.version <> landed.version
    )
    and not exists (
        select 1 from {{ ref('stg_backfill__rejects') }} as rejects
        where rejects.backfill = 'rent_history' and rejects.source_key = landed.file_name
    )
order by landed.period, landed.version
