-- What was loaded can be loaded again from its files.
do $do$
begin
    perform backfill.untrack('staging.electricity_bill');
    perform backfill.untrack('staging.rent_history_share');
    perform backfill.untrack('staging.rent_history');
    if exists (select from pg_roles where rolname = 'backfill_operator') then
        revoke delete on staging.file from backfill_operator;
    end if;
end;
$do$;
drop table staging.electricity_bill;
drop table staging.rent_history_share;
drop table staging.rent_history;
