drop function staging.record_documents(jsonb);
drop function staging.take_invoices(uuid, text, text, text, text, boolean);
drop function staging.summary_line(text);
drop function staging.take_aliases(uuid);
drop function staging.begin_invoices();
drop function staging.client_key(text);
