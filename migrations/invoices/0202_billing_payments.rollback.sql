-- Only what the baseline added goes, and only while it is empty.
do $do$
begin
    perform backfill.untrack(to_regclass('billing.payments'));
    perform backfill.untrack(to_regclass('billing.customers'));
    perform backfill.untrack('billing.invoices');
    perform backfill.untrack('billing.invoice_lines');
    perform backfill.untrack('billing.interest_accruals');
    perform backfill.untrack('billing.check_payment_applications');
    perform backfill.drop_baseline_column('billing.check_payment_applications', 'currency');
    perform backfill.drop_baseline_column('billing.interest_accruals', 'currency');
    perform backfill.drop_baseline_column('billing.invoice_lines', 'currency');
    perform backfill.track('billing.invoice_lines', '{invoice_id,line_no}', 'amount_cents');
    perform backfill.track('billing.interest_accruals', '{invoice_id,accrued_through}', 'amount_cents');
    perform backfill.track('billing.check_payment_applications', '{check_payment_id,invoice_id}', 'amount_cents');
    perform backfill.drop_baseline_column('billing.invoices', 'voided_on');
    perform backfill.drop_baseline_column('billing.invoices', 'last_sent_at');
    perform backfill.drop_baseline_column('billing.invoices', 'currency');
    perform backfill.drop_baseline_column('billing.invoices', 'customer_id');
    perform backfill.track('billing.invoices', '{invoice_number}', 'total_cents', p_void => '{status,void}');
    perform backfill.drop_baseline('billing.payments');
    perform backfill.drop_baseline('billing.customers');
end;
$do$;
