drop function rent.shares(bigint, integer, jsonb);
drop function rent.config_used(text, jsonb);
drop function rent.kronor(jsonb, text);
