do $do$
begin
    perform backfill.unregister('payment_links');
end;
$do$;
drop function billing.link_payment(uuid, uuid, text);
drop function backfill.payment_links(jsonb);
drop view billing.payment_review;
drop view backfill.payment_links_due;
drop view billing.payment_candidates;
drop view billing.uncovered_invoices;
