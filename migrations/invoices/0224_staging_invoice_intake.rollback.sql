drop function staging.take_invoices(uuid, text, text, text, text, boolean);
drop function staging.summary_line(text);
