-- Refused while there are backfilled invoices: without the column they would look like the application's own.
do $$
begin
    if exists (select from billing.invoices where origin = 'backfill') then
        raise exception 'billing.invoices holds backfilled invoices: the column origin stays'
            using errcode = 'BF010', hint = 'Reverse the runs that wrote them first: runner log, runner rollback RUN.';
    end if;
    perform backfill.untrack('billing.invoices');
    perform backfill.untrack('billing.check_payments');
end;
$$;
alter table billing.check_payments drop column ocr_invoice_refs;
drop index billing.check_payment_applications_invoice;
drop index billing.invoices_outstanding;
drop index billing.invoices_facility_period;
alter table billing.invoices
drop constraint invoices_backfilled_is_receivable,
drop column origin;
drop index if exists billing.invoices_one_number_per_company;
do $do$
begin
    perform backfill.track('billing.invoices', '{invoice_number}', 'total_cents', p_currency => 'currency', p_void => '{status,void}');
    perform backfill.track('billing.check_payments', '{check_number}', 'amount_cents');
end;
$do$;
