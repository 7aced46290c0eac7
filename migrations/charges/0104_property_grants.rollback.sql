do $do$
begin
    perform backfill.revoke_from('backfill_auditor', 'select on backfill.charges_due, backfill.charges_rejects, backfill.charges_in_flight');
    perform backfill.revoke_from('backfill_auditor', 'usage on schema property');
    perform backfill.revoke_from('backfill_auditor',
        'select on property.units, property.payments, property.charges, property.tenant_balance');
end;
$do$;
-- As `create function` leaves it; the rollback of 0102 drops it.
grant execute on function backfill.charges(jsonb) to public;
