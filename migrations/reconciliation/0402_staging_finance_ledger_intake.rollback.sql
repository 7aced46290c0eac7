drop function staging.take_plain_finance_ledger(text, bigint);
drop function staging.begin_plain_finance_ledger(text);
drop function staging.take_finance_ledger(text, text, bigint, bigint);
drop function staging.number_finance_ledger(text, bigint);
drop function staging.cast_finance_ledger(text, boolean, bigint);
drop function staging.finance_ledger_rejects(text);
drop function staging.finance_ledger_fault(staging.finance_ledger_raw);
drop function staging.begin_finance_ledger();
