select
    file_sha256,
    file_name,
    period,
    version,
    document,
    remarks,
    base_monthly_rent as base_monthly_rent_ore,
    version = max(version) over (partition by period) as is_highest
from {{ source('staging', 'rent_history') }} as landed
where
    not exists (
        select 1 from {{ ref('stg_staging__files_in_flight') }} as files
        where files.sha256 = landed.file_sha256
    )
