-- Billing profiles of customers, the profile on an invoice, and invoices as Finance writes them.
-- Safe: a table or column is created only where it is missing; a new column is nullable and has no default.
-- depends: 0228_billing_grants

do $do$
begin
    perform backfill.create_baseline(
        'billing.billing_profiles',
        $$id uuid primary key default gen_random_uuid(),
        company_id uuid not null references billing.companies (id),
        customer_id uuid not null references billing.customers (id),
        name text not null,
        currency text not null check (currency ~ '^[A-Z]{3}$'),
        valid_from date not null,
        valid_to date,
        check (valid_to >= valid_from)$$,
        '{"id": "uuid", "company_id": "uuid", "customer_id": "uuid", "name": "text", "currency": "text",
          "valid_from": "date", "valid_to": "date"}'
    );

    perform backfill.create_baseline_column('billing.invoices', 'billing_profile_id', 'uuid');

    perform backfill.track('billing.invoices');
    perform backfill.track('billing.billing_profiles', '{customer_id,name}', null);
end;
$do$;

create view billing.finance_invoices as
select
    id as invoice_id,
    company_id,
    invoice_number,
    (coalesce(sent_at, created_at) at time zone 'UTC')::date as entry_date,
    total_cents::bigint as cents,
    currency,
    status,
    voided_on
from billing.invoices;

comment on view billing.finance_invoices is 'Invoices as Finance''s ledger writes them. Grain: one row for each invoice.';
comment on column billing.finance_invoices.invoice_id is 'The invoice.';
comment on column billing.finance_invoices.company_id is 'Its company.';
comment on column billing.finance_invoices.invoice_number is 'Its number, unique within the company.';
comment on column billing.finance_invoices.entry_date is 'Day of issue in UTC; of a draft, the day on which it was made.';
comment on column billing.finance_invoices.cents is 'Total in cents.';
comment on column billing.finance_invoices.currency is 'Three letters; null = not known.';
comment on column billing.finance_invoices.status is 'draft, sent, partial, paid, void.';
comment on column billing.finance_invoices.voided_on is 'Of a void one the day from which it is void; null = always.';
