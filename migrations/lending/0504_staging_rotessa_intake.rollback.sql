drop function staging.take_rotessa_transactions(uuid, integer, jsonb);
drop function staging.take_rotessa_schedules(uuid, bigint, jsonb);
drop function staging.take_rotessa_customers(uuid, jsonb);
drop function staging.rotessa_fault(text, text, text, text, text, text);
