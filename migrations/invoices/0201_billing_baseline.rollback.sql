-- Only tables that the baseline created go, and only while they are empty.
do $do$
declare
    v_table text;
begin
    foreach v_table in array array[
        'interest_accruals', 'check_payment_applications', 'check_payments', 'invoice_lines', 'invoices',
        'assignments', 'contractors', 'facilities', 'settings', 'companies'
    ] loop
        perform backfill.untrack(to_regclass('billing.' || v_table));
        perform backfill.drop_baseline('billing.' || v_table);
    end loop;
end;
$do$;
do $do$
begin
    perform backfill.drop_baseline_schema('billing');
end;
$do$;
