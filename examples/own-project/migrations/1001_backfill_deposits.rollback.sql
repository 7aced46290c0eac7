do $do$
begin
    perform backfill.revoke_from('backfill_auditor', 'select on shop.orders, shop.deposits');
    perform backfill.revoke_from('backfill_auditor', 'usage on schema shop');
    perform backfill.revoke_from('backfill_auditor', 'select on backfill.deposits_due');
    perform backfill.unregister('deposits');
    perform backfill.untrack('shop.deposits');
end;
$do$;
drop function backfill.deposits(jsonb);
drop view backfill.deposits_due;
