drop function billing.delete_invoice(uuid, text, text, text);
drop function billing.void_invoice(uuid, text, text);
drop function billing.resend_invoice(uuid, timestamptz, text, date, text);
drop function billing.correct_invoice(uuid, jsonb, text, text);
drop function billing.end_action(boolean, text, billing.invoices);
drop function billing.begin_action(text, uuid, text, jsonb);
drop trigger refuse_second_invoice on backfill.backfill_log;
drop function billing.refuse_second_by_reversal();
drop view billing.invoice_faults;
