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
do $$
begin
    drop schema billing;
exception
    when dependent_objects_still_exist then
        raise notice 'schema billing stays: it is not empty';
end;
$$;
