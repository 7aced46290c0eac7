do $do$
begin
    perform backfill.unregister('invoices');
end;
$do$;
drop function backfill.backfill_invoice(uuid, uuid, text, date, date, timestamptz, date, bigint, jsonb, text);
drop function backfill.stage_invoice(staging.invoices, jsonb);
drop function backfill.invoice_payload_lines(jsonb);
drop function backfill.staged_differences(staging.invoices, jsonb);
drop function backfill.invoices(jsonb);
drop function backfill.write_invoices(uuid, text);
drop function backfill.raise_watermark(uuid, bigint);
drop view backfill.invoice_lines_due;
drop view backfill.invoices_rejects;
drop view backfill.invoices_due;
drop view backfill.invoice_conflicts;
drop function backfill.invoice_differences(backfill.invoices_open, billing.invoices);
drop view backfill.invoices_open;
