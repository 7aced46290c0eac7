-- Where an invoice came from, and what the reading of a check found on it.
-- Safe: billing.invoices gets the column origin (constant default: no rewrite), two CHECKs that 0204 validates, where
-- writers go on meanwhile, and three indexes; billing.check_payments gets ocr_invoice_refs. Refused, listing
-- them, while two invoices of one company carry the same number.
-- depends: 0202_billing_payments

do $do$
begin
    perform backfill.create_unique_index(
        'invoices_one_number_per_company', 'billing.invoices', '{company_id,invoice_number}',
        p_message => 'billing.invoices has numbers that more than one invoice of a company carries',
        p_found => 'count(*) || '' invoices''',
        p_hint => 'Renumber all but one of each, and apply again.',
        p_unless_there => true
    );
end;
$do$;

alter table billing.invoices
add column origin text not null default 'app',
add constraint invoices_origin_check check (origin in ('app', 'backfill')) not valid,
-- A receivable or a credit from before the application: issued, due, and never overpaid.
add constraint invoices_backfilled_is_receivable check (
    origin <> 'backfill' or (
        status <> 'draft' and sent_at is not null and due_date is not null
        and total_cents <> 0 and amount_paid_cents between 0 and greatest(total_cents, 0)
    )
) not valid;

comment on column billing.invoices.origin is
'app: issued by the application; backfill: issued by hand before it. A backfilled invoice bears no interest, fee or notification.';

create index invoices_facility_period on billing.invoices (company_id, facility_id, period_start, period_end);
comment on index billing.invoices_facility_period is 'Finds a second active invoice of a facility and period.';

create index invoices_outstanding on billing.invoices (company_id, facility_id, due_date)
where status in ('sent', 'partial');
comment on index billing.invoices_outstanding is 'Oldest due first, for the allocation of checks.';

create index check_payment_applications_invoice on billing.check_payment_applications (invoice_id);
comment on index billing.check_payment_applications_invoice is 'What was paid on an invoice.';

alter table billing.check_payments add column ocr_invoice_refs text[] not null default '{}';
comment on column billing.check_payments.ocr_invoice_refs is
'Invoice numbers as they were read on the check; billing.allocate_check pays those that fit first.';

do $do$
begin
    perform backfill.track('billing.invoices');
    perform backfill.track('billing.check_payments');
end;
$do$;
