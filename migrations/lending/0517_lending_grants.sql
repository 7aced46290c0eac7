-- Who may do what in lending and the ledger: the auditor reads, the operator fetches, backfills, posts and pushes, and
-- lending_admin links.
-- Safe: privileges only, of the system's own functions and of what it reads and writes. Where a role is missing they are kept
-- for backfill.regrant().
-- depends: 0516_ledger_compare

revoke execute on function
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
from public;

do $do$
begin
    perform backfill.grant_to('backfill_auditor', 'usage on schema lending');
    perform backfill.grant_to('backfill_auditor', 'select on lending.borrowers, lending.mortgages, lending.payments');
    perform backfill.grant_to('backfill_auditor', 'select on staging.rotessa_fetch, staging.rotessa_customer, '
        'staging.rotessa_schedule, staging.rotessa_transaction, staging.rotessa_version, lending.schedules, lending.transactions');
    perform backfill.grant_to('backfill_auditor', 'execute on function lending.schedule_status(bigint)');
    perform backfill.grant_to('backfill_operator', 'execute on function staging.begin_rotessa_fetch(date, date, integer)');
    perform backfill.grant_to('backfill_operator', 'execute on function staging.take_rotessa_customers(uuid, jsonb)');
    perform backfill.grant_to('backfill_operator', 'execute on function staging.take_rotessa_schedules(uuid, bigint, jsonb)');
    perform backfill.grant_to('backfill_operator', 'execute on function staging.take_rotessa_transactions(uuid, integer, jsonb)');
    perform backfill.grant_to('backfill_operator', 'execute on function staging.finish_rotessa_fetch(uuid)');
    perform backfill.grant_to('backfill_operator', 'execute on function staging.take_rotessa_history(bigint, jsonb)');

    perform backfill.grant_to('backfill_auditor', 'usage on schema ledger');
    perform backfill.grant_to('backfill_auditor', 'select on ledger.accounts, ledger.transactions, ledger.postings, '
        'ledger.closed_period, ledger.collection_legs, ledger.running_balance');
    perform backfill.grant_to('backfill_auditor', 'execute on function ledger.balances(timestamptz)');
    perform backfill.grant_to('backfill_auditor', 'execute on function ledger.transaction_id(text)');
    perform backfill.grant_to('backfill_operator', 'execute on function ledger.close_period(text, text)');
    perform backfill.grant_to('backfill_operator', 'execute on function ledger.record_payment_collection(uuid, timestamptz)');
    perform backfill.grant_to('backfill_operator', 'execute on function ledger.record_payment_chargeback(uuid)');

    perform backfill.grant_to('backfill_auditor', 'select on lending.link_suggestions, lending.unlinked_schedules, '
        'lending.mortgages_without_schedule, lending.runs');
    perform backfill.grant_to('backfill_auditor', 'execute on function lending.mortgage(text)');
    perform backfill.grant_to('lending_admin', 'execute on function lending.link_schedule(bigint, text, text)');
    perform backfill.grant_to('lending_admin', 'execute on function lending.unlink_schedule(bigint, text, boolean)');

    perform backfill.grant_to('backfill_auditor', 'select on lending.payments_due, backfill.lending_payments_due');
    perform backfill.grant_to('backfill_operator', 'execute on function lending.begin_payment_backfill(bigint, text)');
    perform backfill.grant_to('backfill_operator', 'execute on function lending.step_payment_backfill(uuid, integer)');
    perform backfill.grant_to('backfill_operator', 'execute on function lending.finish_payment_backfill(uuid)');

    perform backfill.grant_to('backfill_auditor', 'select on ledger.push, ledger.formance_body, ledger.push_state, staging.formance_transaction');
    perform backfill.grant_to('backfill_auditor', 'execute on function ledger.verify_findings(uuid)');
    perform backfill.grant_to('backfill_operator', 'execute on function ledger.push_batch(integer, boolean, timestamptz)');
    perform backfill.grant_to('backfill_operator', 'execute on function ledger.push_confirmed(uuid[], text[])');
    perform backfill.grant_to('backfill_operator', 'execute on function ledger.push_refused(uuid, text, text, boolean)');
    perform backfill.grant_to('backfill_operator', 'execute on function ledger.begin_verify()');
    perform backfill.grant_to('backfill_operator', 'execute on function ledger.take_formance_transactions(uuid, jsonb)');
end;
$do$;
