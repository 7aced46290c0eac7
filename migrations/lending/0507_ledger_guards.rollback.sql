-- A ledger with transactions keeps its guards: the rollback is refused then.
do $do$
begin
    if exists (select from ledger.transactions) then
        raise exception 'ledger.transactions holds rows: the ledger keeps its guards'
            using errcode = 'BF010', hint = 'Reverse the runs that wrote them, or dump and empty the ledger deliberately.';
    end if;
    perform backfill.untrack('ledger.closed_period');
end;
$do$;
drop trigger b_refuse_closed_delete on ledger.transactions;
drop trigger b_refuse_closed_insert on ledger.transactions;
drop function ledger.close_period(text, text);
drop table ledger.closed_period;
drop function ledger.lock_periods();
drop function ledger.refuse_closed();
drop trigger c_queue_unbalanced_delete on ledger.postings;
drop trigger c_queue_unbalanced_insert on ledger.postings;
drop trigger c_queue_empty on ledger.transactions;
drop table ledger.unbalanced;
drop function ledger.refuse_unbalanced();
drop function ledger.queue_empty();
drop function ledger.queue_unbalanced();
drop trigger a_refuse_rewrite on ledger.postings;
drop trigger a_refuse_rewrite on ledger.transactions;
drop function ledger.refuse_rewrite();
