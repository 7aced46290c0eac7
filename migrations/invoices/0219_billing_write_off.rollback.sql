drop function billing.unapply_check(uuid);
drop function billing.return_check(uuid, date, text, bigint);
drop function billing.write_off(uuid, bigint, text, text, date);
