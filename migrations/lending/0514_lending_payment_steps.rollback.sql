do $do$
begin
    perform backfill.unregister('lending_payments');
end;
$do$;
drop function lending.finish_payment_backfill(uuid);
drop function lending.step_payment_backfill(uuid, integer);
drop function lending.begin_payment_backfill(bigint, text);
drop function backfill.lending_payments(jsonb);
drop function lending.payments_subject(bigint);
