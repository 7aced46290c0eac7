select
    file_sha256,
    tenant,
    days,
    room_adjustment as room_adjustment_ore,
    amount as amount_ore,
    file_sha256 || ' ' || tenant as share_key
from {{ source('staging', 'rent_history_share') }} as landed
where
    not exists (
        select 1 from {{ ref('stg_staging__files_in_flight') }} as files
        where files.sha256 = landed.file_sha256
    )
