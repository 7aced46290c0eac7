-- What was loaded can be loaded again from its files.
do $do$
begin
    perform backfill.unseal_table('staging.electricity_bill');
    perform backfill.unseal_table('staging.rent_history_share');
    perform backfill.unseal_table('staging.rent_history');
end;
$do$;
do $do$
begin
    perform backfill.untrack('staging.electricity_bill');
    perform backfill.untrack('staging.rent_history_share');
    perform backfill.untrack('staging.rent_history');
end;
$do$;
drop table staging.electricity_bill;
drop table staging.rent_history_share;
drop table staging.rent_history;
