with billed_by as (
    select
        calculations.period,
        calculations.version,
        calculations.counts,
        persons.tenant,
        round(persons.kronor::numeric * 100)::bigint as amount_ore
    from {{ ref('stg_rent__calculations') }} as calculations
    cross join lateral jsonb_each_text(calculations.results) as persons (tenant, kronor)
),

ledger as (
    select * from {{ ref('stg_rent__ledger') }}
),

latest as (
    select * from billed_by
    where counts
)

select
    coalesce(ledger.tenant, latest.tenant) as tenant,
    coalesce(ledger.period, latest.period) as period,
    ledger.amount_due_ore,
    own.amount_ore as calculated_ore,
    latest.amount_ore as latest_ore,
    ledger.calculation_version,
    latest.version as latest_version,
    ledger.accepted_reason,
    concat_ws(' / ', coalesce(ledger.tenant, latest.tenant), coalesce(ledger.period, latest.period)) as ledger_key,
    case
        when ledger.ledger_id is null then 'missing'
        when ledger.accepted_reason is not null then 'accepted'
        when
            ledger.calculation_date is null
            or ledger.room_adjustment_ore is null
            or ledger.base_monthly_rent_ore is null
            or own.amount_ore is null
            then 'unexplained'
        when ledger.amount_due_ore <> own.amount_ore then 'modified'
        when (latest.amount_ore is distinct from ledger.amount_due_ore) then 'superseded'
        else 'identical'
    end as status
from ledger
full join latest on ledger.tenant = latest.tenant and ledger.period = latest.period
left join billed_by as own
    on
        ledger.tenant = own.tenant
        and ledger.period = own.period
        and ledger.calculation_version = own.version
