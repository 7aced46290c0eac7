select
    invoices.invoice_number,
    invoices.currency,
    invoices.issued_on,
    profiles.currency as profile_currency,
    profiles.valid_from,
    profiles.valid_to
from {{ ref('stg_billing__profile_assignments') }} as assignments
inner join {{ ref('stg_billing__profiled_invoices') }} as invoices
    on
        assignments.invoice_id = invoices.invoice_id
        and assignments.billing_profile_id = invoices.billing_profile_id
left join {{ ref('stg_billing__profiles') }} as profiles on invoices.billing_profile_id = profiles.profile_id
where
    (
        profiles.company_id = invoices.company_id
        and profiles.customer_id = invoices.customer_id
        and profiles.currency = invoices.currency
        and invoices.issued_on between profiles.valid_from and coalesce(profiles.valid_to, 'infinity')
    ) is not true
order by invoices.invoice_number
