do $do$
begin
    if exists (select from billing.application_entries) then
        raise exception 'billing.application_entries holds what was applied to invoices: it stays'
            using errcode = 'BF010', hint = 'Reverse the runs that wrote it first: runner log, runner rollback RUN.';
    end if;
    perform backfill.untrack('billing.write_off_tolerances');
    perform backfill.untrack('billing.application_refusals');
    perform backfill.untrack('billing.application_entries');
    perform backfill.untrack('billing.check_payment_applications');
    perform backfill.untrack('billing.check_payments');
    if exists (select from pg_constraint where conrelid = 'billing.check_payments'::regclass
        and conname = 'check_payments_currency_is_known') then
        alter table billing.check_payments drop constraint check_payments_currency_is_known;
    end if;
end;
$do$;
drop view billing.application_rows;
drop index billing.payments_invoice;
drop function billing.day_of(timestamptz);
drop table billing.write_off_tolerances;
drop table billing.application_refusals;
drop table billing.application_entries;
drop function billing.company_currency(uuid);
do $do$
begin
    perform backfill.drop_baseline_column('billing.check_payment_applications', 'run_id');
    perform backfill.drop_baseline_column('billing.check_payment_applications', 'reason');
    perform backfill.drop_baseline_column('billing.check_payment_applications', 'effective_from');
    perform backfill.drop_baseline_column('billing.check_payments', 'returned_on');
    perform backfill.drop_baseline_column('billing.check_payments', 'currency');
    perform backfill.drop_baseline_column('billing.settings', 'currency');
    perform backfill.track('billing.check_payments', '{check_number}', 'amount_cents');
    perform backfill.track('billing.check_payment_applications', '{check_payment_id,invoice_id}', 'amount_cents', 'currency');
end;
$do$;
drop function billing.is_currency(text);
