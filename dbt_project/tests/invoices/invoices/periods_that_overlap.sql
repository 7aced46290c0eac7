{{ config(severity='warn') }}

with stretches as (
    select
        facility_id,
        invoice_number,
        origin,
        period_start,
        period_end,
        max(period_end) over before as covered_until,
        lag(invoice_number) over by_start as before_number,
        lag(period_start) over by_start as before_start,
        lag(period_end) over by_start as before_end
    from {{ ref('stg_billing__invoices') }}
    where status <> 'void' and total_cents > 0
    window
        by_start as (partition by company_id, facility_id order by period_start, period_end, invoice_number),
        before as (
            partition by company_id, facility_id
            order by period_start, period_end, invoice_number
            rows between unbounded preceding and 1 preceding
        )
)

select
    facilities.facility,
    stretches.invoice_number,
    stretches.period_start,
    stretches.period_end,
    stretches.covered_until,
    stretches.before_number
from stretches
left join {{ ref('stg_billing__facilities') }} as facilities on stretches.facility_id = facilities.facility_id
where
    stretches.covered_until >= stretches.period_start and stretches.origin = 'backfill'
    -- The same period is the error second_active_invoice_for_a_period.
    and (stretches.before_start, stretches.before_end) <> (stretches.period_start, stretches.period_end)
order by facilities.facility, stretches.period_start
