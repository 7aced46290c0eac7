do $do$
begin
    perform backfill.unregister('charges');
end;
$do$;
drop view property.tenant_balance;
drop function backfill.charges(jsonb);
drop view backfill.charges_rejects;
drop view backfill.charges_due;
drop function backfill.is_billing_period(text);
drop index property.charges_one_rent_per_period;
do $do$
begin
    if exists (select from pg_roles where rolname = 'backfill_auditor') then
        revoke select on property.units, property.payments, property.charges from backfill_auditor;
        revoke usage on schema property from backfill_auditor;
    end if;
end;
$do$;
