-- Only what the baseline added goes, and only while it is empty.
drop view billing.finance_invoices;
do $do$
begin
    perform backfill.untrack(to_regclass('billing.billing_profiles'));
    perform backfill.untrack('billing.invoices');
    perform backfill.drop_baseline_column('billing.invoices', 'billing_profile_id');
    perform backfill.track('billing.invoices', '{invoice_number}', 'total_cents', p_currency => 'currency', p_void => '{status,void}');
    perform backfill.drop_baseline('billing.billing_profiles');
end;
$do$;
