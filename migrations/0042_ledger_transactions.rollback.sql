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
    perform backfill.untrack('ledger.closed_period');
    perform backfill.untrack('ledger.postings');
    perform backfill.untrack('ledger.transactions');
    if to_regclass('lending.payments') is not null then
        alter table lending.payments drop constraint if exists payments_ledger_transaction;
    end if;
end;
$do$;
drop view ledger.running_balance;
drop function ledger.balances(timestamptz);
drop function ledger.record_payment_chargeback(uuid);
drop function ledger.record_payment_collection(uuid, timestamptz);
drop function ledger.transaction_id(text);
drop view ledger.collection_legs;
drop function ledger.close_period(text, text);
drop table ledger.closed_period;
drop table ledger.unbalanced;
drop table ledger.postings;
drop table ledger.transactions;
drop table ledger.accounts;
drop function ledger.lock_periods();
drop function ledger.refuse_unbalanced();
drop function ledger.queue_empty();
drop function ledger.queue_unbalanced();
drop function ledger.refuse_closed();
drop function ledger.refuse_rewrite();
drop schema ledger;
