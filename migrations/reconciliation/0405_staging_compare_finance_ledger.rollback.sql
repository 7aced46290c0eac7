drop function staging.comparison_rows(bigint);
drop function staging.comparison_columns();
drop function staging.compare_finance_ledger(text, numeric, date, date, uuid, date);
drop function staging.require_comparison();
drop function staging.begin_comparison();
