-- Only what the baseline added goes, and only while it is empty.
drop view billing.finance_invoices;
do $do$
begin
    perform backfill.untrack(to_regclass('billing.billing_profiles'));
    perform backfill.untrack('billing.invoices');
    perform backfill.drop_baseline_column('billing.invoices', 'billing_profile_id');
    perform backfill.track('billing.invoices', '{invoice_number}', 'total_cents', 'currency');
    perform backfill.drop_baseline('billing.billing_profiles');
end;
$do$;
