do $do$
begin
    perform backfill.untrack('billing.check_reference_reviews');
end;
$do$;
drop view billing.check_balances;
drop function billing.unapply_check(uuid);
drop function billing.allocate_check(uuid);
drop function billing.allocate_checks(uuid[]);
drop function billing.allocate_facility(uuid, uuid, uuid[]);
drop view billing.check_reference_matches;
drop table billing.check_reference_reviews;
drop index billing.invoices_number_tail;
drop function billing.number_prefix(text);
drop function billing.number_tail(text);
