-- What grant_to() gave goes.
do $do$
begin
    perform backfill.revoke_from('backfill_auditor', 'usage on schema lending');
    perform backfill.revoke_from('backfill_auditor', 'select on lending.borrowers, lending.mortgages, lending.payments');
    perform backfill.revoke_from('backfill_auditor', 'select on staging.rotessa_fetch, staging.rotessa_customer, '
        'staging.rotessa_schedule, staging.rotessa_transaction, staging.rotessa_version, lending.schedules, lending.transactions');
    perform backfill.revoke_from('backfill_auditor', 'execute on function lending.schedule_status(bigint)');
    perform backfill.revoke_from('backfill_operator', 'execute on function staging.begin_rotessa_fetch(date, date, integer)');
    perform backfill.revoke_from('backfill_operator', 'execute on function staging.take_rotessa_customers(uuid, jsonb)');
    perform backfill.revoke_from('backfill_operator', 'execute on function staging.take_rotessa_schedules(uuid, bigint, jsonb)');
    perform backfill.revoke_from('backfill_operator', 'execute on function staging.take_rotessa_transactions(uuid, integer, jsonb)');
    perform backfill.revoke_from('backfill_operator', 'execute on function staging.finish_rotessa_fetch(uuid)');
    perform backfill.revoke_from('backfill_operator', 'execute on function staging.take_rotessa_history(bigint, jsonb)');

    perform backfill.revoke_from('backfill_auditor', 'usage on schema ledger');
    perform backfill.revoke_from('backfill_auditor', 'select on ledger.accounts, ledger.transactions, ledger.postings, '
        'ledger.closed_period, ledger.collection_legs, ledger.running_balance');
    perform backfill.revoke_from('backfill_auditor', 'execute on function ledger.balances(timestamptz)');
    perform backfill.revoke_from('backfill_auditor', 'execute on function ledger.transaction_id(text)');
    perform backfill.revoke_from('backfill_operator', 'execute on function ledger.close_period(text, text)');
    perform backfill.revoke_from('backfill_operator', 'execute on function ledger.record_payment_collection(uuid, timestamptz)');
    perform backfill.revoke_from('backfill_operator', 'execute on function ledger.record_payment_chargeback(uuid)');

    perform backfill.revoke_from('backfill_auditor', 'select on lending.link_suggestions, lending.unlinked_schedules, '
        'lending.mortgages_without_schedule, lending.runs');
    perform backfill.revoke_from('backfill_auditor', 'execute on function lending.mortgage(text)');
    perform backfill.revoke_from('lending_admin', 'execute on function lending.link_schedule(bigint, text, text)');
    perform backfill.revoke_from('lending_admin', 'execute on function lending.unlink_schedule(bigint, text, boolean)');

    perform backfill.revoke_from('backfill_auditor', 'select on lending.payments_due, backfill.lending_payments_due');
    perform backfill.revoke_from('backfill_operator', 'execute on function lending.begin_payment_backfill(bigint, text)');
    perform backfill.revoke_from('backfill_operator', 'execute on function lending.step_payment_backfill(uuid, integer)');
    perform backfill.revoke_from('backfill_operator', 'execute on function lending.finish_payment_backfill(uuid)');

    perform backfill.revoke_from('backfill_auditor', 'select on ledger.push, ledger.formance_body, ledger.push_state, staging.formance_transaction');
    perform backfill.revoke_from('backfill_auditor', 'execute on function ledger.verify_findings(uuid)');
    perform backfill.revoke_from('backfill_operator', 'execute on function ledger.push_batch(integer, boolean, timestamptz)');
    perform backfill.revoke_from('backfill_operator', 'execute on function ledger.push_confirmed(uuid[], text[])');
    perform backfill.revoke_from('backfill_operator', 'execute on function ledger.push_refused(uuid, text, text, boolean)');
    perform backfill.revoke_from('backfill_operator', 'execute on function ledger.begin_verify()');
    perform backfill.revoke_from('backfill_operator', 'execute on function ledger.take_formance_transactions(uuid, jsonb)');
end;
$do$;
-- As `create function` leaves them; the rollbacks of what is before drop them.
grant execute on function
staging.begin_rotessa_fetch(date, date, integer),
staging.step_rotessa(uuid, jsonb),
staging.count_rotessa(uuid, text, bigint, bigint, bigint, bigint),
staging.finish_rotessa_fetch(uuid),
staging.take_rotessa_history(bigint, jsonb),
staging.rotessa_fault(text, text, text, text, text, text),
staging.take_rotessa_customers(uuid, jsonb),
staging.take_rotessa_schedules(uuid, bigint, jsonb),
staging.take_rotessa_transactions(uuid, integer, jsonb),
lending.schedule_status(bigint),
ledger.refuse_rewrite(),
ledger.queue_unbalanced(),
ledger.queue_empty(),
ledger.refuse_unbalanced(),
ledger.refuse_closed(),
ledger.lock_periods(),
ledger.close_period(text, text),
ledger.transaction_id(text),
ledger.record_payment_collection(uuid, timestamptz),
ledger.record_payment_chargeback(uuid),
ledger.balances(timestamptz),
lending.mortgage(text),
lending.link_schedule(bigint, text, text),
lending.unlink_schedule(bigint, text, boolean),
lending.write_set(bigint[]),
lending.write_item(lending.payments_due),
lending.write_due(bigint, integer),
lending.payments_subject(bigint),
backfill.lending_payments(jsonb),
lending.begin_payment_backfill(bigint, text),
lending.step_payment_backfill(uuid, integer),
lending.finish_payment_backfill(uuid),
ledger.push_batch(integer, boolean, timestamptz),
ledger.push_confirmed(uuid[], text[]),
ledger.push_refused(uuid, text, text, boolean),
ledger.begin_verify(),
ledger.take_formance_transactions(uuid, jsonb),
ledger.verify_findings(uuid)
to public;
