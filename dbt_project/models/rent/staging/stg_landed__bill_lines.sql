select
    file_sha256,
    line,
    provider,
    bill_date,
    amount as amount_ore,
    file_sha256 || ' ' || line as line_key,
    -- The issue's rule, written a second time: the gate must not trust the function that it checks.
    to_char(
        case when extract(day from bill_date) < 25 then bill_date - interval '1 month' else bill_date::timestamp end,
        'YYYY-MM'
    ) as bill_period
from {{ source('staging', 'electricity_bill') }} as landed
where
    not exists (
        select 1 from {{ ref('stg_staging__files_in_flight') }} as files
        where files.sha256 = landed.file_sha256
    )
