with bills as (
    select
        bill_period as period,
        count(*) as bills,
        count(distinct provider) as providers,
        sum(amount_ore)::bigint as bills_ore
    from {{ ref('stg_rent__bills') }}
    group by bill_period
),

config as (
    select
        period,
        value_ore
    from {{ ref('stg_rent__config') }}
    where key = 'el'
)

select
    period,
    coalesce(bills.bills, 0) as bills,
    coalesce(bills.providers, 0) as providers,
    bills.bills_ore,
    config.value_ore as config_ore,
    bills.bills_ore - config.value_ore as difference_ore,
    period in (select closed.period from {{ ref('stg_rent__closed_periods') }} as closed) as is_closed
from bills
full join config using (period) -- noqa: ST07
