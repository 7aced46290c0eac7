drop function staging.comparison_rows(bigint);
drop function staging.compare_ledger(text, bigint);
drop function staging.match_numbers(bigint);
drop function staging.part_duplicates(text, bigint, boolean);
drop function staging.match_lines(text, bigint, boolean);
drop function staging.ledger_pairs(text, boolean);
drop view staging.numbered_invoice;
drop function staging.comparison_class(
    text, bigint, bigint, bigint, date, date, text, text, text, text
);
drop function staging.begin_comparison();
