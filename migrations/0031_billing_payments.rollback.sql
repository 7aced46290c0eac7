-- Only what the baseline added goes, and only while it is empty.
drop view billing.invoice_ledger;
do $do$
begin
    if exists (select from pg_roles where rolname = 'backfill_auditor') then
        revoke select on billing.customers, billing.billing_profiles, billing.payments from backfill_auditor;
    end if;
    perform backfill.untrack(to_regclass('billing.payments'));
    perform backfill.untrack(to_regclass('billing.billing_profiles'));
    perform backfill.untrack(to_regclass('billing.customers'));
    perform backfill.untrack('billing.invoices');
    perform backfill.drop_baseline_column('billing.invoices', 'billing_profile_id');
    perform backfill.drop_baseline_column('billing.invoices', 'currency');
    perform backfill.drop_baseline_column('billing.invoices', 'customer_id');
    perform backfill.track('billing.invoices', '{invoice_number}', 'total_cents');
    perform backfill.drop_baseline('billing.payments');
    perform backfill.drop_baseline('billing.billing_profiles');
    perform backfill.drop_baseline('billing.customers');
end;
$do$;
drop function backfill.drop_baseline_column(text, text);
drop function backfill.create_baseline_column(text, text, text, text);
