-- What was sent cannot be unsent: while the outbox holds rows, it stays.
do $$
begin
    if exists (select from ledger.push) then
        raise exception 'ledger.push holds rows: what was sent to Formance would be forgotten and sent again'
            using errcode = 'BF010', hint = 'Keep it, or empty it deliberately after the other ledger was thrown away.';
    end if;
end;
$$;
drop view ledger.push_state;
drop function ledger.push_refused(uuid, text, text, boolean);
drop function ledger.push_confirmed(uuid[], text[]);
drop function ledger.push_batch(integer, boolean, timestamptz);
drop view ledger.formance_body;
drop table ledger.push;
