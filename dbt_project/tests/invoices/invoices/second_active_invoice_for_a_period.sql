with periods as (
    select
        facility_id,
        period_start,
        period_end,
        string_agg(invoice_number, ', ' order by invoice_number) as invoice_numbers
    from {{ ref('stg_billing__invoices') }}
    where status <> 'void' and total_cents > 0
    group by company_id, facility_id, period_start, period_end
    having count(*) > 1 and bool_or(origin = 'backfill')
)

select
    facilities.facility,
    periods.period_start,
    periods.period_end,
    periods.invoice_numbers
from periods
left join {{ ref('stg_billing__facilities') }} as facilities on periods.facility_id = facilities.facility_id
order by facilities.facility, periods.period_start
