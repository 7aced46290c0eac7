-- What was fetched can be fetched again, but for what it was before it changed.
do $do$
begin
    perform backfill.unseal_table('staging.rotessa_transaction');
    perform backfill.unseal_table('staging.rotessa_schedule');
    perform backfill.unseal_table('staging.rotessa_customer');
end;
$do$;
drop table staging.rotessa_version;
drop table staging.rotessa_transaction;
drop table staging.rotessa_schedule;
drop table staging.rotessa_customer;
drop table staging.rotessa_fetch;
