-- What grant_to() gave goes.
do $do$
begin
    perform backfill.revoke_from('backfill_auditor', 'select on staging.finance_ledger_line, staging.current_finance_ledger');
    perform backfill.revoke_from('backfill_operator', 'insert on staging.finance_ledger_raw');
    perform backfill.revoke_from('backfill_operator', 'insert (ledger_id, entry_date, description, reference_id, invoice_number, '
        'invoice_id, amount, currency, status, payment_method, paid_at, notes) on staging.finance_ledger_line');
    perform backfill.revoke_from('backfill_operator', 'execute on function staging.begin_plain_finance_ledger(text)');
    perform backfill.revoke_from('backfill_operator', 'execute on function staging.take_plain_finance_ledger(text, bigint)');
    perform backfill.revoke_from('backfill_operator', 'execute on function staging.begin_finance_ledger()');
    perform backfill.revoke_from('backfill_operator', 'execute on function staging.take_finance_ledger(text, text, bigint, bigint)');
    perform backfill.revoke_from('backfill_auditor', 'execute on function staging.begin_comparison()');
    perform backfill.revoke_from('backfill_auditor',
        'execute on function staging.ledger_comparison(text, numeric, date, date, uuid, date)');
    perform backfill.revoke_from('backfill_auditor',
        'execute on function staging.compare_finance_ledger(text, numeric, date, date, uuid, date)');
    perform backfill.revoke_from('backfill_auditor', 'execute on function staging.comparison_columns()');
    perform backfill.revoke_from('backfill_auditor', 'execute on function staging.comparison_rows(bigint)');
    perform backfill.revoke_from('backfill_auditor', 'select on backfill.comparison, backfill.comparison_finding');
    perform backfill.revoke_from('backfill_operator',
        'execute on function backfill.keep_comparison(text, jsonb, jsonb)');
    perform backfill.revoke_from('backfill_auditor', 'execute on function billing.reconciliation_summary()');
    perform backfill.revoke_from('backfill_auditor', 'execute on function billing.reconciliation_samples(integer)');

    perform backfill.revoke_from('backfill_auditor',
        'select on billing.billing_profiles, billing.finance_invoices');
    perform backfill.revoke_from('backfill_auditor',
        'select on billing.profile_candidates, billing._backfill_profiles, backfill.billing_profiles_due, '
        'backfill.billing_profiles_rejects');
    perform backfill.revoke_from('backfill_auditor',
        'select on billing.uncovered_invoices, billing.payment_candidates, billing.payment_review, backfill.payment_links_due');
    perform backfill.revoke_from('backfill_operator', 'execute on function billing.link_payment(uuid, uuid, text)');

    perform backfill.revoke_from('backfill_auditor', 'select on billing.constraint_offenders');
    perform backfill.revoke_from('backfill_operator', 'execute on function billing.validate_constraints()');
    perform backfill.revoke_from('backfill_operator', 'execute on function billing.require_profiles()');
    perform backfill.revoke_from('backfill_auditor', 'execute on function billing.constraints_check(), billing.policies_check()');
    perform backfill.revoke_from('backfill_auditor', 'execute on function billing.policy_tables()');
    perform backfill.revoke_from('billing_service', 'usage on schema billing');
    perform backfill.revoke_from('billing_readonly', 'usage on schema billing');
end;
$do$;
-- As `create function` leaves them; the rollbacks of what is before drop them.
grant execute on function
staging.begin_finance_ledger(),
staging.finance_ledger_fault(staging.finance_ledger_raw),
staging.finance_ledger_rejects(text),
staging.cast_finance_ledger(text, boolean, bigint),
staging.number_finance_ledger(text, bigint),
staging.take_finance_ledger(text, text, bigint, bigint),
staging.begin_plain_finance_ledger(text),
staging.take_plain_finance_ledger(text, bigint),
staging.begin_comparison(),
staging.comparison_differences(boolean, numeric, numeric, numeric, date, date, text, text, text, text),
staging.ledger_parts(text, bigint[], bigint[], text, numeric, numeric),
staging.ledger_comparison(text, numeric, date, date, uuid, date),
staging.compare_finance_ledger(text, numeric, date, date, uuid, date),
staging.comparison_columns(),
staging.comparison_rows(bigint),
staging.require_comparison(),
backfill.keep_comparison(text, jsonb, jsonb),
billing.reconciliation_summary(),
billing.reconciliation_samples(integer),
backfill.billing_profiles(jsonb),
backfill.payment_links(jsonb),
billing.unlinked_payments(timestamptz),
billing.uncovered_now(),
billing.link_payment(uuid, uuid, text),
billing.validate_constraints(),
billing.require_profiles(),
billing.current_company(),
billing.policy_tables(),
billing.prepare_rls(),
billing.enable_rls(),
billing.disable_rls(),
billing.constraints_check(), billing.policies_check()
to public;
