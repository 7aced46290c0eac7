drop view backfill.invoice_lines_due;
drop view backfill.invoices_rejects;
drop view backfill.invoices_due;
drop view backfill.invoice_conflicts;
drop function backfill.invoice_differences(text, staging.invoices, staging.invoices, jsonb, jsonb);
drop view backfill.invoices_open;
