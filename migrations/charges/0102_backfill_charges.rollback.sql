do $do$
begin
    perform backfill.unregister('charges');
end;
$do$;
drop function backfill.charges(jsonb);
drop index property.charges_one_rent_per_period;
drop view backfill.charges_rejects;
drop view backfill.charges_due;
drop view backfill.charges_in_flight;
