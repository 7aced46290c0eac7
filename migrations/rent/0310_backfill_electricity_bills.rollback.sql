do $do$
begin
    perform backfill.unregister('electricity_bills');
end;
$do$;
drop function backfill.electricity_bills(jsonb);
drop view backfill.electricity_bills_rejects;
drop view backfill.electricity_bills_due;
drop view backfill.electricity_bills_files;
