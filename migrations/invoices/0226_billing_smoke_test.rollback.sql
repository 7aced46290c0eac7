-- The line of the checklist goes with its function.
do $do$
begin
    perform backfill.unregister_check('billing flows');
end;
$do$;
drop function billing.smoke_test();
