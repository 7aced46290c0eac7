select
    id as bill_id,
    provider,
    bill_date,
    bill_period,
    amount as amount_ore,
    currency
from {{ source('rent', 'electricity_bills') }}
