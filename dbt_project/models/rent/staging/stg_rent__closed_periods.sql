select
    period,
    reason,
    closed_at
from {{ source('rent', 'closed_period') }}
