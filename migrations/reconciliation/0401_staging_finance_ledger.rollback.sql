-- What was loaded can be loaded again from its files.
do $do$
begin
    perform backfill.unseal_table('staging.finance_ledger_line');
end;
$do$;
drop view staging.current_finance_ledger;
drop table staging.finance_ledger_line;
drop table staging.finance_ledger_raw;
