drop function billing.allocate_on_account(uuid, uuid);
drop function billing.allocate_check(uuid, boolean);
drop function billing.allocate_checks(uuid[], boolean);
drop view billing.checks_received_twice;
