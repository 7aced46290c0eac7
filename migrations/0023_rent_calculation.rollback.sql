-- What was calculated stays; only the functions go.
drop function rent.explain(text, text);
drop function rent.record_calculation(text, jsonb, jsonb, text);
drop function rent.lives_there(date, date, text, text);
drop function rent.shares(bigint, integer, jsonb);
drop function rent.config_used(text, jsonb);
drop function rent.kronor(jsonb, text);
