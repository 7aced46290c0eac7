drop function backfill.backfill_invoice(uuid, uuid, text, date, date, timestamptz, date, bigint, jsonb, text, text);
drop function backfill.stage_invoice(staging.invoices, jsonb);
drop function backfill.staged_differences(staging.invoices, jsonb);
drop function backfill.invoice_payload_lines(jsonb);
drop function backfill.line_payload(text, uuid, date, numeric, bigint, bigint);
