select
    period,
    version,
    title,
    calculated_at,
    inputs,
    roommates,
    results,
    total as total_ore,
    file_sha256,
    period || ' v' || version as calculation_key,
    version = max(version) over (partition by period) as counts
from {{ source('rent', 'calculation') }}
