with billed as (
    select
        ledger.period,
        max(ledger.calculation_version) as version,
        sum(ledger.amount_due_ore)::bigint as billed_ore,
        -- What a person accepted as it is counts as calculated.
        sum(
            case
                when ledger.accepted_reason is null then 0
                else round((calculations.results ->> ledger.tenant)::numeric * 100) - ledger.amount_due_ore
            end
        )::bigint as accepted_ore
    from {{ ref('stg_rent__ledger') }} as ledger
    left join {{ ref('stg_rent__calculations') }} as calculations
        on ledger.period = calculations.period and ledger.calculation_version = calculations.version
    group by ledger.period
),

chosen as (
    select
        calculations.period,
        calculations.version,
        calculations.inputs,
        calculations.total_ore,
        billed.billed_ore,
        billed.accepted_ore
    from {{ ref('stg_rent__calculations') }} as calculations
    inner join billed
        on calculations.period = billed.period and calculations.version = billed.version
),

keys as (
    select
        key,
        sign
    from (
        values
        ('kallhyra', 1), ('el', 1), ('bredband', 1), ('drift_rakning', 1), ('vattenavgift', 1), ('va', 1),
        ('larm', 1), ('gas', 1), ('saldo_innan', -1), ('extra_in', -1)
    ) as k (key, sign)
),

-- What is not given is the latest earlier value; the quarterly invoice is never carried over.
used as (
    select
        chosen.period,
        keys.key,
        keys.sign,
        coalesce(
            round((chosen.inputs ->> keys.key)::numeric * 100)::bigint,
            (
                select config.value_ore from {{ ref('stg_rent__config') }} as config
                where config.key = keys.key and config.period <= chosen.period and keys.key <> 'drift_rakning'
                order by config.period desc limit 1
            ),
            0
        ) as value_ore
    from chosen
    cross join keys
),

costs as (
    select
        used.period,
        sum(used.sign * used.value_ore)::bigint as cost_ore
    from used
    left join used as quarterly on used.period = quarterly.period and quarterly.key = 'drift_rakning'
    where used.key not in ('vattenavgift', 'va', 'larm') or quarterly.value_ore = 0
    group by used.period
)

select
    chosen.period,
    chosen.version,
    chosen.billed_ore + coalesce(chosen.accepted_ore, 0) as billed_ore,
    coalesce(chosen.total_ore, costs.cost_ore) as cost_ore
from chosen
inner join costs on chosen.period = costs.period
