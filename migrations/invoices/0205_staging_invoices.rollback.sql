do $do$
begin
    perform backfill.unseal_table('staging.invoice_documents');
    perform backfill.unseal_table('staging.invoice_lines');
    perform backfill.unseal_table('staging.invoices');
end;
$do$;
do $do$
begin
    perform backfill.untrack('staging.invoice_documents');
    perform backfill.untrack('staging.invoice_lines');
    perform backfill.untrack('staging.invoices');
    perform backfill.untrack('billing.facility_aliases');
end;
$do$;
drop table billing.facility_aliases;
drop table staging.invoice_documents;
drop table staging.invoice_lines;
drop table staging.invoices;
drop function staging.refuse_unstaging();
