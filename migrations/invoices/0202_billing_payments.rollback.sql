-- Only what the baseline added goes, and only while it is empty.
do $do$
begin
    perform backfill.untrack(to_regclass('billing.payments'));
    perform backfill.untrack(to_regclass('billing.customers'));
    perform backfill.untrack('billing.invoices');
    perform backfill.drop_baseline_column('billing.invoices', 'currency');
    perform backfill.drop_baseline_column('billing.invoices', 'customer_id');
    perform backfill.track('billing.invoices', '{invoice_number}', 'total_cents', p_void => '{status,void}');
    perform backfill.drop_baseline('billing.payments');
    perform backfill.drop_baseline('billing.customers');
end;
$do$;
