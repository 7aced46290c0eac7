drop view billing.check_balances;
drop function billing.unapply_check(uuid);
drop function billing.allocate_check(uuid);
drop function billing.allocate_checks(uuid[]);
drop function billing.allocate_facility(uuid, uuid, uuid[]);
