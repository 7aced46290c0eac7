select
    shares.tenant,
    landed.period,
    landed.file_name,
    concat_ws(
        ', ',
        case when (ledger.days_stayed is distinct from shares.days) then 'days' end,
        case when (ledger.room_adjustment_ore is distinct from shares.room_adjustment_ore) then 'adjustment' end,
        case
            when (ledger.base_monthly_rent_ore is distinct from landed.base_monthly_rent_ore) then 'base rent'
        end,
        case when (ledger.calculation_title is distinct from calculations.title) then 'title' end,
        case when (ledger.calculation_date is distinct from calculations.calculated_at) then 'date' end
    ) as finding
from {{ ref('stg_landed__calculations') }} as landed
inner join {{ ref('stg_landed__calculation_shares') }} as shares on landed.file_sha256 = shares.file_sha256
inner join {{ ref('stg_rent__calculations') }} as calculations on landed.file_sha256 = calculations.file_sha256
inner join {{ ref('stg_rent__ledger') }} as ledger
    on
        shares.tenant = ledger.tenant
        and landed.period = ledger.period
        and landed.version = ledger.calculation_version
where
    (
        ledger.days_stayed, ledger.room_adjustment_ore, ledger.base_monthly_rent_ore, ledger.calculation_title,
        ledger.calculation_date
    ) is distinct from (
        shares.days, shares.room_adjustment_ore, landed.base_monthly_rent_ore, calculations.title,
        calculations.calculated_at
    )
order by landed.period, shares.tenant
