-- A ledger with transactions is not dropped: its history cannot be made again.
do $$
begin
    if exists (select from ledger.transactions) then
        raise exception 'ledger.transactions holds rows: the ledger is not dropped'
            using errcode = 'BF010', hint = 'Reverse the runs that wrote them, or dump and empty the ledger deliberately.';
    end if;
end;
$$;
do $do$
begin
    perform backfill.untrack('ledger.postings');
    perform backfill.untrack('ledger.transactions');
    if to_regclass('lending.payments') is not null then
        alter table lending.payments drop constraint if exists payments_ledger_transaction;
    end if;
end;
$do$;
drop table ledger.postings;
drop table ledger.transactions;
drop table ledger.accounts;
do $do$
begin
    perform backfill.drop_baseline_schema('ledger');
end;
$do$;
