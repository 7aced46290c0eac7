drop function billing.delete_invoice(uuid, text, text, text);
drop function billing.void_invoice(uuid, text, text, date);
drop function billing.resend_invoice(uuid, timestamptz, text, text);
