drop function staging.ledger_comparison(text, numeric, date, date, uuid, date);
drop function staging.ledger_parts(text, bigint[], bigint[], text, numeric, numeric);
drop type staging.ledger_part;
drop function staging.comparison_differences(
    boolean, numeric, numeric, numeric, date, date, text, text, text, text
);
