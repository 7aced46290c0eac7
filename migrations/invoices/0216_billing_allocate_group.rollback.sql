drop function billing.allocate_group(uuid, uuid, uuid, uuid[]);
drop function billing.write_off_room(uuid, text, uuid, integer, bigint);
