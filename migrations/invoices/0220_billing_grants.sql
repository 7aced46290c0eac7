-- Who may do what in the system invoices: an auditor reads, an operator loads and works through functions, nobody else.
-- Safe: rights only, and on nothing of the schema billing but the system's own functions and the tables that it names.
-- depends: 0219_billing_smoke_test

revoke execute on function
billing.invoice_ordinal(text),
billing.invoice_number(bigint),
billing.assignment_of_week(uuid, uuid, uuid, date),
billing.line_faults(uuid, jsonb),
billing.lines_of(jsonb),
staging.refuse_unstaging(),
backfill.invoice_differences(text, staging.invoices, staging.invoices, jsonb, jsonb),
backfill.raise_watermark(uuid, bigint),
backfill.write_invoices(uuid, text),
backfill.invoices(jsonb),
backfill.line_payload(text, uuid, date, numeric, bigint, bigint),
backfill.invoice_payload_lines(jsonb),
backfill.staged_differences(staging.invoices, jsonb),
backfill.stage_invoice(staging.invoices, jsonb),
backfill.backfill_invoice(uuid, uuid, text, date, date, timestamptz, date, bigint, jsonb, text),
billing.create_facility_invoice(uuid, uuid, date, date, jsonb),
billing.write_interest(date, uuid),
billing.accrue_overdue_interest(date),
billing.accrue_invoice_interest(uuid, date),
billing.number_tail(text),
billing.number_prefix(text),
billing.allocate_facility(uuid, uuid, uuid[]),
billing.allocate_checks(uuid[]),
billing.allocate_check(uuid),
billing.unapply_check(uuid),
billing.refuse_second_by_reversal(),
billing.begin_action(text, uuid, text, jsonb),
billing.end_action(boolean, text, billing.invoices),
billing.covered_cents(uuid),
billing.correct_invoice(uuid, jsonb, text, text),
billing.resend_invoice(uuid, timestamptz, text, date, text),
billing.void_invoice(uuid, text, text),
billing.delete_invoice(uuid, text, text, text),
staging.client_key(text),
staging.begin_invoices(),
billing.keep_facility_aliases(uuid, jsonb),
staging.take_aliases(uuid),
staging.summary_line(text),
staging.take_invoices(uuid, text, text, text, text, boolean),
staging.record_documents(jsonb),
billing.smoke_test()
from public;

do $do$
begin
    -- The gates read as whoever runs them.
    perform backfill.grant_to('backfill_auditor', 'usage on schema billing');
    perform backfill.grant_to('backfill_auditor', 'select on billing.companies, billing.settings, billing.facilities, '
        'billing.contractors, billing.assignments, billing.invoices, billing.invoice_lines, billing.check_payments, '
        'billing.check_payment_applications, billing.interest_accruals, billing.customers, billing.payments, '
        'billing.facility_aliases, billing.check_reference_reviews');
    perform backfill.grant_to('backfill_auditor', 'select on billing.receivables, billing.check_reference_matches, '
        'billing.check_balances, billing.invoice_faults');
    perform backfill.grant_to('backfill_auditor',
        'select on staging.invoices, staging.invoice_lines, staging.invoice_documents');
    perform backfill.grant_to('backfill_auditor', 'select on backfill.invoices_open, backfill.invoice_conflicts, '
        'backfill.invoices_due, backfill.invoices_rejects, backfill.invoice_lines_due');
    -- What a view calls, it calls in the name of whoever reads it.
    perform backfill.grant_to('backfill_auditor', 'execute on function billing.invoice_ordinal(text), '
        'billing.invoice_number(bigint), billing.assignment_of_week(uuid, uuid, uuid, date), '
        'billing.number_tail(text), billing.number_prefix(text), '
        'backfill.invoice_differences(text, staging.invoices, staging.invoices, jsonb, jsonb)');

    -- Loading a catalogue and its documents.
    perform backfill.grant_to('backfill_operator', 'execute on function staging.client_key(text), '
        'staging.begin_invoices(), billing.keep_facility_aliases(uuid, jsonb), staging.take_aliases(uuid), '
        'staging.summary_line(text), backfill.staged_differences(staging.invoices, jsonb), '
        'backfill.line_payload(text, uuid, date, numeric, bigint, bigint), '
        'staging.take_invoices(uuid, text, text, text, text, boolean), staging.record_documents(jsonb)');
    -- Invoices, interest and checks, one by one: each of these functions writes with its owner's rights.
    perform backfill.grant_to('backfill_operator', 'execute on function '
        'backfill.backfill_invoice(uuid, uuid, text, date, date, timestamptz, date, bigint, jsonb, text), '
        'billing.create_facility_invoice(uuid, uuid, date, date, jsonb), '
        'billing.accrue_overdue_interest(date), billing.accrue_invoice_interest(uuid, date), '
        'billing.allocate_check(uuid), billing.allocate_checks(uuid[]), billing.unapply_check(uuid), '
        'billing.correct_invoice(uuid, jsonb, text, text), '
        'billing.resend_invoice(uuid, timestamptz, text, date, text), '
        'billing.void_invoice(uuid, text, text), billing.delete_invoice(uuid, text, text, text)');
    perform backfill.grant_to('backfill_operator', 'execute on function billing.smoke_test()');
end;
$do$;
