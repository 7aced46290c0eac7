drop function staging.take_rotessa_history(bigint, jsonb);
drop function staging.finish_rotessa_fetch(uuid);
drop function staging.count_rotessa(uuid, text, bigint, bigint, bigint, bigint);
drop function staging.step_rotessa(uuid, jsonb);
drop function staging.begin_rotessa_fetch(date, date, integer);
