do $do$
begin
    perform backfill.unregister('payment_links');
end;
$do$;
drop function backfill.payment_links(jsonb);
drop view billing.payment_review;
drop view backfill.payment_links_due;
