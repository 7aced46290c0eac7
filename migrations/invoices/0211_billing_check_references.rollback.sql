do $do$
begin
    perform backfill.untrack('billing.check_reference_reviews');
end;
$do$;
drop table billing.check_reference_reviews;
drop view billing.check_reference_matches;
drop index billing.invoices_number_tail;
