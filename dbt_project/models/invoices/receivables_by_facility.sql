with open_invoices as (
    select
        facility_id,
        currency,
        origin,
        open_cents,
        coalesce((now() at time zone 'UTC')::date - due_date, 0) as days_overdue
    from {{ ref('invoice_balances') }}
    where open_cents <> 0 and status in ('sent', 'partial')
)

select
    concat_ws(' ', open_invoices.facility_id, open_invoices.currency) as receivable_id,
    open_invoices.facility_id,
    facilities.facility,
    open_invoices.currency,
    count(*) as invoices,
    sum(open_invoices.open_cents)::bigint as open_cents,
    coalesce(sum(open_invoices.open_cents) filter (where open_invoices.days_overdue <= 0), 0)::bigint as not_due_cents,
    coalesce(sum(open_invoices.open_cents) filter (where open_invoices.days_overdue between 1 and 30), 0)::bigint
        as days_1_to_30_cents,
    coalesce(sum(open_invoices.open_cents) filter (where open_invoices.days_overdue between 31 and 60), 0)::bigint
        as days_31_to_60_cents,
    coalesce(sum(open_invoices.open_cents) filter (where open_invoices.days_overdue between 61 and 90), 0)::bigint
        as days_61_to_90_cents,
    coalesce(sum(open_invoices.open_cents) filter (where open_invoices.days_overdue > 90), 0)::bigint
        as days_over_90_cents,
    coalesce(sum(open_invoices.open_cents) filter (where open_invoices.origin = 'backfill'), 0)::bigint
        as historical_cents
from open_invoices
inner join {{ ref('stg_billing__facilities') }} as facilities on open_invoices.facility_id = facilities.facility_id
group by open_invoices.facility_id, facilities.facility, open_invoices.currency
