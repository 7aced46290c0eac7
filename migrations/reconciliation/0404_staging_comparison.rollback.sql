drop function staging.comparison_rows(bigint);
drop function staging.compare_finance_ledger(text, bigint);
drop function staging.finance_ledger_pairs(text, boolean);
drop view staging.numbered_invoice;
drop function staging.comparison_class(
    text, bigint, bigint, bigint, date, date, text, text, text, text
);
drop function staging.begin_comparison();
