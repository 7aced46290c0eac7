-- What grant_to() gave goes.
do $do$
begin
    perform backfill.revoke_from('backfill_auditor', 'usage on schema rent');
    perform backfill.revoke_from('backfill_auditor', 'select on rent.tenants, rent.rent_config, rent.rent_ledger, '
        'rent.electricity_bills, rent.calculation, rent.accepted_finding, rent.closed_period');
    perform backfill.revoke_from('backfill_auditor',
        'select on staging.rent_history, staging.rent_history_share, staging.electricity_bill');
    perform backfill.revoke_from('backfill_auditor',
        'select on backfill.rent_history_files, backfill.rent_history_due, backfill.rent_history_rejects');
    perform backfill.revoke_from('backfill_auditor',
        'select on backfill.electricity_bills_files, backfill.electricity_bills_due, backfill.electricity_bills_rejects');
    perform backfill.revoke_from('backfill_auditor', 'execute on function rent.month_start(text)');
    perform backfill.revoke_from('backfill_auditor', 'execute on function rent.next_period(text, integer)');
    perform backfill.revoke_from('backfill_auditor', 'execute on function rent.bill_period(date)');
    perform backfill.revoke_from('backfill_auditor', 'execute on function rent.lives_there(date, date, text, text)');
    perform backfill.revoke_from('backfill_auditor', 'execute on function rent.shares(bigint, integer, jsonb)');
    perform backfill.revoke_from('backfill_auditor', 'execute on function rent.explain(text, text)');

    perform backfill.revoke_from('backfill_operator',
        'insert on staging.rent_history, staging.rent_history_share, staging.electricity_bill');
    perform backfill.revoke_from('backfill_operator', 'execute on function rent.record_calculation(text, jsonb, jsonb, text)');
    perform backfill.revoke_from('backfill_operator', 'execute on function rent.accept_finding(text, text, text)');
    perform backfill.revoke_from('backfill_operator', 'execute on function rent.close_period(text, text)');
end;
$do$;
-- As `create function` leaves them; the rollbacks of what is before drop them.
grant execute on function
rent.month_start(text),
rent.next_period(text, integer),
rent.bill_period(date),
rent.lives_there(date, date, text, text),
rent.accept_finding(text, text, text),
rent.guard_ledger(),
rent.refuse_rewrite(),
rent.refuse_closed(),
rent.lock_period(),
rent.close_period(text, text),
rent.kronor(jsonb, text),
rent.config_used(text, jsonb),
rent.shares(bigint, integer, jsonb),
rent.record_calculation(text, jsonb, jsonb, text),
rent.explain(text, text),
backfill.rent_history(jsonb),
backfill.electricity_bills(jsonb)
to public;
