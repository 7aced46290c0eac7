do $do$
begin
    perform backfill.untrack('staging.invoice_documents');
    perform backfill.untrack('staging.invoice_lines');
    perform backfill.untrack('staging.invoices');
    perform backfill.untrack('billing.facility_aliases');
end;
$do$;
drop table staging.invoice_documents;
drop table staging.invoice_lines;
drop table staging.invoices;
drop function staging.refuse_unstaging();
drop function billing.keep_facility_aliases(uuid, jsonb);
drop table billing.facility_aliases;
