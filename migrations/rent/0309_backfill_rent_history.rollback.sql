do $do$
begin
    perform backfill.unregister('rent_history');
end;
$do$;
drop function backfill.rent_history(jsonb);
drop view backfill.rent_history_rejects;
drop view backfill.rent_history_due;
drop view backfill.rent_history_files;
