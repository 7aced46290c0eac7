select
    id as config_id,
    key,
    period,
    value::bigint as value_ore
from {{ source('rent', 'rent_config') }}
