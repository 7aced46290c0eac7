do $do$
begin
    perform backfill.untrack('billing.check_reference_reviews');
end;
$do$;
drop table billing.check_reference_reviews;
drop view billing.check_reference_matches;
drop view billing.reference_matches;
drop view billing.money_references;
drop function billing.match_reference(uuid, uuid, text);
drop function billing.reference_tokens(text);
drop function billing.one_series(uuid);
drop index billing.invoices_number_series;
drop index billing.invoices_number_key;
