drop function lending.write_due(bigint, integer);
drop function lending.write_item(lending.payments_due);
drop function lending.write_set(bigint[]);
