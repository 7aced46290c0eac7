-- Who may do what in the system charges. The backfill's function is nobody's: backfill.run() calls it.
-- Safe: rights only, and on nothing but the system's own functions and what its gates read.
-- depends: 0103_property_tenant_balance

revoke execute on function backfill.charges(jsonb) from public;

do $do$
begin
    perform backfill.grant_to('backfill_auditor', 'select on backfill.charges_due, backfill.charges_rejects, backfill.charges_in_flight');
    -- The gates read as whoever runs them.
    perform backfill.grant_to('backfill_auditor', 'usage on schema property');
    perform backfill.grant_to('backfill_auditor',
        'select on property.units, property.payments, property.charges, property.tenant_balance');
end;
$do$;
