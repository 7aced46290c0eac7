select
    invoices.invoice_number,
    count(*) as fitting_profiles
from {{ ref('stg_billing__profile_assignments') }} as assignments
inner join {{ ref('stg_billing__profiled_invoices') }} as invoices
    on
        assignments.invoice_id = invoices.invoice_id
        and assignments.billing_profile_id = invoices.billing_profile_id
inner join {{ ref('stg_billing__profiles') }} as profiles
    on
        invoices.company_id = profiles.company_id
        and invoices.customer_id = profiles.customer_id
        and invoices.currency = profiles.currency
        and invoices.issued_on >= profiles.valid_from
        and invoices.issued_on <= coalesce(profiles.valid_to, 'infinity')
group by invoices.invoice_id, invoices.invoice_number
having count(*) > 1
order by invoices.invoice_number
