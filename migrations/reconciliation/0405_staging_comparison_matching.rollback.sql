drop function staging.match_numbers(bigint);
drop function staging.part_duplicates(text, bigint, boolean);
drop function staging.match_lines(text, bigint, boolean);
