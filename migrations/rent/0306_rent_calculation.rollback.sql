-- What was calculated stays; only the function goes.
drop function rent.record_calculation(text, jsonb, jsonb, text);
