drop view staging.current_ledger;
drop function staging.take_ledger(text, text, bigint, bigint);
drop function staging.number_ledger(text, bigint);
drop function staging.cast_ledger(text, boolean, bigint);
drop function staging.ledger_rejects(text);
drop function staging.begin_ledger();
drop function staging.ledger_fault(staging.ledger_raw);
drop table staging.ledger_line;
drop table staging.ledger_raw;
