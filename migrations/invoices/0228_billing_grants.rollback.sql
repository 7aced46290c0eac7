do $do$
begin
    perform backfill.revoke_from('backfill_auditor', 'usage on schema billing');
    perform backfill.revoke_from('backfill_auditor', 'select on billing.companies, billing.settings, billing.facilities, '
        'billing.contractors, billing.assignments, billing.invoices, billing.invoice_lines, billing.check_payments, '
        'billing.check_payment_applications, billing.interest_accruals, billing.customers, billing.payments, '
        'billing.facility_aliases, billing.check_reference_reviews, billing.application_entries, '
        'billing.application_refusals, billing.write_off_tolerances');
    perform backfill.revoke_from('backfill_auditor', 'select on billing.receivables, billing.check_reference_matches, '
        'billing.check_balances, billing.invoice_faults, billing.application_rows, billing.invoice_balances, '
        'billing.applications, billing.money_sources, billing.source_balances, billing.money_references, '
        'billing.reference_matches, billing.checks_received_twice');
    perform backfill.revoke_from('backfill_auditor',
        'select on staging.invoices, staging.invoice_lines, staging.invoice_documents');
    perform backfill.revoke_from('backfill_auditor', 'select on backfill.invoices_open, backfill.invoice_conflicts, '
        'backfill.invoices_due, backfill.invoices_rejects, backfill.invoice_lines_due');
    perform backfill.revoke_from('backfill_auditor', 'execute on function billing.invoice_ordinal(text), '
        'billing.invoice_number(bigint), billing.assignment_of_week(uuid, uuid, uuid, date), '
        'billing.number_tail(text), billing.number_prefix(text), billing.number_key(text), billing.number_fit(text, text), billing.is_bare_number(text), billing.one_series(uuid), '
        'billing.reference_tokens(text), billing.match_reference(uuid, uuid, text), billing.day_of(timestamptz), billing.amount_text(numeric, text), '
        'billing.is_currency(text), billing.company_currency(uuid), billing.balances_as_of(date, uuid[]), '
        'billing.balances_of_sources(uuid[]), billing.aging(date, text), billing.statement(uuid, date, date), '
        'backfill.invoice_differences(text, staging.invoices, staging.invoices, jsonb, jsonb)');
    perform backfill.revoke_from('backfill_operator', 'execute on function staging.client_key(text), '
        'staging.begin_invoices(), billing.keep_facility_aliases(uuid, jsonb), staging.take_aliases(uuid), '
        'staging.summary_line(text), backfill.staged_differences(staging.invoices, jsonb), '
        'backfill.line_payload(text, uuid, date, numeric, bigint, bigint), '
        'staging.take_invoices(uuid, text, text, text, text, boolean), staging.record_documents(jsonb)');
    perform backfill.revoke_from('backfill_operator', 'execute on function '
        'backfill.backfill_invoice(uuid, uuid, text, date, date, timestamptz, date, bigint, jsonb, text, text), '
        'billing.create_facility_invoice(uuid, uuid, date, date, jsonb), '
        'billing.accrue_overdue_interest(date), billing.accrue_invoice_interest(uuid, date), '
        'billing.allocate_check(uuid, boolean), billing.allocate_checks(uuid[], boolean), billing.unapply_check(uuid), '
        'billing.allocate_on_account(uuid, uuid), billing.apply(uuid, uuid, bigint, text, date), '
        'billing.unapply(uuid, text, date), billing.refuse_application(uuid, uuid, text), '
        'billing.withdraw_refusal(uuid, uuid, text), billing.write_off(uuid, bigint, text, text, date), '
        'billing.return_check(uuid, date, text, bigint), '
        'billing.correct_invoice(uuid, jsonb, text, text), '
        'billing.resend_invoice(uuid, timestamptz, text, text), '
        'billing.void_invoice(uuid, text, text, date), billing.delete_invoice(uuid, text, text, text)');
    perform backfill.revoke_from('backfill_operator', 'execute on function billing.smoke_test()');
end;
$do$;
-- As `create function` leaves them; the rollbacks of the files before drop them.
grant execute on function
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
backfill.backfill_invoice(uuid, uuid, text, date, date, timestamptz, date, bigint, jsonb, text, text),
billing.create_facility_invoice(uuid, uuid, date, date, jsonb),
billing.write_interest(date, uuid),
billing.accrue_overdue_interest(date),
billing.accrue_invoice_interest(uuid, date),
billing.number_tail(text),
billing.number_prefix(text),
billing.is_currency(text),
billing.company_currency(uuid),
billing.day_of(timestamptz),
billing.amount_text(numeric, text),
billing.balances_as_of(date, uuid[]),
billing.balances_of_sources(uuid[]),
billing.aging(date, text),
billing.statement(uuid, date, date),
billing.number_key(text),
billing.number_fit(text, text),
billing.is_bare_number(text),
billing.one_series(uuid),
billing.reference_tokens(text),
billing.match_reference(uuid, uuid, text),
billing.follow_sources(uuid[]),
billing.record_applications(text[], uuid[], uuid[], bigint[], text, date, text),
billing.end_applications(uuid[], text, date),
billing.write_off_room(uuid, text, uuid, integer, bigint),
billing.allocate_group(uuid, uuid, uuid, uuid[]),
billing.allocate_checks(uuid[], boolean),
billing.allocate_check(uuid, boolean),
billing.allocate_on_account(uuid, uuid),
billing.require_reason(text, text),
billing.lock_invoice(uuid),
billing.apply(uuid, uuid, bigint, text, date),
billing.refuse_application(uuid, uuid, text),
billing.withdraw_refusal(uuid, uuid, text),
billing.unapply(uuid, text, date),
billing.write_off(uuid, bigint, text, text, date),
billing.return_check(uuid, date, text, bigint),
billing.unapply_check(uuid),
billing.refuse_second_by_reversal(),
billing.begin_action(text, uuid, text, jsonb),
billing.end_action(boolean, text, billing.invoices),
billing.covered_cents(uuid),
billing.correct_invoice(uuid, jsonb, text, text),
billing.resend_invoice(uuid, timestamptz, text, text),
billing.void_invoice(uuid, text, text, date),
billing.delete_invoice(uuid, text, text, text),
staging.client_key(text),
staging.begin_invoices(),
billing.keep_facility_aliases(uuid, jsonb),
staging.take_aliases(uuid),
staging.summary_line(text),
staging.take_invoices(uuid, text, text, text, text, boolean),
staging.record_documents(jsonb),
billing.smoke_test()
to public;
